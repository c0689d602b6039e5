// Replaces operator new and operator delete in a process without a C++ runtime.

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

static int taken, given;

void *_Znwm(size_t size) {
    taken++;
    return (char *)malloc(size + 16) + 16;
}

void _ZdlPv(void *block) {
    given++;
    free((char *)block - 16);
}

extern void *_Znam(size_t) __attribute__((weak));
extern void *_ZnwmRKSt9nothrow_t(size_t, const void *) __attribute__((weak));
extern void *_ZnamRKSt9nothrow_t(size_t, const void *) __attribute__((weak));
extern void _ZdlPvm(void *, size_t) __attribute__((weak));
extern void _ZdaPv(void *) __attribute__((weak));
extern void _ZdaPvm(void *, size_t) __attribute__((weak));

int main(void) {
    _ZdlPvm(_ZnwmRKSt9nothrow_t(100, ""), 100);
    _ZdaPv(_ZnamRKSt9nothrow_t(100, ""));
    _ZdaPvm(_Znam(100), 100);
    printf("%d %d\n", taken, given);
    return 0;
}
