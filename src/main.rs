//! The program `bkp`: all of it is in the library.

fn main() -> std::process::ExitCode {
    bkp::cli::main()
}
