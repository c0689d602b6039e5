// Allocates many large blocks. Frees every other one, and then the rest. With an argument, frees the
// rest in reverse order. After each of these two steps, prints whether a thread can start, whether a
// larger block is available, and how many mappings the process has. In between, prints the largest
// number of mappings during the second step.

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define BLOCKS 66000
#define BYTES 500000

static char *blocks[BLOCKS];

static long mappings(void) {
    long lines = 0;
    int byte;
    FILE *maps = fopen("/proc/self/maps", "r");
    if (!maps) return -1;
    while ((byte = getc(maps)) != EOF) lines += byte == '\n';
    fclose(maps);
    return lines;
}

static void *nothing(void *argument) { return argument; }

static void report(void) {
    pthread_t thread;
    int has_thread = !pthread_create(&thread, NULL, nothing, NULL);
    if (has_thread) pthread_join(thread, NULL);
    void *large = malloc(100000000);
    printf("%d %d %ld\n", has_thread, large != NULL, mappings());
    free(large);
}

int main(int argc, char **argv) {
    int is_reversed = argc > 1;
    for (int nth = 0; nth < BLOCKS; nth++) {
        blocks[nth] = malloc(BYTES);
        if (!blocks[nth]) return 1;
        blocks[nth][0] = 1;
    }
    for (int nth = 1; nth < BLOCKS; nth += 2) free(blocks[nth]);
    report();
    long most = 0;
    for (int nth = 0; nth < BLOCKS; nth += 2) {
        free(blocks[is_reversed ? BLOCKS - 2 - nth : nth]);
        if (nth % 5000 == 0 && mappings() > most) most = mappings();
    }
    printf("%ld\n", most);
    report();
    return 0;
}
