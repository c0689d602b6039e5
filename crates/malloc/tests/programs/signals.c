/* Sets handlers by `signal`, in the way that the argument names. Compiled once as ISO C. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void stop(int number)
{
    signal(number, SIG_DFL);
    raise(number);
}

int main(int argc, char **argv)
{
    const char *way = argc > 1 ? argv[1] : "";
    if (strcmp(way, "default") == 0) {
        signal(SIGTERM, SIG_IGN);
        if (signal(SIGTERM, SIG_DFL) != SIG_IGN)
            return 2;
    } else if (strcmp(way, "handler") == 0) {
        if (signal(SIGTERM, stop) != SIG_DFL)
            return 3;
    } else {
        if (signal(SIGUSR2, SIG_IGN) != SIG_DFL || signal(SIGUSR2, SIG_DFL) != SIG_IGN)
            return 4;
        if (signal(12345, SIG_DFL) != SIG_ERR)
            return 5;
        raise(SIGUSR2);
        return 0;
    }
    raise(SIGTERM);
    return 1;
}
