//! Log lines: for people or as JSON, on stderr, as much as `TIE_LOG` says (`info` unless told).

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Begins to log. A filter that cannot be read is told and not obeyed.
pub(super) fn begin(format: Format) {
    let said = std::env::var("TIE_LOG").unwrap_or_default();
    let filter = EnvFilter::builder().with_default_directive(tracing::Level::INFO.into()).parse(&said);
    let fault = filter.as_ref().err().map(ToString::to_string);
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|_| EnvFilter::new("info")))
        .with_writer(std::io::stderr);
    // A second start in one process (tests) keeps the first one's settings.
    let _ = match format {
        Format::Human => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        Format::Json => lines.json().flatten_event(true).try_init(),
    };
    if let Some(fault) = fault {
        tracing::warn!(fault, "TIE_LOG cannot be read; logging at info");
    }
}
