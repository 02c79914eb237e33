//! The binary `tie`: the engine's command line with the connectors it was built with.

use std::process::ExitCode;

fn main() -> ExitCode {
    tie_engine::cli::main(tie_plugins::ALL)
}
