//! The status page in processes that were forked without fork handlers.

use tempfile::TempDir;

use crate::support::{preloaded, run, supported};

/// A fork by the system call, which runs no fork handlers. The parent's page must remain that of the
/// parent.
///
/// Regression test: the child had no mapping of the page, so a signal killed it when it accessed
/// the page. If it exited soon, it removed its parent's page.
#[test]
fn a_child_that_was_forked_without_fork_handlers_leaves_its_parents_page_alone() {
    let code = r#"
import ctypes, os, signal, sys, time
libc = ctypes.PyDLL(None, use_errno=True)
def fork():
    pid = libc.syscall(57) if os.uname().machine == "x86_64" else libc.syscall(220, 17, 0, 0, 0, 0)
    assert pid >= 0, os.strerror(ctypes.get_errno())
    return pid
def page(pid):
    return os.path.join(os.environ["XDG_RUNTIME_DIR"], "obmalloc", f"{pid}.status")
def work(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        bytes(1000)
        bytearray(200_000)
def contents():
    with open(page(parent), "rb") as file:
        return file.read()
def check(pid, name):
    status = os.waitpid(pid, 0)[1]
    assert status == 0, (name, status)
    # The parent may have renewed its figures, but only the parent.
    assert f'"pid":{parent}'.encode() in contents(), name
    assert header() == header_before, name
def header():
    found = contents()
    # The id of the process, whether it has ended, and its last answer, without the command.
    return found[:32] + found[40:56]
parent = os.getpid()
work(0.1)
header_before = header()
assert f'"pid":{parent}'.encode() in contents(), contents()
before = contents()
pid = fork()
if pid == 0:
    sys.exit()
check(pid, "a child that exits at once")
pid = fork()
if pid == 0:
    # A client's command to the parent makes a refresh due at once.
    with open(page(parent), "r+b") as file:
        file.seek(32)
        file.write(b"\x01")
    work(0.1)
    with open(page(parent), "r+b") as file:
        file.seek(32)
        file.write(b"\x00")
    os._exit(0)
check(pid, "a child that sees a command to its parent")
pid = fork()
if pid == 0:
    deadline = time.monotonic() + 60
    while not os.path.exists(page(os.getpid())):
        assert time.monotonic() < deadline
        work(0.1)
    sys.exit()
check(pid, "a child that gets a page of its own")
work(1.2)
assert contents() != before
print("done")
"#;
    for python in supported() {
        let runtime = TempDir::new().unwrap();
        let mut command = preloaded(python);
        command.env("OBMALLOC_STATUS", "on").env("XDG_RUNTIME_DIR", runtime.path());
        let run = run(command.args(["-c", code]));
        assert_eq!(run.is_clean(python).stdout, "done\n");
    }
}
