// Large buffers with random sizes and lifetimes.
//
// Described with the benchmarks of mimalloc. Twenty buffers of 5 to 25 MiB are live, and random ones
// are replaced. Each new buffer is cleared.

#include "support.h"

#include <string.h>

#define BUFFERS 20
#define REPLACED 300
#define LEAST (5 << 20)
#define MOST (25 << 20)

uint64_t malloc_large(unsigned threads) {
    (void)threads;
    void *buffers[BUFFERS] = {NULL};
    struct random random = random_of(42);
    for (unsigned count = 0; count < REPLACED; count++) {
        size_t place = below(&random, BUFFERS), size = between(&random, LEAST, MOST);
        void *buffer = block_of(size);
        memset(buffer, 0, size);
        free(buffers[place]);
        buffers[place] = buffer;
    }
    for (unsigned place = 0; place < BUFFERS; place++)
        free(buffers[place]);
    return REPLACED;
}
