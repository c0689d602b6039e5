// Replaces malloc, calloc, realloc and free, but not the functions that are built on them.
//
// With WRAPS, blocks come from __libc_malloc, an internal name of the C library's malloc. Otherwise,
// they are parts of a static array. Each block has a header of HEADER bytes, by default 16. With
// PVALLOC, the program also replaces __libc_pvalloc.

#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef HEADER
#define HEADER 16
#endif

extern void *__libc_malloc(size_t);
extern void __libc_free(void *);
extern void free_sized(void *, size_t) __attribute__((weak));
extern void free_aligned_sized(void *, size_t, size_t) __attribute__((weak));
extern void cfree(void *) __attribute__((weak));

static size_t resized, freed;

#ifdef WRAPS
static char *take(size_t size) { return __libc_malloc(size); }
static void give(char *start) { __libc_free(start); }
#else
static char memory[1 << 20] __attribute__((aligned(16)));
static size_t used;

static char *take(size_t size) {
    size = (size + 15) & ~(size_t)15;
    if (size > sizeof memory - used) return NULL;
    used += size;
    return memory + used - size;
}

static void give(char *start) {
    if (start < memory || start >= memory + used) abort();
}
#endif

void *malloc(size_t size) {
    char *start = take(size + HEADER);
    if (!start) return NULL;
    if (HEADER) *(size_t *)start = size;
    return start + HEADER;
}

void free(void *block) {
    if (!block) return;
    freed++;
    give((char *)block - HEADER);
}

void *calloc(size_t count, size_t size) {
    void *block = malloc(count * size);
    return block ? memset(block, 0, count * size) : NULL;
}

void *realloc(void *block, size_t size) {
    resized++;
    void *new = malloc(size);
    if (new && block) {
        size_t old = HEADER ? *(size_t *)((char *)block - HEADER) : 16;
        memcpy(new, block, old < size ? old : size);
        free(block);
    }
    return new;
}

#ifdef PVALLOC
// Some allocators define this function of the C library, too.
void *__libc_pvalloc(size_t size) { return malloc(size); }
#endif

static void check(int is_right, const char *what) {
    if (is_right) return;
    fprintf(stderr, "wrong: %s\n", what);
    exit(1);
}

int main(void) {
    char *block = reallocarray(NULL, 4, 4);
    check(block && resized == 1, "reallocarray allocates with realloc");
    strcpy(block, "fifteen letters");
    block = reallocarray(block, 1000, 4);
    check(block && resized == 2, "reallocarray resizes with realloc");
    check(!strcmp(block, "fifteen letters"), "reallocarray keeps the contents");
    volatile size_t many = SIZE_MAX;
    check(!reallocarray(NULL, many, 2) && resized == 2, "reallocarray refuses an overflow");
    size_t before = freed;
    free(block);
#ifndef WRAPS
    // The C library would read a header of its own here.
    if (free_sized) check(malloc_usable_size(malloc(100)) == 0, "no size of a foreign block");
#elif HEADER == 0
    check(malloc_usable_size(malloc(100)) >= 100, "the size of a block of the library");
    void *aligned;
    check(!posix_memalign(&aligned, 64, 100), "posix_memalign");
    free(aligned);
    before++;
#endif
    if (free_sized) {
        free_sized(malloc(100), 100);
        free_aligned_sized(malloc(100), 16, 100);
        // Only our library's cfree calls the program's free. The C library's does not.
        cfree(malloc(100));
        before += 3;
    }
    check(freed == before + 1, "every block is freed with free");
    puts("done");
    return 0;
}
