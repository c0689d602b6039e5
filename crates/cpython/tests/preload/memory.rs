//! A process that runs out of memory.

use testkit::pythons::Python;

use crate::support::{Run, command, library, run, supported};

fn limited(python: &Python, mebibytes: u32, code: &str) -> Run {
    let script = format!("ulimit -v {}; exec \"$@\"", mebibytes * 1024);
    let mut command = command("sh");
    command
        .args(["-c", &script, "sh"])
        .arg("env")
        .arg(format!("LD_PRELOAD={}", library().display()));
    run(command.arg(&python.executable).args(["-c", code]))
}

#[test]
fn python_raises_memory_error_and_continues() {
    let code = r#"
import gc
gc.disable()
def fill():
    first = last = []
    try:
        while True:
            next = [None]
            last.append(next)
            last = next
    except MemoryError:
        last = None
    while first:
        first = first.pop()
    return "MemoryError"
for _ in range(2):
    print(fill())
again = [(n, str(n)) for n in range(100000)]
print(sum(n for n, _ in again))
"#;
    for python in supported() {
        let run = limited(python, 100, code);
        assert_eq!(run.is_clean(python).stdout, "MemoryError\nMemoryError\n4999950000\n");
    }
}
