//! `tie demo-record`: a small care record to watch and to test against. For demonstration and tests only.
//!
//! Promises: transactions are applied whole or not at all; a ledger tells which messages arrived, in which order
//! and how often; it can be told to be away. It keeps everything in memory and forgets it when it ends.
//! Left to others: being a FHIR server. It checks no profiles and asks nobody who they are.

mod http;
mod page;
mod store;

use std::{net::SocketAddr, process::ExitCode};

/// Resources kept unless told otherwise.
const AT_MOST: usize = 200_000;

/// Run a small FHIR record in memory, for demonstration and tests only.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Address and port to listen at. Anybody who can reach it can read and write.
    #[arg(long, default_value = "127.0.0.1:8090", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Resources kept at most; beyond, the oldest are forgotten.
    #[arg(long, default_value_t = AT_MOST, value_name = "NUMBER")]
    at_most: usize,
}

/// Serves beside something else until it is dropped.
pub(super) async fn serve(listen: SocketAddr) -> std::io::Result<()> {
    http::serve(listen, AT_MOST, std::future::pending()).await
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> ExitCode {
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let served = match built {
        Ok(runtime) => {
            println!("The demonstration record is at http://{}/", arguments.listen);
            runtime.block_on(http::serve(arguments.listen, arguments.at_most, stopped()))
        }
        Err(error) => Err(error),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tie: cannot serve at {}: {error}", arguments.listen);
            ExitCode::from(3)
        }
    }
}

async fn stopped() {
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}
