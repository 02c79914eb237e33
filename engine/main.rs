//! The binary `tie`: the engine's command line with the connectors it was built with.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A message makes and drops some thousand small things, which this allocator does in a third of the time.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    tie_engine::cli::main(tie_plugins::ALL)
}
