// Producers and consumers: every block is freed by a thread that did not allocate it.
//
// Described by C. Lever and D. Boreham, "malloc() Performance in a Multithreaded Linux Environment",
// USENIX 2000. Half of the threads allocate batches of blocks, and the other half free them. A queue
// between them holds a limited number of batches.

#include "support.h"

#define BATCH 4096
#define BATCHES 1500
#define WAITING 100
#define SIZE 64

struct batch {
    struct batch *next;
    void *blocks[BATCH];
};

struct queue {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct batch *first;
    unsigned length;
};

static void push(struct queue *queue, struct batch *batch) {
    pthread_mutex_lock(&queue->mutex);
    while (queue->length == WAITING)
        pthread_cond_wait(&queue->changed, &queue->mutex);
    batch->next = queue->first;
    queue->first = batch;
    queue->length++;
    pthread_cond_broadcast(&queue->changed);
    pthread_mutex_unlock(&queue->mutex);
}

static struct batch *pop(struct queue *queue) {
    pthread_mutex_lock(&queue->mutex);
    while (queue->length == 0)
        pthread_cond_wait(&queue->changed, &queue->mutex);
    struct batch *batch = queue->first;
    queue->first = batch->next;
    queue->length--;
    pthread_cond_broadcast(&queue->changed);
    pthread_mutex_unlock(&queue->mutex);
    return batch;
}

static void produce(struct queue *queue, unsigned number) {
    struct random random = random_of(number);
    for (unsigned count = 0; count < BATCHES; count++) {
        struct batch *batch = block_of(sizeof *batch);
        for (size_t place = 0; place < BATCH; place++) {
            unsigned char *block = block_of(between(&random, 1, SIZE));
            *block = (unsigned char)place;
            batch->blocks[place] = block;
        }
        push(queue, batch);
    }
}

static void consume(struct queue *queue) {
    for (unsigned count = 0; count < BATCHES; count++) {
        struct batch *batch = pop(queue);
        for (size_t place = 0; place < BATCH; place++)
            free(batch->blocks[place]);
        free(batch);
    }
}

static void work(unsigned number, void *queue) {
    if (number % 2 == 0)
        produce(queue, number);
    else
        consume(queue);
}

uint64_t xmalloc(unsigned threads) {
    struct queue queue = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, NULL, 0};
    unsigned pairs = threads < 2 ? 1 : threads / 2;
    on_threads(2 * pairs, work, &queue);
    return (uint64_t)pairs * BATCHES * BATCH;
}
