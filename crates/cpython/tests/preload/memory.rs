//! A process that may have no more memory.

use crate::support::{Python, command, library, run, supported};

/// Runs `code` in `python` with at most `mebibytes` of address space.
fn limited(python: &Python, mebibytes: u32, code: &str) -> crate::support::Run {
    let script = format!("ulimit -v {}; exec \"$@\"", mebibytes * 1024);
    let mut command = command("sh");
    command
        .args(["-c", &script, "sh"])
        .arg("env")
        .arg(format!("LD_PRELOAD={}", library().display()));
    run(command.arg(&python.path).args(["-c", code]))
}

#[test]
fn python_raises_memory_error_and_goes_on() {
    let code = r#"
def fill():
    node = None
    try:
        while True:
            node = (node, [], 0.5)
    except MemoryError:
        node = None
        return "MemoryError"
for _ in range(2):
    print(fill())
again = [(n, str(n)) for n in range(100000)]
print(sum(n for n, _ in again))
"#;
    for python in supported() {
        for mebibytes in [250, 500] {
            let run = limited(python, mebibytes, code);
            assert_eq!(run.is_clean(python).stdout, "MemoryError\nMemoryError\n4999950000\n");
        }
    }
}
