//! Forks, and the parts of Python that use them.

use std::fs;

use tempfile::TempDir;

use crate::support::{compile, plain, preloaded, run, supported, with_many_gils};

#[test]
fn a_child_can_allocate_and_free_its_parents_blocks() {
    let code = r#"
import os, sys
def size(n):
    # One in 997 blocks is a span.
    return n % 600 if n % 997 else 200_000 + n
live = [bytes(size(n)) for n in range(20000)]
for child in range(10):
    pid = os.fork()
    if pid == 0:
        more = [bytes(size(n)) for n in range(20000)]
        same = more == live
        del live[::2], more
        sys.exit(0 if same else 1)
    assert os.waitpid(pid, 0)[1] == 0
print(sum(map(len, live)))
"#;
    for python in supported() {
        let own = run(plain(python).args(["-c", code]));
        assert_eq!(own, *run(preloaded(python).args(["-c", code])).is_clean(python));
    }
}

#[test]
fn the_child_of_a_process_with_busy_threads_can_allocate_at_once() {
    let code = r#"
import os, threading, warnings
warnings.simplefilter("ignore")
busy = True
def work():
    while busy:
        [bytes(n) for n in range(500)]
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
for child in range(50):
    pid = os.fork()
    if pid == 0:
        os._exit(len([bytes(n) for n in range(500)]) != 500)
    assert os.waitpid(pid, 0)[1] == 0
busy = False
print("done")
"#;
    for python in supported() {
        let run = run(preloaded(python).args(["-c", code]));
        assert_eq!(run.is_clean(python).stdout, "done\n");
    }
}

/// Regression test: at its exit, the child asked the loader which library a function belongs to.
/// This takes a lock that stays locked forever if another thread held it during the fork.
#[test]
fn the_child_of_a_process_with_a_thread_in_dlopen_can_write_its_report() {
    let code = r#"
import ctypes, os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore")
c = ctypes.CDLL(None)
c.dlopen.restype = ctypes.c_void_p
c.dlclose.argtypes = [ctypes.c_void_p]
def load():
    while True:
        c.dlclose(c.dlopen(sys.argv[1].encode(), 2))
threading.Thread(target=load, daemon=True).start()
end = time.monotonic() + 2
while time.monotonic() < end:
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        os._exit(0)
    if os.waitpid(pid, 0)[1]:
        print("a child hangs", flush=True)
        break
os._exit(0)
"#;
    let folder = TempDir::new().unwrap();
    let library = compile(folder.path(), "empty.so", "", &["-shared"]);
    let python = supported().last().expect("a supported Python");
    let mut command = preloaded(python);
    command.env("OBMALLOC_STATS", folder.path().join("report.json"));
    let run = run(command.args(["-c", code]).arg(library));
    assert_eq!(run.is_clean(python).stdout, "");
}

/// Calls C's `fork`, because Python's `os.fork` ends the other interpreters in the child.
#[test]
fn a_child_can_allocate_at_once_although_another_interpreter_was_inside_a_heap() {
    let code = r#"
import ctypes, os, signal, tempfile, threading, time
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
fork = ctypes.PyDLL(None).fork
reader, writer = os.pipe()
running = tempfile.NamedTemporaryFile()
work = f"""
import os
os.write({writer}, b"1")
while os.path.exists({running.name!r}):
    [bytes(470) for n in range(20000)]
"""
threads, created = [], []
for _ in range(2):
    interpreter = interpreters.create()
    created.append(interpreter)
    threads.append(threading.Thread(target=interpreters.run_string, args=(interpreter, work)))
    threads[-1].start()
    assert os.read(reader, 1) == b"1"
def ends(pid):
    for wait in range(5000):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status == 0
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
for child in range(400):
    pid = fork()
    if pid == 0:
        os._exit(len([bytes(n) for n in range(500)]) - 500)
    if not ends(pid):
        print("a child hangs")
        break
running.close()
for thread in threads:
    thread.join()
for interpreter in created:
    interpreters.destroy(interpreter)
"#;
    for python in with_many_gils() {
        let run = run(preloaded(python).args(["-c", code]));
        assert_eq!(run.is_clean(python).stdout, "");
    }
}

#[test]
fn python_can_start_other_programs() {
    let code = r#"
import os, subprocess, sys
print(subprocess.run(["sh", "-c", "echo from a shell"], capture_output=True, text=True))
child = subprocess.run([sys.executable, "-c", "print('from a child')"], capture_output=True)
print(child.stdout, child.stderr, child.returncode)
sys.stdout.flush()
os.execv(sys.executable, [sys.executable, "-c", "print('from its successor')"])
"#;
    for python in supported() {
        let own = run(plain(python).args(["-c", code]));
        assert_eq!(own, *run(preloaded(python).args(["-c", code])).is_clean(python));
    }
}

#[test]
fn multiprocessing_works_with_its_three_start_methods() {
    let code = r#"
import multiprocessing, sys, warnings
warnings.simplefilter("ignore")
def total(numbers):
    return sum(len(bytes(number % 600)) for number in numbers)
if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        with context.Pool(2) as pool:
            print(method, pool.map(total, [range(start, 5000) for start in range(20)])[-1])
        queue = context.Queue()
        process = context.Process(target=queue.put, args=(list(range(1000)),))
        process.start()
        print(sum(queue.get()))
        process.join()
"#;
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("ways.py");
    fs::write(&file, code).unwrap();
    for python in supported() {
        let own = run(plain(python).arg(&file));
        assert_eq!(own, *run(preloaded(python).arg(&file)).is_clean(python));
    }
}
