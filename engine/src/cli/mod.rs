//! The command line: one file a command.
//!
//! Promises: exit codes are stable (see [`Exit`]); what a machine would read is on stdout and is JSON with
//! `--json`; what is said to people about faults is on stderr. Nothing of a message is printed except by commands that are asked for it.

mod audit;
mod bench;
mod check;
mod client;
mod coverage;
mod decide;
mod demo;
mod demo_record;
mod inspect;
mod inspect_fhir;
mod journal;
mod lanes;
mod library;
mod logging;
mod map;
mod mllp_client;
mod plugins;
mod reconcile;
mod reload;
mod report;
mod resume;
mod run;
mod search;
mod send;
mod status;
mod test;

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clap::{Parser, Subcommand};

use crate::{
    clock::SystemClock,
    config::{self, Snapshot},
    connector::Plugin,
    error::Problem,
    supervisor::Setup,
};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    /// All is well.
    Well = 0,
    /// The thing that was checked or asked for is wrong.
    Wrong = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// Something could not be read, written or reached.
    Unreachable = 3,
}

const CODES: &str = "Exit codes: 0 all is well; 1 what was checked or asked for is wrong; 2 the command line makes \
                     no sense; 3 something could not be read, written or reached.";

/// Of every thread, since any may run a mapping. A script can nest lists as deep as they may have items, and dropping
/// or writing such a value goes down as deep; a stack that is too small would end the whole engine, again after every
/// restart. Only addresses are taken, no memory, until it is used.
const STACK_BYTES: usize = 256 << 20;
/// Mappings take one each and are bounded by themselves; the others read names and pack long bodies.
const BLOCKING_THREADS: usize = 64;

/// TIE, the trust integration engine: HL7 v2 in, FHIR R4 out, nothing lost.
#[derive(Debug, Parser)]
#[command(name = "tie", version, after_help = CODES, propagate_version = true)]
struct Arguments {
    #[command(flatten)]
    place: Place,
    /// How log lines look.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: logging::Format,
    #[command(subcommand)]
    command: Command,
}

/// Where the configuration is.
#[derive(Debug, clap::Args)]
struct Place {
    /// The configuration directory, with tie.toml, routes/ and mappings/.
    #[arg(long, global = true, default_value = ".", value_name = "DIR")]
    home: PathBuf,
    /// The configuration file, if it is not tie.toml in the configuration directory.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the engine until it is told to stop (SIGTERM, Ctrl-C).
    Run,
    /// Check the whole configuration: says what is wrong, where, and what to do.
    Check(check::Arguments),
    /// Run the tests that the routes carry.
    Test(test::Arguments),
    /// Show what a mapping makes of messages.
    Map(map::Arguments),
    /// Show which fields of messages the mappings read, leave out on purpose, or do not look at.
    Coverage(coverage::Arguments),
    /// Show the messages of a file as trees, with the names of segments and fields.
    Inspect(inspect::Arguments),
    /// Show what a running engine has live, what waits and what failed.
    Status(status::Arguments),
    /// Find messages in the journal of a running engine, the newest first.
    Search(search::Arguments),
    /// Have a running engine do deliveries again.
    Replay(decide::ReplayArguments),
    /// Show the lanes of a running engine that wait, since when and why.
    Lanes(lanes::Arguments),
    /// Let parked and held deliveries of a running engine go on.
    Release(decide::ReleaseArguments),
    /// Make waiting deliveries of a running engine dead letters; their lanes go on.
    Skip(decide::SkipArguments),
    /// Show who has decided what about the deliveries of a running engine.
    Audit(audit::Arguments),
    /// Compare a sender's list with what a running engine knows, and with what receivers have.
    Reconcile(reconcile::Arguments),
    /// Let a paused engine deliver again, such as after a restore.
    Resume(resume::Arguments),
    /// Look at, copy and put back the journal of this instance.
    Journal(journal::Arguments),
    /// Have a running engine read its configuration again now.
    Reload(reload::Arguments),
    /// Show the connectors and what can be configured.
    Plugins(plugins::Arguments),
    /// Send messages by MLLP; show the acknowledgements and how long they took.
    Send(send::Arguments),
    /// Show the whole road at work: an engine, a record and a stream of messages in one process.
    Demo(demo::Arguments),
    /// Run a small FHIR record in memory, for demonstration and tests only.
    DemoRecord(demo_record::Arguments),
    /// Measure how fast this binary is on this machine, beside what the machine can do at all.
    Bench(bench::Arguments),
    /// One of the processes that `tie bench` starts.
    #[command(hide = true)]
    BenchPart(bench::PartArguments),
}

