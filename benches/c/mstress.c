// Structures with random lifetimes, which threads exchange, in rounds of new threads.
//
// Described by D. Leijen and others, "Mimalloc: Free List Sharding in Action", 2019. A thread keeps
// some blocks for its whole life, drops others early, and exchanges some with other threads. At the
// end of a round all threads end, while the exchanged blocks stay. Most blocks are arrays of a few
// words, and some are a hundred or a thousand times larger.

#include "support.h"

#include <stdatomic.h>

#define ROUNDS 30
#define PLACES 1000
#define LIVES 60000
#define COOKIE ((uintptr_t)0xbf58476d1ce4e5b9)

static _Atomic(uintptr_t *) exchange[PLACES];

// Returns an array whose first word is its length and whose other words can be checked.
static uintptr_t *items_of(struct random *random, size_t items) {
    if (below(random, 100) == 0)
        items *= below(random, 100) == 0 ? 1000 : 100;
    size_t words = items + 1;
    uintptr_t *block = calloc(words, sizeof *block);
    if (block == NULL)
        fail("calloc");
    block[0] = words;
    for (size_t place = 1; place < words; place++)
        block[place] = (words - place) ^ COOKIE;
    return block;
}

static void drop(uintptr_t *block) {
    if (block == NULL)
        return;
    size_t words = block[0];
    for (size_t place = 1; place < words; place++)
        if (block[place] != ((words - place) ^ COOKIE))
            fail("keeping the contents of a block");
    free(block);
}

static void live(unsigned number, void *context) {
    struct random random = random_of(*(unsigned *)context * 64 + number + 1);
    size_t kept = 0;
    uintptr_t **retained = block_of(LIVES * sizeof *retained);
    uintptr_t **passing = calloc(LIVES, sizeof *passing);
    if (passing == NULL)
        fail("calloc");
    for (size_t count = 0; count < LIVES; count++) {
        passing[count] = items_of(&random, between(&random, 1, 8));
        if (below(&random, 4) == 0)
            retained[kept++] = items_of(&random, between(&random, 1, 16));
        if (below(&random, 2) == 0) {
            size_t place = below(&random, count + 1);
            drop(passing[place]);
            passing[place] = NULL;
        }
        if (below(&random, 4) == 0) {
            size_t place = below(&random, count + 1);
            passing[place] = atomic_exchange(&exchange[below(&random, PLACES)], passing[place]);
        }
    }
    for (size_t place = 0; place < kept; place++)
        drop(retained[place]);
    for (size_t place = 0; place < LIVES; place++)
        drop(passing[place]);
    free(retained);
    free(passing);
}

uint64_t mstress(unsigned threads) {
    for (unsigned round = 0; round < ROUNDS; round++) {
        on_threads(threads, live, &round);
        // Half of what was exchanged outlives the threads that allocated it.
        for (size_t place = 0; place < PLACES; place += 1 + round % 2)
            drop(atomic_exchange(&exchange[place], NULL));
    }
    for (size_t place = 0; place < PLACES; place++)
        drop(atomic_exchange(&exchange[place], NULL));
    return (uint64_t)threads * ROUNDS * LIVES;
}
