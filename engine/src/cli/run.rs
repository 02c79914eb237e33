//! `tie run`: the engine, until it is told to stop.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{Exit, Place, complain, logging, report};
use crate::{
    clock::SystemClock,
    connector::Plugin,
    supervisor::{self, Failure, Setup},
};

/// Of every thread, since any may run a mapping. A script can nest lists as deep as they may have items, and dropping
/// or writing such a value goes down as deep; a stack that is too small would end the whole engine, again after every
/// restart. Only addresses are taken, no memory, until it is used.
const STACK_BYTES: usize = 256 << 20;
/// Mappings take one each and are bounded by themselves; the others read names and pack long bodies.
const BLOCKING_THREADS: usize = 64;

pub(super) fn run(place: &Place, format: logging::Format, plugins: &'static [Plugin]) -> Exit {
    logging::begin(format);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(STACK_BYTES)
        .max_blocking_threads(BLOCKING_THREADS)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(format_args!("tie: the runtime cannot be started: {error}"));
            return Exit::Unreachable;
        }
    };
    let setup = Setup {
        home: place.home.clone(),
        config_file: place.config.clone(),
        plugins,
        clock: Arc::new(SystemClock),
    };
    let ended = runtime.block_on(async {
        let stop = CancellationToken::new();
        tokio::spawn(stop_on_signal(stop.clone()));
        supervisor::run(setup, stop).await
    });
    // Whatever still blocks (a hung name server, a slow disk) must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(2));
    match ended {
        Ok(()) => Exit::Well,
        Err(failure) => told(&failure, place, format),
    }
}

fn told(failure: &Failure, place: &Place, format: logging::Format) -> Exit {
    tracing::error!("{failure}");
    let Failure::Configuration(problems) = failure else { return Exit::Unreachable };
    match format {
        logging::Format::Human => {
            complain(report::rendered(problems, place.snapshot().ok().as_ref(), report::wants_colour()));
        }
        logging::Format::Json => {
            problems.iter().for_each(|problem| tracing::error!(%problem, "configuration"))
        }
    }
    Exit::Wrong
}

pub(super) async fn stop_on_signal(stop: CancellationToken) {
    let asked = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = tokio::signal::ctrl_c() => "Ctrl-C",
            }
        }
        Err(error) => {
            tracing::warn!(%error, "SIGTERM cannot be heard; Ctrl-C stops the engine");
            let _ = tokio::signal::ctrl_c().await;
            "Ctrl-C"
        }
    };
    tracing::info!(asked, "stopping");
    stop.cancel();
}
