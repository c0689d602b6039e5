//! Interpreters with their own GIL, from 3.12 on.
//!
//! `OBMALLOC_INTERPRETERS_SECONDS` is the duration for each Python, by default 5.

use std::env;

use crate::support::{plain, preloaded, run, with_many_gils};

/// No interpreters are created during the forks, because CPython's own fork does not survive that.
const CODE: &str = r#"
import multiprocessing, os, queue, threading, time, warnings
warnings.simplefilter("ignore")
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
work = """
import json
class Node:
    def __init__(self, value): self.value, self.next = value, [value] * (value % 70)
for round in range(4):
    nodes = {n: Node(n) for n in range(3000)}
    text = json.dumps([node.next for node in nodes.values()])
    assert json.loads(text) == [node.next for node in nodes.values()]
    del nodes
"""
end = time.monotonic() + float(os.environ["SECONDS"])
failures = []
def size(n):
    # One in 211 blocks is a span.
    return n % 600 if n % 211 else 200_000 + n
def live():
    while time.monotonic() < end:
        interpreter = interpreters.create()
        try:
            failure = interpreters.run_string(interpreter, work)
        except Exception as error:
            failure = error
        if failure is not None:
            failures.append(failure)
        interpreters.destroy(interpreter)
def pass_on(taken, given):
    while time.monotonic() < end:
        given.put([bytes(size(n)) for n in range(1000)])
        if sum(map(len, taken.get())) != sum(map(size, range(1000))):
            failures.append("a block was overwritten")
    given.put([bytes(size(n)) for n in range(1000)])
def fork():
    context = multiprocessing.get_context("fork")
    for _ in range(10):
        child = context.Process(target=lambda: [bytes(size(n)) for n in range(10000)])
        child.start()
        child.join(60)
        if child.exitcode != 0:
            failures.append(child.exitcode)
def together(*works):
    threads = [threading.Thread(target=work, args=args) for work, *args in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
one, other = queue.Queue(), queue.Queue()
neighbours = (pass_on, one, other), (pass_on, other, one)
together((live,), (live,), (live,), (live,), *neighbours)
together((fork,))
end = time.monotonic() + 1
together((fork,), *neighbours)
print(failures)
"#;

#[test]
fn interpreters_with_their_own_gil_can_allocate_beside_threads_and_forks() {
    let seconds = env::var("OBMALLOC_INTERPRETERS_SECONDS").unwrap_or_else(|_| "5".to_owned());
    for python in with_many_gils() {
        let own = run(plain(python).args(["-c", CODE]).env("SECONDS", "0"));
        let ours = run(preloaded(python).args(["-c", CODE]).env("SECONDS", &seconds));
        assert_eq!(own, *ours.is_clean(python));
        assert_eq!(own.stdout, "[]\n");
    }
}
