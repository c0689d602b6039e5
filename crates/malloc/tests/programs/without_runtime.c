// Calls operator new in a process without a C++ runtime.

#include <stddef.h>
#include <stdio.h>

extern void *_Znwm(size_t) __attribute__((weak));
extern void *_ZnwmRKSt9nothrow_t(size_t, const void *) __attribute__((weak));
extern void _ZdlPv(void *) __attribute__((weak));

int main(void) {
    _ZdlPv(_Znwm(100));
    printf("%p\n", _ZnwmRKSt9nothrow_t((size_t)1 << 62, ""));
    fflush(stdout);
    _Znwm((size_t)1 << 62);
    return 0;
}
