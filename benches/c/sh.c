// Batches of similar sizes that are freed in several orders.
//
// Described with MicroQuill's benchmarks sh6bench and sh8bench. A thread allocates blocks of many
// sizes, up to 1,000 bytes and most of them small, into a table. It frees a part of them in the order
// of allocation, a part in reverse, and leaves a part for later. In sh8bench, the blocks that were
// left are freed by another thread.

#include "support.h"

#include <stdatomic.h>
#include <string.h>

#define ROUNDS 400
#define BLOCKS 12000
#define KEPT (BLOCKS / 5)
#define MOST_THREADS 64

// The largest sizes of a part of the blocks, and the share of this part in percent.
static const struct {
    unsigned size, share;
} MIX[] = {{32, 40}, {64, 25}, {128, 15}, {256, 10}, {512, 6}, {1000, 4}};

struct kept {
    size_t count;
    void *blocks[KEPT];
};

static _Atomic(struct kept *) passed[MOST_THREADS];

static size_t size_of(struct random *random) {
    size_t drawn = below(random, 100), part = 0, least = 1;
    while (drawn >= MIX[part].share) {
        drawn -= MIX[part].share;
        least = MIX[part].size;
        part++;
    }
    return between(random, least, MIX[part].size);
}

static void drop(struct kept *kept) {
    if (kept == NULL)
        return;
    for (size_t place = 0; place < kept->count; place++)
        free(kept->blocks[place]);
    free(kept);
}

// Allocates a table of blocks, frees four fifths of them in three orders, and returns the rest.
static struct kept *round_of(void **blocks, struct random *random) {
    for (size_t place = 0; place < BLOCKS; place++) {
        size_t size = size_of(random);
        blocks[place] = block_of(size);
        memset(blocks[place], 1, size < 16 ? size : 16);
    }
    struct kept *kept = block_of(sizeof *kept);
    kept->count = 0;
    for (size_t place = 0; place < BLOCKS; place += 5)
        kept->blocks[kept->count++] = blocks[place];
    for (size_t place = 1; place < BLOCKS; place += 5)
        free(blocks[place]);
    for (size_t place = BLOCKS; place-- > 0;)
        if (place % 5 == 2 || place % 5 == 3)
            free(blocks[place]);
    // Seven has no factor in common with the number of blocks, so each is freed once.
    for (size_t count = 0; count < BLOCKS / 5; count++)
        free(blocks[count * 7 % (BLOCKS / 5) * 5 + 4]);
    return kept;
}

static void work(unsigned number, unsigned receiver) {
    struct random random = random_of(number + 5);
    void **blocks = block_of(BLOCKS * sizeof *blocks);
    for (unsigned round = 0; round < ROUNDS; round++)
        drop(atomic_exchange(&passed[receiver], round_of(blocks, &random)));
    free(blocks);
}

static void keep(unsigned number, void *context) {
    (void)context;
    work(number, number);
}

static void pass_on(unsigned number, void *context) {
    work(number, (number + 1) % *(unsigned *)context);
    // The previous thread may have left blocks in the meantime.
    drop(atomic_exchange(&passed[number], NULL));
}

static uint64_t run(unsigned threads, void (*work)(unsigned, void *)) {
    on_threads(threads, work, &threads);
    for (unsigned number = 0; number < threads; number++)
        drop(atomic_exchange(&passed[number], NULL));
    return (uint64_t)threads * ROUNDS * BLOCKS;
}

uint64_t sh6bench(unsigned threads) { return run(threads, keep); }

uint64_t sh8bench(unsigned threads) { return run(threads, pass_on); }
