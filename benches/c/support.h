// What the programs share: random numbers, threads, and blocks that cannot be allocated.
//
// The programs are written from the published descriptions of the field's usual benchmarks. The
// numbers of blocks and rounds are chosen so that a program takes about a second.

#ifndef SUPPORT_H
#define SUPPORT_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

// Marsaglia's xorshift generator with 64 bits of state.
struct random {
    uint64_t state;
};

static inline struct random random_of(uint64_t seed) {
    return (struct random){seed * UINT64_C(0x9e3779b97f4a7c15) | 1};
}

// Returns the next number below `bound`, which is at most 2^32.
static inline size_t below(struct random *random, size_t bound) {
    random->state ^= random->state << 13;
    random->state ^= random->state >> 7;
    random->state ^= random->state << 17;
    return (size_t)(((random->state >> 32) * bound) >> 32);
}

// Returns the next number from `least` to `most`, inclusive.
static inline size_t between(struct random *random, size_t least, size_t most) {
    return least + below(random, most - least + 1);
}

// Ends the process, because `what` failed.
_Noreturn void fail(const char *what);

// Allocates a block, or ends the process.
static inline void *block_of(size_t size) {
    void *block = malloc(size);
    if (block == NULL)
        fail("malloc");
    return block;
}

// Runs `work(number, context)` on `count` threads, whose numbers begin with 0, and waits for them.
void on_threads(unsigned count, void (*work)(unsigned number, void *context), void *context);

// A program. It runs on so many threads and returns the number of its operations.
typedef uint64_t program(unsigned threads);

program larson, xmalloc, cache_scratch, cache_thrash, glibc_simple, glibc_thread, mstress, rptest,
    alloc_test, sh6bench, sh8bench, malloc_large;

#endif
