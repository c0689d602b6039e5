// Forks while a library has registered handlers that allocate memory.

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

extern int times_prepared(void);

int main(void) {
    alarm(60);
    for (int nth = 1; nth <= 3; nth++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(60);
            free(malloc(4 << 20));
            _exit(times_prepared());
        }
        int status;
        if (waitpid(child, &status, 0) != child) return 1;
        if (!WIFEXITED(status) || WEXITSTATUS(status) != nth) return 2;
    }
    puts("done");
    return 0;
}
