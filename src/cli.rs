//! The command line: parses arguments, runs one command, and maps its outcome to an exit code.

use std::process::ExitCode;

/// Runs the command line and returns the process's exit code.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
