//! What benchmarks share; they are in `benches/`.

use std::process::Command;

/// What a program printed; where it did not end well, that is said in a line.
pub fn printed(command: &mut Command) -> Option<String> {
    let reason = match command.output() {
        Ok(output) if output.status.success() => {
            return Some(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            said.lines().last().unwrap_or_default().to_owned()
        }
        Err(error) => error.to_string(),
    };
    println!("{} did not run: {reason}", command.get_program().display());
    None
}
