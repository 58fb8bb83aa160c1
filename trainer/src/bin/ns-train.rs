//! `ns-train`: fits a model to a trace.

use clap::Parser;

fn main() -> std::process::ExitCode {
    let cli = ns_trainer::cli::Cli::parse();
    match ns_trainer::cli::run(cli) {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            2.into()
        }
    }
}
