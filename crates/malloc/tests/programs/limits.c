// Runs out of memory repeatedly, with blocks of every size.

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static void fail(const char *what, size_t size) {
    fprintf(stderr, "FAILED: %s with %zu bytes\n", what, size);
    _exit(1);
}

// Each block begins with the address of the previous block.
static void *take_all(size_t size, size_t align) {
    void **last = NULL;
    for (;;) {
        errno = 0;
        void **block = align == 16 ? malloc(size) : aligned_alloc(align, size);
        if (block == NULL) break;
        *block = last;
        last = block;
    }
    if (errno != ENOMEM) fail("errno", size);
    if (last == NULL) fail("no block", size);
    return last;
}

static size_t free_all(void **last) {
    size_t count = 0;
    while (last != NULL) {
        void **before = *last;
        free(last);
        last = before;
        count++;
    }
    return count;
}

int main(void) {
    const size_t sizes[] = {16, 500, 3000, 40000, 300000, 3000000, 20000000};
    setvbuf(stdout, NULL, _IONBF, 0);
    struct rlimit limit = {256 << 20, 256 << 20};
    if (setrlimit(RLIMIT_AS, &limit) != 0) return 1;
    for (int round = 0; round < 2; round++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            size_t size = sizes[i];
            char *kept = malloc(size);
            memset(kept, 7, size);
            void *all = take_all(size, i % 2 == 0 ? 16 : 64);
            if (realloc(kept, 200 << 20) != NULL || errno != ENOMEM) fail("realloc", size);
            for (size_t at = 0; at < size; at++)
                if (kept[at] != 7) fail("the contents", size);
            void *out = &limit;
            errno = 5;
            if (posix_memalign(&out, 4096, 200 << 20) != ENOMEM || out != &limit || errno != 5)
                fail("posix_memalign", size);
            if (free_all(all) == 0) fail("no block", size);
            free(kept);
        }
    puts("done");
    return 0;
}
