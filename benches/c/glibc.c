// The two benchmarks of malloc in the GNU C library: runs of one size, and a random working set.
//
// Described in `benchtests` of the GNU C library. The simple one allocates runs of blocks of one size,
// from 8 to 4,096 bytes, and frees them in the same order. In the other, each thread replaces random
// blocks of its working set. Small sizes are more likely: a size is proportional to the inverse square
// of a random number.

#include "support.h"

#define LONGEST 1600
#define RUNS 400000

static const size_t LENGTHS[] = {25, 100, 400, LONGEST};

static void repeat(size_t size, size_t length) {
    void *blocks[LONGEST];
    for (size_t count = 0; count < RUNS / length; count++) {
        for (size_t place = 0; place < length; place++)
            blocks[place] = block_of(size);
        for (size_t place = 0; place < length; place++)
            free(blocks[place]);
    }
}

uint64_t glibc_simple(unsigned threads) {
    (void)threads;
    uint64_t operations = 0;
    for (size_t size = 8; size <= 4096; size *= 2) {
        for (size_t at = 0; at < sizeof LENGTHS / sizeof LENGTHS[0]; at++) {
            repeat(size, LENGTHS[at]);
            operations += RUNS;
        }
    }
    return operations;
}

#define WORKING_SET 1024
#define REPLACED 6000000
#define SIZES 65536
#define LEAST 4
#define MOST 32768

struct mix {
    uint16_t sizes[SIZES];
};

// Draws sizes whose density falls with the square of the size.
static void draw(struct mix *mix) {
    struct random random = random_of(88);
    for (size_t place = 0; place < SIZES; place++) {
        double part = (double)below(&random, 1 << 30) / (1 << 30);
        double inverse = 1.0 / LEAST - part * (1.0 / LEAST - 1.0 / MOST);
        mix->sizes[place] = (uint16_t)(1.0 / inverse);
    }
}

static void replace(unsigned number, void *context) {
    const struct mix *mix = context;
    struct random random = random_of(number);
    void *live[WORKING_SET] = {NULL};
    for (size_t count = 0; count < REPLACED; count++) {
        size_t place = below(&random, WORKING_SET);
        free(live[place]);
        live[place] = block_of(mix->sizes[below(&random, SIZES)]);
    }
    for (size_t place = 0; place < WORKING_SET; place++)
        free(live[place]);
}

uint64_t glibc_thread(unsigned threads) {
    static struct mix mix;
    draw(&mix);
    on_threads(threads, replace, &mix);
    return (uint64_t)threads * REPLACED;
}
