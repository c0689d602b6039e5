//! Calls by a thread that holds the GIL while another thread holds the dynamic loader's lock.

use tempfile::TempDir;
use testkit::pythons::Python;

use crate::support::{Run, compile, preloaded, run, supported};

/// The source of a library whose constructor waits for the GIL.
///
/// The environment variables `ENTERED` and `ASK` contain the numbers of two file descriptors. The
/// constructor writes a byte to the first one, so that the test knows that it runs. It then waits
/// until it can read a byte from the second one, and asks for the GIL.
const WAITING: &str = r#"
    #include <stdlib.h>
    #include <unistd.h>
    extern int PyGILState_Ensure(void);
    extern void PyGILState_Release(int);
    __attribute__((constructor)) static void wait(void) {
        char byte = 1;
        if (write(atoi(getenv("ENTERED")), &byte, 1) != 1) abort();
        if (read(atoi(getenv("ASK")), &byte, 1) != 1) abort();
        PyGILState_Release(PyGILState_Ensure());
    }
"#;

/// Loads the library [`WAITING`] in another thread, and then runs `$ACTION`, which must not release
/// the GIL. SIGALRM ends a process that hangs.
const SCRIPT: &str = r#"
import ctypes, os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore")
signal.alarm(20)
sys.setswitchinterval(1000)
c, python = ctypes.CDLL(None), ctypes.PyDLL(None)
# ctypes itself looks these functions up, so that must happen before the other thread has the lock.
dlopen, write, ignore = c.dlopen, python.write, python.signal
stats = python.obmalloc_stats_json
entered, enters = os.pipe()
asks, ask = os.pipe()
os.environ.update(ENTERED=str(enters), ASK=str(asks))
def refresh():
    # `alarm` ends after this time, and the interpreter never gives up the GIL for it.
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        bytes(1000)
def fork():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
def load():
    assert dlopen(sys.argv[1].encode(), 2) is not None
thread = threading.Thread(target=load)
thread.start()
assert os.read(entered, 1) == b"\x01"
assert write(ask, b"1", 1) == 1
$ACTION
thread.join()
print("done")
"#;

fn run_beside_dlopen(python: &Python, variables: &[(&str, &str)], action: &str) -> Run {
    let folder = TempDir::new().unwrap();
    let library = compile(folder.path(), "waiting.so", WAITING, &["-shared"]);
    let mut command = preloaded(python);
    command.envs(variables.iter().copied()).env("XDG_RUNTIME_DIR", folder.path());
    command.env("OBMALLOC_STATS", folder.path().join("%p.json"));
    run(command.args(["-c", &SCRIPT.replace("$ACTION", action)]).arg(library))
}

/// Regression test: our library looked up symbols and addresses, for which it waited for the
/// loader's lock. The thread that held this lock waited for the GIL.
#[test]
fn nothing_waits_for_the_loader_while_it_holds_the_gil() {
    for python in supported() {
        for action in [
            "fork()",
            "ignore(signal.SIGUSR1, 1)",
            "stats(None, 0)",
            "refresh()",
            "signal.signal(signal.SIGUSR2, signal.SIG_IGN)",
        ] {
            let run = run_beside_dlopen(python, &[("OBMALLOC_STATUS", "on")], action);
            assert_eq!(run.is_clean((python, action)).stdout, "done\n");
        }
        let run = run_beside_dlopen(python, &[], "os._exit(0)");
        run.is_clean((python, "_exit"));
    }
}
