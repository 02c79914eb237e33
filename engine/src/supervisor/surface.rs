//! What the admin listener sees of a running engine.
//!
//! Promise:  reading never waits for the road: what the supervisor knows is kept here as it last was.

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::{parts::Parts, tasks::Tasks};
use crate::{
    admin::{
        self, DestinationStatus, JournalStatus, Lane, Lanes, ListenerStatus, Readiness, ReloadResult,
        ReloadStatus, RevisionStatus, RouteStatus, Status,
    },
    connector::Payload,
    delivery::Standing,
    journal::{
        Audit, Count, Decision, DeliveryId, DeliveryRecord, JournalError, Key, Page, Query, Requeue,
        Requeued, Sequence, Summary, Waiting,
    },
};

/// The face of the engine.
pub struct Surface {
    parts: Parts,
    started: Timestamp,
    seen: Mutex<Seen>,
    ask: mpsc::Sender<oneshot::Sender<ReloadStatus>>,
    /// Makes the handles of lanes; of this run of the engine only.
    key: uuid::Uuid,
}

/// What the supervisor last told.
struct Seen {
    live_since: Timestamp,
    last_reload: Option<ReloadStatus>,
    listeners: Vec<ListenerStatus>,
    couriers: Vec<(String, String, Standing)>,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Running,
    Draining,
}

impl Surface {
    /// A face without anything seen yet.
    pub fn new(parts: Parts, ask: mpsc::Sender<oneshot::Sender<ReloadStatus>>) -> Self {
        let now = parts.clock.now();
        let seen = Seen {
            live_since: now,
            last_reload: None,
            listeners: Vec::new(),
            couriers: Vec::new(),
            phase: Phase::Starting,
        };
        Self { parts, started: now, seen: Mutex::new(seen), ask, key: uuid::Uuid::new_v4() }
    }

    /// Takes note of how the tasks are.
    pub fn look_at(&self, tasks: &Tasks) {
        let (listeners, couriers) = (tasks.listeners(), tasks.couriers());
        let mut seen = self.seen.lock();
        seen.listeners = listeners;
        seen.couriers = couriers;
        if seen.phase == Phase::Starting {
            seen.phase = Phase::Running;
        }
    }

    /// A revision went live.
    pub fn went_live(&self, at: Timestamp) {
        self.seen.lock().live_since = at;
    }

    /// A change of the configuration ended so.
    pub fn reloaded(&self, status: ReloadStatus) {
        self.seen.lock().last_reload = Some(status);
    }

    /// No more messages are taken.
    pub fn draining(&self) {
        self.seen.lock().phase = Phase::Draining;
    }

    fn destinations(&self, counts: Vec<Count>) -> Vec<DestinationStatus> {
        let now = self.parts.clock.now();
        let mut all: BTreeMap<String, DestinationStatus> = BTreeMap::new();
        for (name, kind, standing) in &self.seen.lock().couriers {
            let mut status = empty(name, kind);
            status.standing = standing.word().to_owned();
            status.reason = reason(*standing).map(str::to_owned);
            status.rate = self.rate(name);
            all.insert(name.clone(), status);
        }
        for count in counts {
            // A destination that was taken out of the configuration may still be owed something.
            let status = all.entry(count.destination.clone()).or_insert_with(|| {
                let mut gone = empty(&count.destination, "");
                gone.standing = "gone".to_owned();
                gone.reason = Some("not configured any more: what it is owed waits".to_owned());
                gone
            });
            status.deliveries.insert(count.state.word().to_owned(), count.deliveries);
            if !count.state.is_end()
                && let Some(oldest) = count.oldest
            {
                let age = (now.as_second() - oldest.as_second()).max(0);
                status.oldest_seconds = Some(status.oldest_seconds.map_or(age, |known| known.max(age)));
                status.ages.insert(count.state.word().to_owned(), age);
            }
        }
        all.into_values().collect()
    }

    async fn journal(&self) -> JournalStatus {
        let stats = self.parts.journal.stats().await.unwrap_or_default();
        JournalStatus {
            open: !self.parts.journal.is_closed(),
            last: stats.last.0,
            first: stats.first.map(|first| first.0),
            quarantined: stats.quarantined,
            paused: self.parts.journal.paused(),
            disk_bytes: stats.disk_bytes,
        }
    }

    fn rate(&self, destination: &str) -> Option<String> {
        let live = self.parts.pipeline.live();
        let config = live.config.destinations.iter().find(|config| config.name == destination)?;
        config.rate.map(|rate| rate.to_string())
    }

    fn lane(&self, Waiting { delivery, behind }: Waiting) -> Lane {
        // Keyed: a plain hash of a number of ten digits is found again by trying them all.
        let lane = uuid::Uuid::new_v5(&self.key, delivery.lanes.concat().as_bytes()).simple().to_string();
        Lane {
            destination: delivery.id.destination,
            route: delivery.id.route,
            sequence: delivery.id.sequence.0,
            lane: lane.get(..8).unwrap_or_default().to_owned(),
            state: delivery.state,
            since: delivery.at,
            attempts: delivery.attempts,
            class: delivery.class.map(|class| class.word().to_owned()),
            reason: delivery.reason,
            behind,
        }
    }

    fn routes(&self) -> Vec<RouteStatus> {
        let live = self.parts.pipeline.live();
        let status = |route: &crate::routing::Route| RouteStatus {
            name: route.name.clone(),
            about: route.about.clone(),
            from: route.from.clone(),
            map: route.map.clone(),
            to: route.to.iter().map(|to| to.destination.clone()).collect(),
        };
        live.routes.iter().map(status).collect()
    }
}