/// Runs the command that the process was started with.
pub fn main(plugins: &'static [Plugin]) -> ExitCode {
    let Arguments { place, log_format, command } = Arguments::parse();
    let exit = match command {
        Command::Run => run::run(&place, log_format, plugins),
        Command::Check(arguments) => check::run(&arguments, &place, plugins),
        Command::Test(arguments) => test::run(&arguments, &place, plugins),
        Command::Map(arguments) => map::run(&arguments, &place, plugins),
        Command::Coverage(arguments) => coverage::run(&arguments, &place, plugins),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Status(arguments) => status::run(&arguments, &place),
        Command::Search(arguments) => search::run(&arguments, &place),
        Command::Replay(arguments) => decide::replay(&arguments, &place),
        Command::Lanes(arguments) => lanes::run(&arguments, &place),
        Command::Release(arguments) => decide::release(&arguments, &place),
        Command::Skip(arguments) => decide::skip(&arguments, &place),
        Command::Audit(arguments) => audit::run(&arguments, &place),
        Command::Reconcile(arguments) => reconcile::run(&arguments, &place, plugins),
        Command::Resume(arguments) => resume::run(&arguments, &place),
        Command::Journal(arguments) => journal::run(&arguments, &place),
        Command::Reload(arguments) => reload::run(&arguments, &place),
        Command::Plugins(arguments) => plugins::run(&arguments, plugins),
        Command::Send(arguments) => return send::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments, &place, plugins),
        Command::DemoRecord(arguments) => return demo_record::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments, &place),
        Command::BenchPart(arguments) => bench::run_part(&arguments, &place, plugins),
    };
    ExitCode::from(exit as u8)
}

impl Place {
    fn snapshot(&self) -> Result<Snapshot, Vec<Problem>> {
        config::snapshot(&self.home, self.config.as_deref())
    }

    /// What an engine here is started with.
    fn setup(&self, plugins: &'static [Plugin]) -> Setup {
        Setup {
            home: self.home.clone(),
            config_file: self.config.clone(),
            plugins,
            clock: Arc::new(SystemClock),
        }
    }

    fn config_file(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| self.home.join("tie.toml"))
    }
}

/// The threads that everything asynchronous runs on.
fn runtime() -> Result<tokio::runtime::Runtime, Exit> {
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    threads.enable_all().thread_stack_size(STACK_BYTES).max_blocking_threads(BLOCKING_THREADS);
    threads.build().map_err(|error| {
        complain(format_args!("tie: the runtime cannot be started: {error}"));
        Exit::Unreachable
    })
}

/// Prints on stdout. Whoever reads may stop reading: that is no fault.
fn say(text: impl std::fmt::Display) {
    let _ = write!(std::io::stdout().lock(), "{text}");
}

/// Prints on stderr.
fn complain(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Reads a file that was named on the command line; `-` is stdin.
fn read(file: &Path) -> Result<Vec<u8>, Exit> {
    let read = if file == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut bytes).map(|_| bytes)
    } else {
        std::fs::read(file)
    };
    read.map_err(|error| {
        complain(format_args!("tie: {}: {error}", file.display()));
        Exit::Unreachable
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_every_argument_is_explained() {
        let mut command = Arguments::command();
        command.build();
        command.clone().debug_assert();
        for sub in command.get_subcommands() {
            assert!(sub.get_about().is_some(), "{}", sub.get_name());
            for argument in sub.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", sub.get_name(), argument.get_id());
            }
        }
    }
}
