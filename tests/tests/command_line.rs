//! What users read: help texts, as snapshots, and the examples in them.

use std::process::Command;

use ns_tests::program;

fn output_of(name: &str, arguments: &[&str]) -> String {
    let output = Command::new(program(name))
        .args(arguments)
        .env("COLUMNS", "100")
        .env("NO_COLOR", "1")
        .output()
        .expect("the program starts");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn help_texts() {
    for (snapshot, name, arguments) in [
        ("ns-train", "ns-train", &["--help"][..]),
        ("ns-train-train", "ns-train", &["train", "--help"]),
        ("ns-train-status", "ns-train", &["status", "--help"]),
        ("ns-train-unit", "ns-train", &["unit", "--help"]),
        ("ns-train-generate", "ns-train", &["generate", "--help"]),
        ("ns-train-train-and-generate", "ns-train", &["train-and-generate", "--help"]),
        ("ns-train-evaluate", "ns-train", &["evaluate", "--help"]),
        ("ns-train-visualize", "ns-train", &["visualize", "--help"]),
        ("ns-replay", "ns-replay", &["--help"]),
    ] {
        insta::assert_snapshot!(snapshot, output_of(name, arguments));
    }
}

/// Every example line of a help text, as words, program name first.
fn examples(help: &str) -> Vec<Vec<String>> {
    help.lines()
        .map(str::trim)
        .filter(|line| line.starts_with("ns-train ") || line.starts_with("ns-replay "))
        // What follows a pipe, or stands far to the right, is not the program's.
        .map(|line| line.split(" | ").next().unwrap_or(line))
        .map(|line| line.split("   ").next().unwrap_or(line))
        .map(|line| line.split_whitespace().map(str::to_owned).collect())
        .collect()
}

/// Examples are parsed for real: an option that is gone or renamed, or a
/// combination that is refused, is found here. Their files do not exist, so
/// each ends with that, or does what it says.
#[test]
fn examples_in_help_are_accepted() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut seen = 0;
    for (name, arguments) in [
        ("ns-train", &["train", "--help"][..]),
        ("ns-train", &["status", "--help"]),
        ("ns-train", &["unit", "--help"]),
        ("ns-train", &["generate", "--help"]),
        ("ns-train", &["train-and-generate", "--help"]),
        ("ns-train", &["evaluate", "--help"]),
        ("ns-train", &["visualize", "--help"]),
        ("ns-replay", &["--help"]),
    ] {
        for words in examples(&output_of(name, arguments)) {
            let output = Command::new(program(&words[0]))
                .args(&words[1..])
                .current_dir(folder.path())
                .output()
                .expect("the program starts");
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{words:?}: {stderr}");
            assert!(stderr.contains("cannot read `"), "{words:?}: {stderr}");
            seen += 1;
        }
    }
    assert!(seen >= 19, "{seen} examples");
}

#[test]
fn misspelled_options_are_pointed_out() {
    let output = Command::new(program("ns-replay"))
        .args(["--bundel", "x.ns", "--null"])
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("'--bundle'"), "{stderr}");
}
