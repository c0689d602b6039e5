// A server: threads replace random blocks of their slots, and then leave the slots to new threads.
//
// Described by P. Larson and M. Krishnan, "Memory Allocation for Long-Running Server Applications",
// ISMM 1998. Each thread owns 5,000 slots with blocks of 8 to 1,000 bytes, and lives for 100
// replacements of each slot on average.

#include "support.h"

#define SLOTS 5000
#define LIFE (SLOTS * 100)
#define GENERATIONS 12

struct line {
    struct random random;
    void *slots[SLOTS];
};

static void *request(struct random *random) {
    size_t size = between(random, 8, 1000);
    unsigned char *block = block_of(size);
    block[0] = (unsigned char)size;
    block[size - 1] = 1;
    return block;
}

static void *live(void *argument) {
    struct line *line = argument;
    for (size_t count = 0; count < LIFE; count++) {
        size_t place = below(&line->random, SLOTS);
        free(line->slots[place]);
        line->slots[place] = request(&line->random);
    }
    return NULL;
}

// Runs one thread after the other on the same slots.
static void serve(unsigned number, void *context) {
    (void)context;
    struct line *line = block_of(sizeof *line);
    line->random = random_of(4141 + number);
    for (size_t place = 0; place < SLOTS; place++)
        line->slots[place] = request(&line->random);
    for (unsigned generation = 0; generation < GENERATIONS; generation++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, live, line) != 0)
            fail("pthread_create");
        pthread_join(thread, NULL);
    }
    for (size_t place = 0; place < SLOTS; place++)
        free(line->slots[place]);
    free(line);
}

uint64_t larson(unsigned threads) {
    on_threads(threads, serve, NULL);
    return (uint64_t)threads * GENERATIONS * LIFE;
}
