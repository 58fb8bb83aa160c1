//! Streams synthetic traffic from a `model.ns` bundle into a file or onto a wire.

fn main() -> std::process::ExitCode {
    ns_runtime::cli::main()
}
