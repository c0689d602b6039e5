//! The statistics at exit.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{library, plain, preloaded, run, run_counted, supported};

#[test]
fn statistics_as_text_go_to_stderr() {
    for python in supported() {
        let mut command = preloaded(python);
        let run = run(command.env("OBMALLOC_STATS", "1").args(["-c", "print('out')"]));
        assert_eq!(run.stdout, "out\n");
        let says = |text: &str| assert!(run.stderr.contains(text), "no {text:?} in {run:?}");
        says("\nin force\n");
        says("  mem: obmalloc (");
        says("  obj: obmalloc (");
        says("  raw: CPython (");
        says("Small block threshold = 512, in 32 size classes.");
        says("served from pools: ");
    }
}

#[test]
fn statistics_as_json_have_every_figure() {
    for python in supported() {
        let (run, stats) = run_counted(python, "print('out')");
        assert_eq!(run.is_clean(python).stdout, "out\n");
        assert_eq!((&stats["schema"], &stats["in_force"]), (&Value::from(2), &Value::from(true)));
        assert_eq!(
            (&stats["reason"], &stats["reinitialised"]),
            (&Value::Null, &Value::from(false))
        );
        let version = stats["python"].as_str().unwrap();
        assert!(version.starts_with(&format!("3.{}.", python.version.1)), "{version}");
        for domain in ["mem", "obj"] {
            let domain = &stats["domains"][domain];
            assert_eq!(domain["served_by"], "obmalloc");
            assert_eq!(domain["library"].as_str(), library().to_str());
            for kind in ["small", "large"] {
                let [requests, bytes] =
                    ["requests", "bytes"].map(|name| domain[kind][name].as_u64());
                assert!(requests < bytes, "{stats}");
            }
        }
        assert_eq!(stats["domains"]["raw"]["served_by"], "CPython");
        // From 3.14 on, no arena is left at exit, so we do not check the current number.
        let heap = &stats["heap"];
        assert!(heap["arenas"]["highwater"].as_u64() > Some(0), "{stats}");
        let served = stats["served"]["requests"].as_u64();
        assert!(heap["classes"][2]["in_use"].as_u64() < served, "{stats}");
    }
}

#[test]
fn statistics_say_why_the_heap_is_not_in_force() {
    for python in supported() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("stats.json");
        for (name, value, reason) in
            [("OBMALLOC", "off", "OBMALLOC=off"), ("PYTHONMALLOC", "malloc", "PYTHONMALLOC=malloc")]
        {
            let mut command = preloaded(python);
            run(command.env(name, value).env("OBMALLOC_STATS", &path).args(["-c", "pass"]));
            let stats: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            assert_eq!(stats["in_force"], false);
            assert!(stats["reason"].as_str().unwrap().contains(reason), "{stats}");
            assert_eq!(stats["domains"]["obj"]["served_by"], "CPython");
        }
    }
}

#[test]
fn each_process_can_have_a_file_of_its_own() {
    let code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'pass'])";
    for python in supported() {
        let folder = TempDir::new().unwrap();
        let mut command = preloaded(python);
        run(command.env("OBMALLOC_STATS", folder.path().join("%p.json")).args(["-c", code]))
            .is_clean(python);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "{python:?}");
    }
}

#[test]
fn a_path_is_relative_to_the_directory_in_which_the_program_started() {
    for python in supported() {
        let folder = TempDir::new().unwrap();
        let mut command = preloaded(python);
        command.current_dir(folder.path()).env("OBMALLOC_STATS", "here.json");
        run(command.args(["-c", "import os; os.chdir('/')"])).is_clean(python);
        assert!(folder.path().join("here.json").exists(), "{python:?}");
    }
}

#[test]
fn a_file_that_cannot_be_written_is_named_in_one_line() {
    for python in supported() {
        let mut command = preloaded(python);
        let run = run(command.env("OBMALLOC_STATS", "/no/such/folder/x").args(["-c", "print(1)"]));
        assert!(run.status.success() && run.stdout == "1\n");
        let expected = "obmalloc: cannot write the statistics to /no/such/folder/x: ";
        assert!(run.stderr.lines().count() == 1 && run.stderr.starts_with(expected), "{run:?}");
    }
}

#[test]
fn statistics_can_be_switched_by_words() {
    let python = supported().next().unwrap();
    let folder = TempDir::new().unwrap();
    let with = |word: &str| {
        let mut command = preloaded(python);
        command.current_dir(folder.path()).env("OBMALLOC_STATS", word).args(["-c", "pass"]);
        run(&mut command)
    };
    for word in ["true", "on", "YES"] {
        let run = with(word);
        assert!(run.stderr.contains("\nin force\n"), "{word}: {run:?}");
    }
    for word in ["false", "off", "NO", "0", ""] {
        with(word).is_clean(word);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "a word is not a file");
}

fn words_of_tables(text: &str) -> Vec<String> {
    let is_word = |word: &&str| !word.starts_with(|c: char| c.is_ascii_digit());
    let words = |line: &str| line.split_whitespace().filter(is_word).collect::<Vec<_>>().join(" ");
    let lines = text.lines().take_while(|line| !line.starts_with("arena map"));
    lines.map(words).filter(|words| !words.is_empty()).collect()
}

/// CPython itself prints nothing, because its own allocator is not in use.
///
/// Field report F9.
#[test]
fn pythonmallocstats_prints_our_figures_in_cpythons_format() {
    for python in supported() {
        let own = run(plain(python).env("PYTHONMALLOCSTATS", "1").args(["-c", "pass"]));
        let (_, last) = own.stderr.rsplit_once("Small block threshold").unwrap();
        let mut command = preloaded(python);
        let ours = run(command.env("PYTHONMALLOCSTATS", "1").args(["-c", "print('out')"]));
        assert_eq!(ours.stdout, "out\n");
        let tail = ours.stderr.strip_prefix("Small block threshold").unwrap();
        assert_eq!(words_of_tables(last), words_of_tables(tail), "{python:?}");
        assert!(
            !tail.contains("Small block threshold"),
            "the table must be printed once: {ours:?}"
        );
    }
}

#[test]
fn pythonmallocstats_is_ignored_if_cpython_ignores_it_and_is_not_printed_twice() {
    for python in supported() {
        let with = |stats: &str, args: [&str; 3]| {
            let mut command = preloaded(python);
            command.env("PYTHONMALLOCSTATS", "1").env("OBMALLOC_STATS", stats).args(args);
            run(&mut command)
        };
        with("0", ["-E", "-c", "pass"]).is_clean(python);
        let both = with("1", ["-B", "-c", "pass"]);
        assert_eq!(both.stderr.matches("Small block threshold").count(), 1, "{both:?}");
    }
}
