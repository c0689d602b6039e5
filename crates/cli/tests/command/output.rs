use std::{
    fs::OpenOptions,
    io::Read,
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
};

use crate::support::{Run, obmalloc};

fn to_a_closed_pipe(command: &Command) -> (Option<i32>, String) {
    let mut late = Command::new("sh");
    late.args(["-c", "sleep 0.5; exec \"$0\" \"$@\""]);
    late.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => late.env(name, value),
            None => late.env_remove(name),
        };
    }
    let mut child = late.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    (child.wait().unwrap().signal(), stderr)
}

#[test]
fn a_closed_pipe_ends_a_command_silently() {
    for words in [&["path"][..], &["env"], &["doctor", "--json"], &["completions", "bash"]] {
        let (signal, stderr) = to_a_closed_pipe(&obmalloc(words));
        // SIGPIPE.
        assert_eq!((signal, &*stderr), (Some(13), ""), "{words:?}");
    }
}

#[test]
fn a_full_disk_is_an_error() {
    for words in [&["path"][..], &["env", "--systemd"], &["doctor"], &["completions", "zsh"]] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = obmalloc(words).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
        let run = Run::from(output.wait_with_output().unwrap());
        run.fails(1, &["cannot write to stdout", "because: "]);
    }
}
