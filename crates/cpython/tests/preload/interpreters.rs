//! Interpreters with a GIL each, from 3.12 on: several threads are in the domains mem and obj at
//! once.

use crate::support::{preloaded, run, with_many_gils};

#[test]
fn interpreters_with_their_own_gil_allocate_and_end_at_once() {
    let code = r#"
import threading
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
work = """
import json
class Node:
    def __init__(self, value): self.value, self.next = value, [value] * (value % 70)
for round in range(8):
    nodes = {n: Node(n) for n in range(3000)}
    text = json.dumps([node.next for node in nodes.values()])
    assert json.loads(text) == [node.next for node in nodes.values()]
    del nodes
"""
failures = []
def live():
    for _ in range(3):
        interpreter = interpreters.create()
        try:
            failure = interpreters.run_string(interpreter, work)
        except Exception as error:
            failure = error
        if failure is not None:
            failures.append(failure)
        interpreters.destroy(interpreter)
threads = [threading.Thread(target=live) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(failures)
"#;
    for python in with_many_gils() {
        let run = run(preloaded(python).args(["-c", code]));
        assert_eq!(run.is_clean(python).stdout, "[]\n");
    }
}
