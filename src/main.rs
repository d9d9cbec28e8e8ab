//! The program.

fn main() -> std::process::ExitCode {
    latchd::cli::main()
}
