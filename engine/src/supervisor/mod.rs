//! The supervisor: starts the engine, changes its configuration while it runs, and stops it.
//!
//! In:       the configuration directory, the connectors, a signal to stop.
//! Out:      a running engine; at the end, why it ended.
//! Promise:  P8, P10. Start is a reload from nothing: parse, check, build, test, and only then run. A change that
//!           fails on the way changes nothing. A stop goes against the stream: readiness, listeners, couriers, journal.
//! Not here: what a revision is (revision), what its parts do.

mod disk;
mod gauges;
pub(crate) mod parts;
mod retention;
mod surface;
pub(crate) mod tasks;
mod watch;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{self, ReloadResult, ReloadStatus},
    clock::Clock,
    config,
    connector::Plugin,
    error::{Problem, Severity},
    journal::JournalError,
    metrics::Metrics,
    revision::Revision,
};
use parts::Parts;
use surface::Surface;
use tasks::Tasks;
use watch::Watch;

/// The admin listener answers for so long after everything else has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What an engine is started with.
pub struct Setup {
    /// The configuration directory.
    pub home: PathBuf,
    /// The configuration file, if it is not `tie.toml` in it.
    pub config_file: Option<PathBuf>,
    /// The connectors.
    pub plugins: &'static [Plugin],
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

/// Why the engine did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration is not sound.
    #[error("the configuration has {} problem(s)", .0.len())]
    Configuration(Vec<Problem>),
    /// The journal cannot be opened.
    #[error("the journal cannot be opened: {0}")]
    Journal(String),
    /// The admin listener cannot be opened.
    #[error("the admin listener cannot be opened at {address}: {reason}")]
    Admin {
        /// Where.
        address: std::net::SocketAddr,
        /// Why not.
        reason: String,
    },
    /// The machine does not give what the engine needs.
    #[error("{0}")]
    Machine(String),
    /// Nothing can be made durable any more.
    #[error(
        "the engine has stopped, since {0}; what was acknowledged is on disk and goes on after a restart"
    )]
    Closed(JournalError),
}

/// Runs an engine until `stop` is cancelled or its journal fails.
///
/// # Errors
/// Why it did not start, or why it stopped by itself.
pub async fn run(setup: Setup, stop: CancellationToken) -> Result<(), Failure> {
    // Before the first look, so that no edit can come between.
    let changes = setup.watch()?;
    let revision = Arc::new(setup.build().await.map_err(Failure::Configuration)?);
    let directory = revision.config.journal.location.below(&setup.home).into_directory();
    let Some(reserve_bytes) =
        disk::ready(directory.as_deref(), revision.config.journal.reserve_bytes, &stop).await
    else {
        return Ok(());
    };
    let parts = Parts::open(&setup, revision.clone(), reserve_bytes).await?;
    let admin_stop = CancellationToken::new();
    let (ask, asked) = mpsc::channel(4);
    let surface = Arc::new(Surface::new(parts.clone(), ask));
    let site = admin::Site {
        engine: surface.clone(),
        registry: parts.registry.clone(),
        hosts: revision.config.admin.hosts.clone(),
    };
    let address = revision.config.admin.listen;
    let listener =
        admin::bind(address).await.map_err(|error| Failure::Admin { address, reason: error.to_string() })?;
    let admin = tokio::spawn(admin::serve(listener, site, admin_stop.clone()));
    tracing::info!(%address, revision = revision.short(), "the admin listener serves");
    let gauges = tokio::spawn(gauges::feed(Arc::new(parts.clone())));
    let disk = directory.map(|directory| tokio::spawn(disk::watch(parts.clone(), directory, reserve_bytes)));
    let retention = tokio::spawn(retention::keep(parts.clone()));

    let ended =
        Supervisor { setup, parts, surface, tasks: Tasks::default(), asked, changes }.supervise(stop).await;
    gauges.abort();
    if let Some(disk) = disk {
        disk.abort();
    }
    retention.abort();
    admin_stop.cancel();
    let _ = tokio::time::timeout(LAST_WORDS, admin).await;
    ended
}

struct Supervisor {
    setup: Setup,
    parts: Parts,
    surface: Arc<Surface>,
    tasks: Tasks,
    asked: mpsc::Receiver<oneshot::Sender<ReloadStatus>>,
    changes: mpsc::Receiver<()>,
}

impl Supervisor {
    async fn supervise(mut self, stop: CancellationToken) -> Result<(), Failure> {
        self.follow(&self.parts.pipeline.live());
        let journal = self.parts.journal.clone();
        let mut glance = tokio::time::interval(Duration::from_millis(250));
        let closed = loop {
            tokio::select! {
                () = stop.cancelled() => break None,
                reason = journal.closed() => break Some(JournalError::Closed(reason.to_string())),
                Some(()) = self.changes.recv() => { self.reload_unless(&stop).await; }
                Some(answer) = self.asked.recv() => {
                    if let Some(status) = self.reload_unless(&stop).await {
                        let _ = answer.send(status); // who asked may have gone
                    }
                }
                _ = glance.tick() => self.surface.look_at(&self.tasks),
            }
        };
        self.drain().await;
        closed.map_or(Ok(()), |error| Err(Failure::Closed(error)))
    }

