// Random slots that are filled if they are empty, and emptied if they are full.
//
// Described by the authors of "Testing Memory Allocators" (ithare.com, 2018). Slots are chosen by a
// Pareto distribution, so a few are used often and most are used rarely. Each power of two up to 1,024
// bytes is equally likely. A block is written when it is allocated and read when it is freed.

#include "support.h"

#include <math.h>
#include <string.h>

#define SLOTS (1 << 19)
#define OPERATIONS 12000000
#define LARGEST_POWER 10

struct slot {
    unsigned char *block;
    uint32_t size;
};

struct work {
    size_t operations;
    uint32_t *places;
};

#define DRAWN (1 << 18)

// Draws places of which four fifths belong to one fifth of the slots.
static uint32_t *places_of(struct random *random) {
    const double alpha = log(5.0) / log(4.0);
    uint32_t *places = block_of(DRAWN * sizeof *places);
    for (size_t drawn = 0; drawn < DRAWN; drawn++) {
        double part = ((double)below(random, 1 << 30) + 1) / ((1 << 30) + 1.0);
        double place = pow(part, -1.0 / alpha) - 1.0;
        places[drawn] = (uint32_t)(place * (SLOTS / 64.0)) % SLOTS;
    }
    return places;
}

static unsigned sum_of(const struct slot *slot) {
    unsigned sum = 0;
    for (size_t place = 0; place < slot->size; place += 64)
        sum += slot->block[place];
    return sum;
}

static void work(unsigned number, void *context) {
    size_t operations = *(size_t *)context;
    struct random random = random_of(number + 3);
    uint32_t *places = places_of(&random);
    struct slot *slots = calloc(SLOTS, sizeof *slots);
    if (slots == NULL)
        fail("calloc");
    unsigned sum = 0;
    for (size_t count = 0; count < operations; count++) {
        struct slot *slot = &slots[(places[count % DRAWN] + count / DRAWN) % SLOTS];
        if (slot->block != NULL) {
            sum += sum_of(slot);
            free(slot->block);
            slot->block = NULL;
        } else {
            size_t least = (size_t)1 << below(&random, LARGEST_POWER);
            slot->size = (uint32_t)(least + below(&random, least));
            slot->block = block_of(slot->size);
            memset(slot->block, (int)count, slot->size);
        }
    }
    for (size_t place = 0; place < SLOTS; place++) {
        if (slots[place].block != NULL)
            sum += sum_of(&slots[place]);
        free(slots[place].block);
    }
    free(slots);
    free(places);
    if (sum == 1)
        fail("reading what was written");
}

uint64_t alloc_test(unsigned threads) {
    size_t operations = OPERATIONS / threads;
    on_threads(threads, work, &operations);
    return (uint64_t)operations * threads;
}
