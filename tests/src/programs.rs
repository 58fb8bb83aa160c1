//! The programs of this workspace, run as users run them.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// A program of this workspace, built before the tests run (`./run test` does).
#[must_use]
pub fn program(name: &str) -> PathBuf {
    // target/debug/deps/test-1234 -> target/debug/NAME
    let test = std::env::current_exe().expect("this test's own path");
    let folder = test.ancestors().nth(2).expect("target/debug");
    let path = folder.join(name);
    assert!(path.is_file(), "{} is not built: cargo build --workspace --bins", path.display());
    path
}

/// A program of this workspace with arguments, to be run in a folder.
#[must_use]
pub fn command(folder: &Path, name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program(name));
    command.args(arguments).current_dir(folder).env("RUST_BACKTRACE", "0");
    command
}

/// Runs a program, expects an exit code; standard output and standard error.
pub fn expect(code: i32, folder: &Path, name: &str, arguments: &[&str]) -> (String, String) {
    let output = command(folder, name, arguments).output().expect("the program starts");
    let Output { status, stdout, stderr } = output;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (said, errors) = (text(&stdout), text(&stderr));
    assert_eq!(status.code(), Some(code), "{name} {arguments:?}: {errors}");
    (said, errors)
}

/// Starts a training whose words nobody reads.
#[must_use]
pub fn start(folder: &Path, arguments: &[&str]) -> Child {
    let mut command = command(folder, "ns-train", arguments);
    command.stderr(Stdio::null()).spawn().expect("the program starts")
}

/// Whether a program of the system is there; says so if not.
#[must_use]
pub fn has_tool(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = [PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")];
    let found = std::env::split_paths(&path).chain(sbin).any(|folder| folder.join(name).is_file());
    if !found {
        println!("skipped: this machine has no `{name}`");
    }
    found
}

/// Starts a training, interrupts it once it has said what it read, and returns
/// its exit code. Reading takes a moment; training would take hours.
#[must_use]
pub fn interrupted(training: &mut Command) -> Option<i32> {
    let mut child = training.stderr(Stdio::piped()).spawn().expect("the program starts");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let read = lines.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("read ")));
    assert!(read.is_some(), "it says what it read");
    interrupt(&child);
    lines.for_each(drop);
    child.wait().expect("it ends").code()
}

/// Sends SIGINT to a process that was started and not waited for.
pub fn interrupt(child: &Child) {
    signal(child, libc::SIGINT);
}

/// Sends a signal to a process that was started and not waited for.
pub fn signal(child: &Child, signal: i32) {
    // SAFETY: kill has no memory effects; the child has not been waited for.
    #[expect(unsafe_code, reason = "std has no way to send signals")]
    let sent = unsafe { libc::kill(child.id() as libc::pid_t, signal) };
    assert_eq!(sent, 0);
}