    /// A stop waits for no reload: what is being built is dropped, what is live has changed as a whole or not at all.
    async fn reload_unless(&mut self, stop: &CancellationToken) -> Option<ReloadStatus> {
        tokio::select! {
            biased;
            () = stop.cancelled() => None,
            status = self.reload() => Some(status),
        }
    }

    /// Reads the configuration again and makes it live if it is sound.
    async fn reload(&mut self) -> ReloadStatus {
        let status = match self.setup.build().await {
            Ok(revision) => self.change_to(revision).await,
            Err(problems) => self.status(ReloadResult::Refused, None, problems),
        };
        report(&status, &self.parts.metrics);
        self.surface.reloaded(status.clone());
        status
    }

    async fn change_to(&mut self, revision: Revision) -> ReloadStatus {
        let live = self.parts.pipeline.live();
        let id = Some(revision.id.clone());
        if revision.id == live.id {
            return self.status(ReloadResult::Unchanged, id, Vec::new());
        }
        let fixed = needs_restart(&live, &revision);
        if !fixed.is_empty() {
            return self.status(ReloadResult::Refused, id, fixed);
        }
        let revision = Arc::new(revision);
        let warnings = revision.warnings.clone();
        if let Err(error) = self.parts.pipeline.go_live(revision.clone(), &self.parts.journal).await {
            return self.status(ReloadResult::Refused, id, vec![Problem::error(error.to_string())]);
        }
        self.follow(&revision);
        self.status(ReloadResult::Live, id, warnings)
    }

    fn follow(&mut self, revision: &Arc<Revision>) {
        self.parts.metrics.revision_info(&revision.id, revision.git_commit.as_deref());
        self.surface.went_live(self.parts.clock.now());
        self.parts.remember(revision);
        self.tasks.follow(revision, &self.parts);
        self.surface.look_at(&self.tasks);
    }

    fn status(&self, result: ReloadResult, revision: Option<String>, problems: Vec<Problem>) -> ReloadStatus {
        ReloadStatus { at: self.parts.clock.now(), result, revision, problems }
    }

    /// Stops against the stream; what is not finished is in the journal.
    async fn drain(&mut self) {
        tracing::info!("stopping: no more messages are taken");
        self.surface.draining();
        self.tasks.end_listeners().await;
        self.tasks.end_couriers().await;
        self.parts.journal.close().await;
        tracing::info!("stopped: what was not delivered goes on after the next start");
    }
}

impl Setup {
    fn watch(&self) -> Result<mpsc::Receiver<()>, Failure> {
        let config_file = self.config_file.as_deref().unwrap_or(Path::new("tie.toml"));
        let watch = Watch::begin(&self.home, config_file)
            .map_err(|error| Failure::Machine(format!("the configuration cannot be watched: {error}")))?;
        Ok(watch.settled())
    }

    /// Everything that can be said of the configuration without running it: parse, check, build, test.
    async fn build(&self) -> Result<Revision, Vec<Problem>> {
        let (home, config_file, plugins) = (self.home.clone(), self.config_file.clone(), self.plugins);
        let built = tokio::task::spawn_blocking(move || build(&home, config_file.as_deref(), plugins));
        built
            .await
            .unwrap_or_else(|_| Err(vec![Problem::error("building the configuration failed (a panic)")]))
    }
}

fn build(
    home: &Path,
    config_file: Option<&Path>,
    plugins: &'static [Plugin],
) -> Result<Revision, Vec<Problem>> {
    let snapshot = config::snapshot(home, config_file)?;
    let revision = Revision::build(&snapshot, plugins)?;
    let failed: Vec<_> = revision.run_tests().iter().map(Problem::from).collect();
    if failed.is_empty() { Ok(revision) } else { Err(failed) }
}

/// What cannot change while the engine runs.
fn needs_restart(live: &Revision, new: &Revision) -> Vec<Problem> {
    let checks = [
        ("environment", live.config.environment == new.config.environment),
        ("journal", live.config.journal == new.config.journal),
        ("limits.unstored", live.config.limits.unstored_bytes == new.config.limits.unstored_bytes),
        ("admin", live.config.admin == new.config.admin),
        ("patient", live.config.patients == new.config.patients),
    ];
    let changed = checks.into_iter().filter(|(_, same)| !same);
    changed
        .map(|(key, _)| {
            Problem::error(format!("`{key}` cannot change while the engine runs"))
                .help("change it back, or restart the engine")
        })
        .collect()
}

fn report(status: &ReloadStatus, metrics: &Metrics) {
    // One that could not be built has none.
    let revision = status.revision.as_deref();
    match status.result {
        ReloadResult::Live => {
            metrics.reload("live");
            tracing::info!(revision, "the new configuration is live");
        }
        ReloadResult::Unchanged => {
            metrics.reload("unchanged");
            tracing::debug!(revision, "the configuration is as it was");
        }
        ReloadResult::Refused => {
            metrics.reload("refused");
            let errors = status.problems.iter().filter(|problem| problem.severity == Severity::Error);
            for problem in errors {
                tracing::error!(revision, problem = %problem, "the new configuration is refused: nothing has changed");
            }
        }
    }
}
