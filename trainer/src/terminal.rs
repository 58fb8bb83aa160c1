//! What commands show people while they work, and what they print.

use std::io::{IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar of a thousand steps on standard error, if that is a terminal.
pub(crate) fn progress_bar(what: &str, hidden: bool) -> ProgressBar {
    let shown = !hidden && std::io::stderr().is_terminal();
    let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(1000), target);
    // The template is ours and valid; if it were not, the default would do.
    if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:30}] {percent:>3}% {msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.with_prefix(what.to_owned())
}

/// Prints a document to standard output. A reader that has had enough is no error.
///
/// # Errors
/// Standard output cannot be written for another reason, such as a full disk.
pub(crate) fn print(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| writeln!(stdout)) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
