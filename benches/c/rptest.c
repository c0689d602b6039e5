// Random sizes and some blocks that another thread frees.
//
// Described with the benchmark of rpmalloc (M. Jansson). Each thread repeatedly frees a part of its
// blocks, allocates others in their place, and passes every second set of blocks to the next thread.
// Sizes are between 8 and 16,000 bytes, and their number falls linearly with the size.

#include "support.h"

#include <stdatomic.h>
#include <string.h>

#define LOOPS 6000
#define BLOCKS 1000
#define REPLACED 200
#define PASSED 100
#define CROSS_RATE 2
#define MOST_THREADS 64

struct parcel {
    void *blocks[PASSED];
};

static _Atomic(struct parcel *) parcels[MOST_THREADS];

static void *request(struct random *random) {
    size_t one = between(random, 8, 16000), other = between(random, 8, 16000);
    size_t size = one < other ? one : other;
    void *block = block_of(size);
    memset(block, 1, size < 64 ? size : 64);
    return block;
}

static void unpack(struct parcel *parcel) {
    if (parcel == NULL)
        return;
    for (size_t place = 0; place < PASSED; place++)
        free(parcel->blocks[place]);
    free(parcel);
}

static void work(unsigned number, void *context) {
    unsigned next = (number + 1) % *(unsigned *)context;
    struct random random = random_of(number + 7);
    void *live[BLOCKS];
    for (size_t place = 0; place < BLOCKS; place++)
        live[place] = request(&random);
    for (unsigned loop = 0; loop < LOOPS; loop++) {
        size_t start = below(&random, BLOCKS);
        for (size_t count = 0; count < REPLACED; count++) {
            // A prime stride reaches every place once.
            size_t place = (start + count * 7) % BLOCKS;
            free(live[place]);
            live[place] = request(&random);
        }
        if (loop % CROSS_RATE == 0) {
            struct parcel *parcel = block_of(sizeof *parcel);
            for (size_t place = 0; place < PASSED; place++)
                parcel->blocks[place] = request(&random);
            unpack(atomic_exchange(&parcels[next], parcel));
        }
        unpack(atomic_exchange(&parcels[number], NULL));
    }
    for (size_t place = 0; place < BLOCKS; place++)
        free(live[place]);
}

uint64_t rptest(unsigned threads) {
    on_threads(threads, work, &threads);
    for (unsigned number = 0; number < threads; number++)
        unpack(atomic_exchange(&parcels[number], NULL));
    return (uint64_t)threads * LOOPS * (REPLACED + PASSED / CROSS_RATE);
}