fn reason(standing: Standing) -> Option<&'static str> {
    match standing {
        Standing::Closed => None,
        Standing::Open => Some("one probe at a time until it answers"),
        Standing::Held => Some("its configuration (credentials, address, certificate) needs a person"),
        Standing::Maintenance => Some("in a maintenance window: everything waits in order"),
        Standing::Paused => Some("by its configuration (`paused`): everything waits in order"),
        Standing::Full => {
            Some("too many lanes wait for a person: nothing behind them is read until some are decided")
        }
    }
}

fn empty(name: &str, kind: &str) -> DestinationStatus {
    DestinationStatus {
        name: name.to_owned(),
        kind: kind.to_owned(),
        standing: Standing::Closed.word().to_owned(),
        rate: None,
        reason: None,
        deliveries: BTreeMap::new(),
        oldest_seconds: None,
        ages: BTreeMap::new(),
    }
}

#[async_trait]
impl admin::Engine for Surface {
    fn readiness(&self) -> Readiness {
        let seen = self.seen.lock();
        if self.parts.journal.is_closed() {
            return Readiness::not("the journal is closed");
        }
        if self.parts.room.disk_is_low() {
            return Readiness::not(
                "the journal's disk is nearly full: messages are refused until there is room",
            );
        }
        match seen.phase {
            Phase::Starting => Readiness::not("starting"),
            Phase::Draining => Readiness::not("draining"),
            Phase::Running => {
                let reasons: Vec<_> = seen
                    .listeners
                    .iter()
                    .filter(|listener| !listener.serving)
                    .map(|listener| match &listener.reason {
                        Some(reason) => format!("listener {}: {reason}", listener.name),
                        None => format!("listener {} does not serve yet", listener.name),
                    })
                    .collect();
                Readiness { ready: reasons.is_empty(), reasons }
            }
        }
    }

    async fn status(&self) -> Status {
        let counts = self.parts.journal.counts().await.unwrap_or_default();
        let live = self.parts.pipeline.live();
        let (live_since, last_reload, listeners) = {
            let seen = self.seen.lock();
            (seen.live_since, seen.last_reload.clone(), seen.listeners.clone())
        };
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            environment: live.config.environment.word().to_owned(),
            started: self.started,
            readiness: self.readiness(),
            revision: RevisionStatus {
                id: live.id.clone(),
                git_commit: live.git_commit.clone(),
                since: live_since,
            },
            last_reload,
            journal: self.journal().await,
            listeners,
            routes: self.routes(),
            destinations: self.destinations(counts),
        }
    }

    async fn search(&self, query: &Query<'_>, before: Sequence, limit: usize) -> Result<Page, JournalError> {
        self.parts.journal.search(query, before, limit).await
    }

    async fn oldest(&self) -> Result<Option<Timestamp>, JournalError> {
        let Some(first) = self.parts.journal.stats().await?.first else { return Ok(None) };
        Ok(self.parts.journal.message(first).await?.map(|message| message.received))
    }

    async fn message(
        &self,
        sequence: Sequence,
    ) -> Result<Option<(Summary, Vec<DeliveryRecord>)>, JournalError> {
        match self.parts.journal.message(sequence).await? {
            Some(summary) => Ok(Some((summary, self.parts.journal.deliveries(sequence).await?))),
            None => Ok(None),
        }
    }

    async fn trace(&self, control_id: &str) -> Result<Vec<(Summary, Vec<DeliveryRecord>)>, JournalError> {
        let mut traced = Vec::new();
        for summary in self.parts.journal.find(Key::ControlId(control_id), admin::TRACED).await? {
            let deliveries = self.parts.journal.deliveries(summary.sequence).await?;
            traced.push((summary, deliveries));
        }
        Ok(traced)
    }

    async fn sent(&self, delivery: &DeliveryId) -> Result<Vec<Payload>, JournalError> {
        Ok(self.parts.journal.exchange(delivery).await?.map_or_else(Vec::new, |exchange| exchange.output))
    }

    async fn decide(&self, decision: Decision, request: &Requeue) -> Result<Requeued, JournalError> {
        let done = self.parts.journal.decide(decision, request).await?;
        let (action, deliveries, dry_run) = (decision.word(), done.deliveries, request.dry_run);
        tracing::info!(action, deliveries, dry_run, who = request.who, "a person has decided");
        Ok(done)
    }

    async fn lanes(&self, destination: Option<&str>, limit: usize) -> Result<Lanes, JournalError> {
        let list = self.parts.journal.waiting(destination, limit).await?;
        let lanes = list.lanes.into_iter().map(|waiting| self.lane(waiting)).collect();
        Ok(Lanes { lanes, complete: list.complete, counted_all: list.counted_all })
    }

    async fn audit(&self, limit: usize) -> Result<Vec<Audit>, JournalError> {
        self.parts.journal.audit(limit).await
    }

    async fn resume(&self, audit: Audit) -> Result<bool, JournalError> {
        self.parts.journal.resume(audit).await
    }

    async fn reload(&self) -> ReloadStatus {
        let (answer, answered) = oneshot::channel();
        let refused = || ReloadStatus {
            at: self.parts.clock.now(),
            result: ReloadResult::Refused,
            revision: None,
            problems: vec![crate::error::Problem::error("the engine is stopping")],
        };
        if self.ask.send(answer).await.is_err() {
            return refused();
        }
        answered.await.unwrap_or_else(|_| refused())
    }

    fn now(&self) -> Timestamp {
        self.parts.clock.now()
    }
}
