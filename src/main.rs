//! The `lookoutd` binary: turns the outcome of a command into an exit code, nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    lookoutd::cli::main()
}
