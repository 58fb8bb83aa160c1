//! Fits a model to a trace and writes it as a `model.ns` bundle.

fn main() -> std::process::ExitCode {
    ns_trainer::cli::main()
}
