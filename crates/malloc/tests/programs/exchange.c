// Threads exchange blocks through shared slots, resize each other's blocks, and free them.

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS 4
#define SLOTS 512
#define ROUNDS 30000

// The first word of a block is its size. The second word is the value of all other bytes.
static _Atomic(uint32_t *) slots[SLOTS];

static void check(uint32_t *block) {
    unsigned char *bytes = (unsigned char *)block;
    for (uint32_t at = 8; at < block[0]; at += 61)
        if (bytes[at] != (unsigned char)block[1]) {
            fprintf(stderr, "a block of %u bytes has changed at %u\n", block[0], at);
            exit(1);
        }
}

static uint32_t *fill(void *memory, uint32_t size, uint32_t value) {
    uint32_t *block = memory;
    if (block == NULL) exit(2);
    memset(block, (unsigned char)value, size);
    block[0] = size;
    block[1] = value;
    return block;
}

static void *run(void *number) {
    uint32_t state = 12345u * ((uint32_t)(uintptr_t)number + 1);
    for (int round = 0; round < ROUNDS; round++) {
        state = state * 1664525u + 1013904223u;
        uint32_t slot = (state >> 8) % SLOTS, pick = state >> 24;
        uint32_t size = 8 + (pick < 200 ? pick * 3 : pick < 250 ? pick * 40 : pick * 2000);
        uint32_t *mine = NULL, *old;
        if (pick % 3 == 0) mine = fill(malloc(size), size, state);
        if (pick % 3 == 1) mine = fill(calloc(1, size), size, state);
        if (pick % 3 == 2) mine = fill(aligned_alloc(128, size), size, state);
        old = atomic_exchange(&slots[slot], mine);
        if (old == NULL) continue;
        check(old);
        if (pick % 5 == 0) {
            uint32_t kept = old[0] < size ? old[0] : size, value = old[1];
            old = realloc(old, size);
            if (old == NULL) exit(2);
            old[0] = kept;
            if (old[1] != value) exit(3);
            check(old);
        }
        free(old);
    }
    return NULL;
}

int main(void) {
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, run, (void *)i);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < SLOTS; i++) free(slots[i]);
    puts("done");
    return 0;
}
