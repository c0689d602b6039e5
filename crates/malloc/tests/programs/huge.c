/* Allocates many small blocks, and prints how many KiB of the process are in huge pages. Then the
   process forks, and the parent and the child write to all blocks. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define BLOCKS 600000

static char *blocks[BLOCKS];

static void fill(int byte)
{
    for (int nth = 0; nth < BLOCKS; nth++)
        memset(blocks[nth], byte, 100);
}

int main(void)
{
    char line[256];
    long huge = -1;
    for (int nth = 0; nth < BLOCKS; nth++)
        blocks[nth] = malloc(100);
    fill(1);
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    while (file && fgets(line, sizeof line, file))
        sscanf(line, "AnonHugePages: %ld", &huge);
    if (file)
        fclose(file);
    printf("%ld\n", huge);
    fflush(stdout);
    pid_t child = fork();
    fill(child == 0 ? 2 : 3);
    if (child == 0)
        _exit(blocks[7][99] == 2 ? 0 : 1);
    int status;
    waitpid(child, &status, 0);
    return status == 0 && blocks[7][99] == 3 ? 0 : 1;
}
