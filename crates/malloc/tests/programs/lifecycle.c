// Allocates at every moment of a process: in constructors, in threads and their destructors, in a
// signal handler, in children of a threaded process, and at exit.

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const size_t SIZES[] = {0, 1, 16, 17, 500, 512, 513, 1000, 8192, 40000, 131072, 600000};
#define COUNT (sizeof SIZES / sizeof *SIZES)

static void fail(const char *what) {
    fprintf(stderr, "FAILED: %s\n", what);
    _exit(1);
}

// Allocates, fills, resizes and frees a block of every size.
static void use(const char *when) {
    char *blocks[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        blocks[i] = malloc(SIZES[i]);
        if (blocks[i] == NULL || ((size_t)blocks[i] & 15) != 0) fail(when);
        memset(blocks[i], (int)i + 1, SIZES[i]);
    }
    for (size_t i = 0; i < COUNT; i++) {
        blocks[i] = realloc(blocks[i], 2 * SIZES[i] + 1);
        if (blocks[i] == NULL) fail(when);
        for (size_t at = 0; at < SIZES[i]; at++)
            if (blocks[i][at] != (char)(i + 1)) fail(when);
    }
    for (size_t i = 0; i < COUNT; i++) free(blocks[i]);
    char *zeroed = calloc(300, 3);
    for (int at = 0; at < 900; at++)
        if (zeroed[at] != 0) fail(when);
    memset(zeroed, 1, 900);
    free(zeroed);
}

static pthread_key_t keys[3];

// Sets its key again, so that the C library calls it in every round of destructors.
static void in_destructor(void *key) {
    use("in a destructor of a thread");
    pthread_setspecific(*(pthread_key_t *)key, key);
}

static void *use_late(void *unused) {
    (void)unused;
    // This thread allocates for the first time in a destructor.
    for (int i = 0; i < 3; i++) pthread_setspecific(keys[i], &keys[i]);
    return NULL;
}

static void *use_and_end(void *unused) {
    use("in a thread");
    return use_late(unused);
}

static atomic_int stopped;

static void *use_until_stopped(void *unused) {
    (void)unused;
    while (!stopped) use("in a thread beside a fork");
    return NULL;
}

static void in_child(void) {
    use("in a child");
    pthread_t thread;
    if (pthread_create(&thread, NULL, use_and_end, NULL) != 0) fail("a thread of a child");
    pthread_join(thread, NULL);
    use("in a child after a thread");
}

static void fork_beside_threads(void) {
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, use_until_stopped, NULL);
    for (int i = 0; i < 30; i++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(60);
            in_child();
            exit(0);
        }
        int status;
        if (waitpid(child, &status, 0) != child || status != 0) fail("a child");
        use("beside children");
    }
    stopped = 1;
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
}

static void in_handler(int signal) {
    (void)signal;
    use("in a signal handler");
}

__attribute__((constructor(101))) static void first(void) { use("in a constructor"); }

__attribute__((destructor(101))) static void last(void) { use("in a destructor"); }

static void at_exit(void) { use("in a function of atexit"); }

int main(void) {
    atexit(at_exit);
    use("in main");
    struct sigaction action = {.sa_handler = in_handler};
    sigaction(SIGUSR1, &action, NULL);
    for (int i = 0; i < 20; i++) raise(SIGUSR1);
    for (int i = 0; i < 3; i++) pthread_key_create(&keys[i], in_destructor);
    for (int i = 0; i < 100; i++) {
        pthread_t threads[2];
        pthread_create(&threads[0], NULL, use_and_end, NULL);
        pthread_create(&threads[1], NULL, use_late, NULL);
        for (int each = 0; each < 2; each++) pthread_join(threads[each], NULL);
    }
    if (dlopen("libm.so.6", RTLD_NOW) == NULL) fail("dlopen");
    if (dlopen("no such library", RTLD_NOW) != NULL || dlerror() == NULL) fail("dlerror");
    fork_beside_threads();
    puts("done");
    return 0;
}
