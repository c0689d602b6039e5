//! Restricted processes: under a seccomp filter, or with limits on addresses or data.

use std::{fs, io, os::unix::process::CommandExt, process::Command};

use tempfile::TempDir;
use testkit::pythons::Python;

use crate::support::{Run, preloaded, run, supported};

fn ours(python: &Python, code: &str) -> Run {
    run(preloaded(python).args(["-c", code]))
}

/// The filter kills the process at any system call that it does not allow.
///
/// Field report F4.
#[test]
#[cfg(target_arch = "x86_64")]
fn a_sandboxed_python_can_create_and_drop_objects() {
    let code = r#"
import ctypes, os, struct
# read write mmap mprotect munmap brk rt_sigreturn mremap madvise exit futex clock_gettime exit_group
allowed = [0, 1, 9, 10, 11, 12, 15, 25, 28, 60, 202, 228, 231]
step = lambda code, otherwise, value: struct.pack('HBBI', code, 0, otherwise, value)
filter = step(0x20, 0, 0)
for number in allowed:
    filter += step(0x15, 1, number) + step(0x06, 0, 0x7fff0000)
filter += step(0x06, 0, 0x80000000)
buffer = ctypes.create_string_buffer(filter)
program = struct.pack('HxxxxxxP', len(filter) // 8, ctypes.addressof(buffer))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0
for _ in range(4):
    objects = [(number, str(number)) for number in range(200_000)]
    del objects
os.write(1, b'done\n')
os._exit(0)
"#;
    for python in supported() {
        assert_eq!(ours(python, code).is_clean(python).stdout, "done\n");
    }
}

/// Returns code that sets the limit `kind` to the current value of `figure` plus `mebibytes`.
fn limit(kind: &str, figure: &str, mebibytes: u32) -> String {
    format!(
        r#"
import resource
line = [line for line in open('/proc/self/status') if line.startswith('{figure}:')][0]
limit = int(line.split()[1]) * 1024 + ({mebibytes} << 20)
resource.setrlimit(resource.{kind}, (limit, limit))
"#
    )
}

/// Field report F5.
#[test]
fn half_of_a_limit_can_be_one_buffer_after_small_objects() {
    for (kind, figure) in [("RLIMIT_AS", "VmSize"), ("RLIMIT_DATA", "VmData")] {
        let code = limit(kind, figure, 100)
            + r#"
objects = [(number, str(number)) for number in range(500_000)]
del objects
print(len(bytearray(50 << 20)))
"#;
        for python in supported() {
            let run = ours(python, &code);
            assert_eq!(run.is_clean((kind, python)).stdout, "52428800\n");
        }
    }
}

/// The heap must leave enough addresses for the stacks of threads.
///
/// Field report F5.
#[test]
fn threads_can_start_when_few_addresses_are_left() {
    // The first start and the first end of a thread load a library, so both happen before the limit
    // is set.
    let begin = r#"
import os, threading
threading.stack_size(256 << 10)
first = threading.Thread(target=int)
first.start()
first.join()
"#;
    let end = r#"
objects = [(number, str(number)) for number in range(500_000)]
del objects
buffer = bytearray(90 << 20)
never, started = threading.Lock(), 0
never.acquire()
for _ in range(4):
    threading.Thread(target=never.acquire, daemon=True).start()
    started += 1
os.write(1, b'%d threads\n' % started)
os._exit(0)
"#;
    let code = [begin, &limit("RLIMIT_AS", "VmSize", 100), end].concat();
    for python in supported() {
        assert_eq!(ours(python, &code).is_clean(python).stdout, "4 threads\n");
    }
}

/// Makes the program of `command` run with this limit on the size of files, in bytes.
fn with_file_limit(command: &mut Command, bytes: u64) -> &mut Command {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: `setrlimit` is a system call, so it may be called between `fork` and `exec`.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        })
    }
}

/// Regression test: SIGXFSZ ended the process before `main`.
#[test]
fn a_program_that_may_not_create_large_files_runs_without_a_status_page() {
    for python in supported() {
        for bytes in [0, 4096, (32 << 10) - 1] {
            let runtime = TempDir::new().unwrap();
            let mut command = preloaded(python);
            command.env("OBMALLOC_STATUS", "on").env("XDG_RUNTIME_DIR", runtime.path());
            let run = run(with_file_limit(&mut command, bytes).args(["-c", "print(1)"]));
            assert_eq!((run.stdout.as_str(), run.status.code()), ("1\n", Some(0)), "{run:?}");
            let line = "obmalloc: cannot create a status page: ";
            assert!(run.stderr.starts_with(line), "{run:?}");
            assert!(run.stderr.lines().count() == 1, "{run:?}");
            let folder = runtime.path().join("obmalloc");
            assert_eq!(fs::read_dir(folder).unwrap().count(), 0, "a file is left");
        }
    }
}

/// Regression test: SIGXFSZ ended the process at exit. CPython ignores this signal, but a program
/// can restore its default action.
#[test]
fn a_report_that_exceeds_the_limit_on_files_does_not_end_the_process() {
    let code = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_DFL); print(1)";
    for python in supported() {
        for bytes in [0, 1000] {
            let folder = TempDir::new().unwrap();
            let (report, log) = (folder.path().join("report"), folder.path().join("log"));
            let mut command = preloaded(python);
            command.env("OBMALLOC_STATS", &report).stderr(fs::File::create(&log).unwrap());
            let run = run(with_file_limit(&mut command, bytes).args(["-c", code]));
            assert_eq!((run.stdout.as_str(), run.status.code()), ("1\n", Some(0)), "{run:?}");
            let log = fs::read_to_string(&log).unwrap();
            let line = "obmalloc: cannot write the statistics to ";
            assert_eq!(log.starts_with(line), bytes > 0, "{log}");
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "only the log is left");
        }
    }
}
