//! Admin: health, metrics, status, search and decisions over HTTP, for people and machines that look after the engine.
//!
//! In:       HTTP on the admin listener; an [`Engine`] to ask.
//! Out:      JSON, the Prometheus text format, one page for people.
//! Promise:  P6, P9. Nothing served holds patient data: no bodies, no patient keys, no lanes. Connections, request
//!           sizes and times are bounded. A page of another site can neither read (the host name must be known)
//!           nor change anything (a change needs JSON of our own origin).
//! Not here: accounts, so keep it on this machine; what the answers mean (the [`Engine`]).

mod api;
mod guard;
mod page;
mod search;
mod socket;
mod trace;
mod view;

use std::{io, net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    connector::Payload,
    journal::{
        Audit, Decision, DeliveryId, DeliveryRecord, JournalError, Page, Query, Requeue, Requeued, Sequence,
        Summary,
    },
};

pub use search::{SearchAnswer, SearchKey, SearchRequest};
pub use trace::{CONTROL_IDS, TRACED, Trace, TraceAnswer, TraceRequest, TracedDelivery, TracedMessage};
pub use view::{
    AuditLine, Audits, Counts, DecisionAnswer, DecisionRequest, Delivery, DeliveryName, DestinationStatus,
    Found, JournalStatus, Lane, Lanes, ListenerStatus, MessageView, Readiness, ReloadResult, ReloadStatus,
    RevisionStatus, RouteStatus, Status, callable,
};

/// What the admin pages ask. The supervisor answers.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Whether messages are taken now, and if not, why.
    fn readiness(&self) -> Readiness;

    /// Everything at a glance; as far as it can be told when something is broken.
    async fn status(&self) -> Status;

    /// Messages, the newest first: see [`crate::journal::Journal::search`].
    ///
    /// # Errors
    /// When the journal cannot be read.
    async fn search(&self, query: &Query<'_>, before: Sequence, limit: usize) -> Result<Page, JournalError>;

    /// When the oldest message was received that the journal still has.
    ///
    /// # Errors
    /// When the journal cannot be read.
    async fn oldest(&self) -> Result<Option<jiff::Timestamp>, JournalError>;

    /// One message with its deliveries.
    ///
    /// # Errors
    /// When the journal cannot be read.
    async fn message(
        &self,
        sequence: Sequence,
    ) -> Result<Option<(Summary, Vec<DeliveryRecord>)>, JournalError>;

    /// The messages with this MSH-10, the newest first, each with its deliveries.
    ///
    /// # Errors
    /// When the journal cannot be read.
    async fn trace(&self, control_id: &str) -> Result<Vec<(Summary, Vec<DeliveryRecord>)>, JournalError>;

    /// What a delivery sent.
    ///
    /// # Errors
    /// When the journal cannot be read, or what it kept is damaged.
    async fn sent(&self, delivery: &DeliveryId) -> Result<Vec<Payload>, JournalError>;

    /// Makes a person's decision about deliveries, or says which it would be made about.
    ///
    /// # Errors
    /// When the journal cannot be read or written.
    async fn decide(&self, decision: Decision, request: &Requeue) -> Result<Requeued, JournalError>;

    /// The lanes that wait, the oldest first.
    ///
    /// # Errors
    /// When the journal cannot be read.
    async fn lanes(&self, destination: Option<&str>, limit: usize) -> Result<Lanes, JournalError>;

    /// What persons have decided, the newest first.
    ///
    /// # Errors
    /// When the journal cannot be read.
    async fn audit(&self, limit: usize) -> Result<Vec<Audit>, JournalError>;

    /// Lets a paused journal deliver again; says whether it was paused.
    ///
    /// # Errors
    /// When the journal cannot be written.
    async fn resume(&self, audit: Audit) -> Result<bool, JournalError>;

    /// Reads the configuration again now; returns when it is live or refused.
    async fn reload(&self) -> ReloadStatus;

    /// The present moment.
    fn now(&self) -> jiff::Timestamp;
}

/// What the admin listener serves.
#[derive(Clone)]
pub struct Site {
    /// Whom to ask.
    pub engine: Arc<dyn Engine>,
    /// The metrics.
    pub registry: Registry,
    /// Host names by which it may be called, besides addresses and `localhost`.
    pub hosts: Vec<String>,
}

/// Opens the admin listener.
///
/// # Errors
/// When the address is taken or not ours.
pub async fn bind(listen: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(listen).await
}

/// Serves until `stop` is cancelled; then lets requests in hand finish.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(listener: TcpListener, site: Site, stop: CancellationToken) -> io::Result<()> {
    axum::serve(socket::Bounded::new(listener), api::router(site))
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

#[cfg(test)]
mod tests;
