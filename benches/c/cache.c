// Blocks of several threads in one cache line.
//
// Described by E. Berger and others, "Hoard: A Scalable Memory Allocator for Multithreaded
// Applications", ASPLOS 2000. Each thread allocates a small block, writes to it many times, and frees
// it. In cache-scratch, each thread first frees a block that lay beside the blocks of the others. An
// allocator that hands such a block out again makes the threads share a cache line.

#include "support.h"

#define SIZE 8
#define BLOCKS 1000
#define WRITES 600000
#define MOST_THREADS 64

static void write_to_many(unsigned threads) {
    for (unsigned count = 0; count < BLOCKS; count++) {
        volatile unsigned char *block = block_of(SIZE);
        for (unsigned place = 0; place < SIZE; place++)
            block[place] = (unsigned char)place;
        for (unsigned written = 0; written < WRITES / threads; written++)
            block[written % SIZE]++;
        free((void *)block);
    }
}

struct neighbours {
    unsigned threads;
    void *blocks[MOST_THREADS];
};

static void scratch(unsigned number, void *context) {
    struct neighbours *neighbours = context;
    free(neighbours->blocks[number]);
    write_to_many(neighbours->threads);
}

static void thrash(unsigned number, void *context) {
    (void)number;
    write_to_many(*(unsigned *)context);
}

uint64_t cache_scratch(unsigned threads) {
    struct neighbours neighbours = {.threads = threads};
    for (unsigned number = 0; number < threads; number++)
        neighbours.blocks[number] = block_of(SIZE);
    on_threads(threads, scratch, &neighbours);
    return (uint64_t)threads * BLOCKS;
}

uint64_t cache_thrash(unsigned threads) {
    on_threads(threads, thrash, &threads);
    return (uint64_t)threads * BLOCKS;
}
