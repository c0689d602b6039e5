/* Compares the figures of the library with what the threads of this program hold. */
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <obmalloc.h>

enum { COUNT = 1000, SIZE = 100, LARGE = 4 << 20 };

static void *blocks[COUNT], *large;
static pthread_barrier_t held, counted;

static void *hold(void *unused)
{
    for (int nth = 0; nth < COUNT; nth++)
        blocks[nth] = malloc(SIZE);
    large = malloc(LARGE);
    pthread_barrier_wait(&held);
    pthread_barrier_wait(&counted);
    return unused;
}

int main(void)
{
    pthread_t thread;
    pthread_barrier_init(&held, NULL, 2);
    pthread_barrier_init(&counted, NULL, 2);
    struct mallinfo2 before = mallinfo2();
    obmalloc_figures_t first = obmalloc_figures();
    if (pthread_create(&thread, NULL, hold, NULL))
        return 1;
    pthread_barrier_wait(&held);
    struct mallinfo2 after = mallinfo2();
    obmalloc_figures_t second = obmalloc_figures();
    /* Starting the thread may allocate a little memory, too. */
    size_t grown = after.uordblks - before.uordblks;
    if (grown < COUNT * 112 || grown > COUNT * 112 + 4096)
        return 2;
    if (after.uordblks + after.fordblks != after.arena || after.hblks != before.hblks + 1)
        return 3;
    if (after.hblkhd - before.hblkhd < LARGE || second.heaps != first.heaps + 1)
        return 4;
    if (second.in_use_bytes - first.in_use_bytes < grown + LARGE)
        return 5;
    pthread_barrier_wait(&counted);
    pthread_join(thread, NULL);
    for (int nth = 0; nth < COUNT; nth++)
        free(blocks[nth]);
    free(large);
    if (mallinfo2().hblks != before.hblks)
        return 6;

    /* A resize to 0 bytes frees the block. */
    before = mallinfo2();
    for (int nth = 0; nth < 10000; nth++)
        if (realloc(malloc(500), 0))
            return 7;
    if (mallinfo2().uordblks != before.uordblks)
        return 8;
    puts("done");
    return 0;
}
