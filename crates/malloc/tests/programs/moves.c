// Changes its current directory, clears its environment, and forks.

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
    char *volatile kept = malloc(100);
    if (kept == NULL || chdir("/") != 0 || clearenv() != 0) return 1;
    if (fork() == 0) return 0;
    wait(NULL);
    return 0;
}
