//! The output of a program, and the share of its requests that the heap serves.

use crate::support::{plain, preloaded, run, run_counted, supported};

const PROGRAM: &str = r#"
import collections, json, re
class Node:
    def __init__(self, value, children):
        self.value, self.children = value, children
def tree(depth):
    return Node(depth, [tree(depth - 1) for _ in range(3)] if depth else [])
def total(node):
    return node.value + sum(map(total, node.children))
print(total(tree(8)))
data = {str(i): [i, i / 7, "x" * (i % 700), None] for i in range(5000)}
text = json.dumps(data)
assert json.loads(text) == data
print(len(text), collections.Counter(re.findall(r"\d", text)).most_common(3))
rows = [bytearray(i % 1100) for i in range(20000)]
for row in rows[::3]:
    row.extend(b"y" * 300)
del rows[::2]
print(sum(map(len, rows)), sorted({hash((i, str(i))) % 97 for i in range(1000)}) == list(range(97)))
"#;

#[test]
fn a_program_prints_the_same_as_without_the_library() {
    // With random hashes, the last line of the program would differ in about one of 300 runs.
    let seed = ("PYTHONHASHSEED", "0");
    for python in supported() {
        let own = run(plain(python).args(["-c", PROGRAM]).env(seed.0, seed.1));
        let ours = run(preloaded(python).args(["-c", PROGRAM]).env(seed.0, seed.1));
        assert_eq!(own, *ours.is_clean(python));
    }
}

#[test]
fn at_least_95_of_100_small_requests_are_served_from_pools() {
    for python in supported() {
        let (run, stats) = run_counted(python, PROGRAM);
        run.is_clean(python);
        let share = stats["served"]["share"].as_f64().unwrap();
        assert!(share >= 0.95, "{python:?}: {share}");
        assert!(stats["served"]["requests"].as_u64().unwrap() > 100_000, "{stats}");
    }
}

#[test]
fn an_interpreter_is_served_from_its_first_allocation_on() {
    for python in supported() {
        let (_, stats) = run_counted(python, "pass");
        assert!(stats["domains"]["obj"]["small"]["requests"].as_u64().unwrap() > 5_000, "{stats}");
        assert!(stats["in_force"].as_bool().unwrap());
    }
}

/// Python code that receives small messages into buffers of 256 KiB, as `asyncio` does, and prints
/// the number of page faults.
///
/// Each buffer shrinks to the size of its message. The C library's `malloc` would give each buffer
/// its own mapping, so each message would cost at least one page fault.
const RECEIVER: &str = r#"
import resource, socket
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
a, b = socket.socketpair()
def receive(count):
    for _ in range(count):
        a.send(b"a message")
        assert b.recv(256 << 10) == b"a message"
receive(10)
before = faults()
receive(2000)
print(faults() - before)
"#;

#[test]
fn receive_buffers_cause_almost_no_page_faults() {
    for python in supported() {
        let run = run(preloaded(python).args(["-c", RECEIVER]));
        let faults: u32 = run.is_clean(python).stdout.trim().parse().expect("a number");
        assert!(faults < 200, "{python:?}: {faults}");
    }
}
