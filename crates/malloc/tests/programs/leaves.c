/* A parent and a child. Both of them end by calling _exit. */
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
    void *volatile block = malloc(1000);
    pid_t child = fork();
    if (child == 0)
        _exit(3);
    int status;
    waitpid(child, &status, 0);
    _exit(WEXITSTATUS(status) == 3 && block ? 0 : 1);
}
