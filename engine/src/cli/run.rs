//! `tie run`: the engine, until it is told to stop.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Exit, Place, complain, logging, report};
use crate::{
    connector::Plugin,
    supervisor::{self, Failure},
};

pub(super) fn run(place: &Place, format: logging::Format, plugins: &'static [Plugin]) -> Exit {
    logging::begin(format);
    let runtime = match super::runtime() {
        Ok(runtime) => runtime,
        Err(exit) => return exit,
    };
    let setup = place.setup(plugins);
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
