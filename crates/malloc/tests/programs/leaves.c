/* A parent and a child. Both of them end by calling the function that the argument names. */
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void leave(const char *by, int status)
{
    if (strcmp(by, "_Exit") == 0)
        _Exit(status);
    if (strcmp(by, "quick_exit") == 0)
        quick_exit(status);
    _exit(status);
}

int main(int argc, char **argv)
{
    const char *by = argc > 1 ? argv[1] : "_exit";
    void *volatile block = malloc(1000);
    pid_t child = fork();
    if (child == 0)
        leave(by, 3);
    int status;
    waitpid(child, &status, 0);
    leave(by, WEXITSTATUS(status) == 3 && block ? 0 : 1);
}
