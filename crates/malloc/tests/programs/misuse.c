// Misuses memory in the way that argv[1] names.
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <malloc.h>

static int is(const char *name, char **argv) { return !strcmp(name, argv[1]); }

static void *work(void *arg) {
    for (int i = 0; i < 20000; i++) {
        size_t size = (size_t)(i * 7919) % (i % 50 ? 3000 : 700000);
        char *p = i % 3 ? malloc(size) : calloc(1, size);
        if (!p || (uintptr_t)p % 16) abort();
        memset(p, i, size);
        p = realloc(p, size + 100);
        if (size && p[size - 1] != (char)i) abort();
        if (malloc_usable_size(p) != size + 100) abort();
        free(p);
    }
    return arg;
}

int main(int argc, char **argv) {
    if (argc < 2) return 1;
    volatile size_t n = 24;
    char *volatile p = malloc(n);
    if (is("clean", argv)) {
        pthread_t threads[3];
        for (int i = 0; i < 3; i++) pthread_create(&threads[i], 0, work, 0);
        int status = 0;
        for (int i = 0; i < 5; i++) {
            pid_t child = fork();
            if (child == 0) { free(malloc(1000)); _exit(0); }
            waitpid(child, &status, 0);
            if (status) return 2;
        }
        for (int i = 0; i < 3; i++) pthread_join(threads[i], 0);
        for (size_t align = 8; align <= 4 << 20; align *= 2) {
            void *q;
            if (posix_memalign(&q, align, 100) || (uintptr_t)q % align) return 3;
            memset(q, 1, 100);
            free(q);
        }
        puts(malloc_usable_size(p) == n ? "debug" : "plain");
        free(p);
        return 0;
    }
    if (is("overflow", argv)) { p[n] = 1; free(p); }
    if (is("underflow", argv)) { p[-1] = 1; free(p); }
    if (is("realloc", argv)) { p[n] = 1; p = realloc(p, 100); }
    if (is("double", argv)) { free(p); free(p); }
    if (is("after", argv)) { free(p); p = realloc(p, 100); }
    if (is("unaligned", argv)) free(p + 1);
    if (is("foreign", argv)) { static long words[8]; free(&words[4]); }
    if (is("nowhere", argv)) free((void *)0x1230);
    if (is("hole", argv)) {
        char *q = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (q == MAP_FAILED || mprotect(q, 4096, PROT_NONE)) return 5;
        free(q + 4096);
    }
    if (is("large double", argv)) { p = malloc(n = 3000000); free(p); free(p); }
    if (is("large after", argv)) { p = malloc(n = 3000000); free(p); p = realloc(p, 100); }
    if (is("large moved", argv)) {
        char *volatile q = malloc(n = 3000000);
        p = realloc(q, 9);
        free(q);
    }
    if (is("usable", argv)) { free(p); return malloc_usable_size(p) != n; }
    if (is("usable nowhere", argv)) return malloc_usable_size((void *)0x1230) != n;
    if (is("aligned after", argv)) {
        char *volatile q = memalign(64, n);
        free(q);
        p = realloc(q, n);
    }
    if (is("aligned", argv)) { char *q = memalign(4096, n); q[n] = 1; free(q); }
    return 4;
}
