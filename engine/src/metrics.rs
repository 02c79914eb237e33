//! The one list of metrics: what the engine counts and times, under which name, with which help.
//!
//! Promises: a metric that is not in [`LIST`] does not exist; labels take names from the configuration and small
//! enumerations only, never anything that a sender chose; nothing here holds patient data. The registry is
//! passed in. Adding a metric is one line in the list and one method named for what happened.
//! Left to others: when things happen (the stages), serving the figures (admin).

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::Collector,
};

/// What is known about a metric without running anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Described {
    /// The name as Prometheus sees it.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// What it says, in one sentence.
    pub help: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
}

/// Waiting for the disk or for a mapping: 50 µs to 5 s.
const FAST_SECONDS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];
/// One exchange with another system: 1 ms to a minute.
const REMOTE_SECONDS: &[f64] =
    &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// From receipt to delivery: 10 ms to a day.
const ROAD_SECONDS: &[f64] =
    &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1_800.0, 7_200.0, 28_800.0, 86_400.0];
/// How many changes share one transaction.
const BATCH: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0];

macro_rules! metrics {
    ($($field:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal $(in $buckets:ident)?;)*) => {
        /// Every metric there is.
        pub const LIST: &[Described] = &[
            $(Described { name: $name, kind: stringify!($kind), help: $help, labels: &[$($label),*] }),*
        ];

        /// The engine's metrics, registered once.
        #[derive(Debug, Clone)]
        pub struct Metrics {
            $($field: metrics!(@type $kind),)*
        }

        impl Metrics {
            /// Makes the metrics and registers them.
            ///
            /// # Errors
            /// When the registry already holds one of the names.
            pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
                Ok(Self {
                    $($field: registered(registry, metrics!(@make $kind $name [$($label),*] $help $($buckets)?))?,)*
                })
            }
        }
    };
    (@type counter) => { IntCounterVec };
    (@type gauge) => { IntGaugeVec };
    (@type histogram) => { HistogramVec };
    (@make counter $name:literal [$($label:literal),*] $help:literal) => {
        IntCounterVec::new(Opts::new($name, $help), &[$($label),*])?
    };
    (@make gauge $name:literal [$($label:literal),*] $help:literal) => {
        IntGaugeVec::new(Opts::new($name, $help), &[$($label),*])?
    };
    (@make histogram $name:literal [$($label:literal),*] $help:literal $buckets:ident) => {
        HistogramVec::new(HistogramOpts::new($name, $help).buckets($buckets.to_vec()), &[$($label),*])?
    };
}

metrics! {
    // Intake.
    received: counter "tie_messages_received_total" ["listener", "class"]
        "Messages that were handed in and are in the journal, by message class (ADT, ORU, …).";
    last_received: gauge "tie_last_message_received_timestamp_seconds" ["listener"]
        "When the last message came in, in Unix time; a feed that has fallen silent stands still.";
    acknowledged: counter "tie_acknowledgements_total" ["listener", "code"]
        "Acknowledgements given, by code of HL7 table 0008.";
    quarantined: counter "tie_messages_quarantined_total" ["listener"]
        "Messages kept for a person because no parser or no route could take them.";
    duplicates: counter "tie_messages_duplicate_total" ["listener"]
        "Messages that were the repeat of a stored one: answered as it was, and not stored or run again.";
    reused: counter "tie_control_ids_reused_total" ["listener"]
        "Messages that were taken although their source had used their control id for other content.";
    refused: counter "tie_refusals_total" ["listener", "reason"]
        "Input that was refused, by reason: no whole message, no room for it, or not of this instance.";
    connections: counter "tie_connections_total" ["listener"]
        "Connections that were opened.";
    connections_open: gauge "tie_connections_open" ["listener"]
        "Connections that are open now.";
    junk: counter "tie_junk_bytes_total" ["listener"]
        "Bytes outside any frame that were passed over.";
    accept: histogram "tie_accept_seconds" ["listener"]
        "From the last byte of a message to its acknowledgement." in FAST_SECONDS;

    // Journal.
    append: histogram "tie_journal_append_seconds" []
        "How long one change waited until it was on stable storage." in FAST_SECONDS;
    commit: histogram "tie_journal_commit_seconds" []
        "How long one transaction took to write and sync." in FAST_SECONDS;
    commit_batch: histogram "tie_journal_commit_batch_changes" []
        "How many changes shared one transaction." in BATCH;
    journal_open: gauge "tie_journal_open" []
        "1 while changes can be made durable, 0 after the journal has failed.";
    disk_free: gauge "tie_journal_disk_free_bytes" []
        "What is free on the journal's disk.";
    disk_low: gauge "tie_journal_disk_low" []
        "1 while messages are refused because the journal's disk has less free than the reserve.";
    journal_bytes: gauge "tie_journal_bytes" []
        "Size of the journal on disk.";
    pruned: counter "tie_journal_pruned_total" ["part"]
        "Messages that retention has removed (`message`), and those that it took only the bytes of (`body`).";
    paused: gauge "tie_journal_paused" []
        "1 while nothing is delivered since the journal was restored, until a person resumes it.";

    // Mapping.
    mapping: histogram "tie_mapping_seconds" ["mapping", "result"]
        "How long a mapping ran, by what it decided." in FAST_SECONDS;
    remarks: counter "tie_mapping_remarks_total" ["mapping", "kind"]
        "What mappings noticed about messages that they mapped: a code that a table does not have (`unmapped`), what is doubtful (`doubtful`), what a script said (`said`).";

    // Delivery.
    outcomes: counter "tie_deliveries_total" ["destination", "route", "state"]
        "States that deliveries have come to; filtered, delivered and dead are ends.";
    attempts: histogram "tie_delivery_attempt_seconds" ["destination", "result"]
        "How long one attempt took; the result is ok or how the error was classed." in REMOTE_SECONDS;
    road: histogram "tie_delivery_lag_seconds" ["destination"]
        "From the receipt of a message to its delivery." in ROAD_SECONDS;
    pending: gauge "tie_deliveries_pending" ["destination", "state"]
        "Unfinished deliveries by state: ready, retrying, parked, held.";
    oldest: gauge "tie_delivery_oldest_seconds" ["destination", "state"]
        "Age of the oldest unfinished delivery in each state, 0 when there is none.";
    standing: gauge "tie_destination_standing" ["destination", "standing"]
        "1 for how the destination stands now: delivering, away, held, maintenance or paused; 0 for the others.";
    decided: counter "tie_operator_actions_total" ["action"]
        "Deliveries that a person has replayed, released or skipped.";

    // Configuration.
    reloads: counter "tie_reloads_total" ["result"]
        "Changes of the configuration, by result: live, unchanged or refused.";
    reload_failed: gauge "tie_configuration_refused" []
        "1 while the configuration on disk is not the one that is live because it was refused.";
    revision: gauge "tie_revision_info" ["revision", "git_commit"]
        "Always 1; its labels name the revision that is live.";
    build: gauge "tie_build_info" ["version"]
        "Always 1; its label names the version of the program.";
}

/// The message codes that are told apart; all others count as `other`, since a sender could write anything.
const CLASSES: &[&str] = &[
    "ADT", "ORU", "ORM", "OML", "OMG", "ORR", "ORL", "OUL", "MDM", "SIU", "SRM", "SQM", "VXU", "VXQ", "RDE",
    "RDS", "RAS", "RGV", "BAR", "DFT", "REF", "RRI", "PPR", "MFN", "QBP", "RSP", "ACK",
];

/// The class of a message for a label: its code (MSH-9.1) if it is a usual one, else `other`.
pub fn message_class(code: &str) -> &'static str {
    CLASSES.iter().copied().find(|class| class.eq_ignore_ascii_case(code)).unwrap_or("other")
}

/// What the intake and the listeners do.
impl Metrics {
    /// A message was taken; `code` is MSH-9.1, `at` the time in Unix seconds.
    pub fn received(&self, listener: &str, code: &str, at_unix_seconds: i64) {
        count(&self.received, &[listener, message_class(code)]).inc();
        gauge(&self.last_received, &[listener]).set(at_unix_seconds);
    }

    /// An acknowledgement was given: `AA`, `AE`, `AR`, `CA`, `CE`, `CR`.
    pub fn acknowledged(&self, listener: &str, code: &'static str) {
        count(&self.acknowledged, &[listener, code]).inc();
    }

    /// A message was put in quarantine.
    pub fn quarantined(&self, listener: &str) {
        count(&self.quarantined, &[listener]).inc();
    }

    /// A message was a repeat of a stored one.
    pub fn duplicate(&self, listener: &str) {
        count(&self.duplicates, &[listener]).inc();
    }

    /// A message came with the control id of another, and other content.
    pub fn control_id_reused(&self, listener: &str) {
        count(&self.reused, &[listener]).inc();
    }

    /// Input was refused before it became a message.
    pub fn refused(&self, listener: &str, reason: &'static str) {
        count(&self.refused, &[listener, reason]).inc();
    }

    /// A connection was opened.
    pub fn connected(&self, listener: &str) {
        count(&self.connections, &[listener]).inc();
        gauge(&self.connections_open, &[listener]).inc();
    }

    /// A connection was closed.
    pub fn disconnected(&self, listener: &str) {
        gauge(&self.connections_open, &[listener]).dec();
    }

    /// Bytes outside any frame were passed over.
    pub fn junk_bytes(&self, listener: &str, bytes: usize) {
        count(&self.junk, &[listener]).inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// A message was acknowledged this long after its last byte.
    pub fn accept_seconds(&self, listener: &str, seconds: f64) {
        histogram(&self.accept, &[listener]).observe(seconds);
    }
}

/// What the journal and the mappings do.
impl Metrics {
    /// A change was made durable after waiting this long.
    pub fn append_seconds(&self, seconds: f64) {
        histogram(&self.append, &[]).observe(seconds);
    }

    /// A transaction was written and synced.
    pub fn committed(&self, changes: usize, seconds: f64) {
        histogram(&self.commit, &[]).observe(seconds);
        #[allow(clippy::cast_precision_loss)] // a batch has a few thousand changes at most
        histogram(&self.commit_batch, &[]).observe(changes as f64);
    }

    /// The journal was opened, or has failed and is closed.
    pub fn journal_open(&self, open: bool) {
        gauge(&self.journal_open, &[]).set(i64::from(open));
    }

    /// The journal's disk has so much free, and messages are refused because of it or not.
    pub fn disk(&self, free_bytes: u64, low: bool) {
        gauge(&self.disk_free, &[]).set(i64::try_from(free_bytes).unwrap_or(i64::MAX));
        gauge(&self.disk_low, &[]).set(i64::from(low));
    }

    /// Retention has removed so many messages (`message`) or bodies (`body`).
    pub fn pruned(&self, part: &'static str, messages: u64) {
        count(&self.pruned, &[part]).inc_by(messages);
    }

    /// The journal is paused, or goes on.
    pub fn journal_paused(&self, paused: bool) {
        gauge(&self.paused, &[]).set(i64::from(paused));
    }

    /// The journal has this size on disk.
    pub fn journal_bytes(&self, bytes: u64) {
        gauge(&self.journal_bytes, &[]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// A mapping ran; `result` is `sent`, `filtered`, `held` or `dead`.
    pub fn mapped(&self, mapping: &str, result: &'static str, seconds: f64) {
        histogram(&self.mapping, &[mapping, result]).observe(seconds);
    }

    /// A mapping has noticed something; `kind` as [`crate::delivery::Remark`] has it.
    pub fn remarked(&self, mapping: &str, kind: &'static str) {
        count(&self.remarks, &[mapping, kind]).inc();
    }
}

/// What the delivery does.
impl Metrics {
    /// A delivery has come to a state.
    pub fn outcome(&self, destination: &str, route: &str, state: &'static str) {
        count(&self.outcomes, &[destination, route, state]).inc();
    }

    /// An attempt was made; `result` is `ok` or the word of the error class.
    pub fn attempt(&self, destination: &str, result: &'static str, seconds: f64) {
        histogram(&self.attempts, &[destination, result]).observe(seconds);
    }

    /// A message was delivered this long after it was received.
    pub fn delivered_after(&self, destination: &str, seconds: f64) {
        histogram(&self.road, &[destination]).observe(seconds);
    }

    /// So many deliveries are unfinished in this state.
    pub fn pending(&self, destination: &str, state: &'static str, deliveries: u64) {
        gauge(&self.pending, &[destination, state]).set(i64::try_from(deliveries).unwrap_or(i64::MAX));
    }

    /// The oldest unfinished delivery in this state has this age; 0 when there is none.
    pub fn oldest_seconds(&self, destination: &str, state: &'static str, seconds: i64) {
        gauge(&self.oldest, &[destination, state]).set(seconds);
    }

    /// Whether the destination stands so now.
    pub fn standing(&self, destination: &str, standing: &'static str, so: bool) {
        gauge(&self.standing, &[destination, standing]).set(i64::from(so));
    }

    /// A person decided about deliveries: `replay`, `release` or `skip`.
    pub fn decided(&self, action: &'static str, deliveries: u64) {
        count(&self.decided, &[action]).inc_by(deliveries);
    }
}

/// What the supervisor does.
impl Metrics {
    /// A change of the configuration ended; `result` is `live`, `unchanged` or `refused`.
    pub fn reload(&self, result: &'static str) {
        count(&self.reloads, &[result]).inc();
        gauge(&self.reload_failed, &[]).set(i64::from(result == "refused"));
    }

    /// This revision is live, and no other.
    pub fn revision_info(&self, revision: &str, git_commit: Option<&str>) {
        self.revision.reset();
        gauge(&self.revision, &[revision, git_commit.unwrap_or("")]).set(1);
    }

    /// This version of the program runs.
    pub fn build_info(&self, version: &str) {
        gauge(&self.build, &[version]).set(1);
    }
}

fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    metric: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

// `with_label_values` panics when the number of labels is wrong. Labels are given in this file alone, and its test
// calls every method.

fn count(metric: &IntCounterVec, labels: &[&str]) -> IntCounter {
    metric.with_label_values(labels)
}

fn gauge(metric: &IntGaugeVec, labels: &[&str]) -> IntGauge {
    metric.with_label_values(labels)
}

fn histogram(metric: &HistogramVec, labels: &[&str]) -> Histogram {
    metric.with_label_values(labels)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prometheus::TextEncoder;

    use super::*;

    /// Calls every method once.
    fn everything_happens(metrics: &Metrics) {
        metrics.received("hospital", "ADT", 1_700_000_000);
        metrics.acknowledged("hospital", "AA");
        metrics.quarantined("hospital");
        metrics.duplicate("hospital");
        metrics.control_id_reused("hospital");
        metrics.refused("hospital", "too-large");
        metrics.connected("hospital");
        metrics.connected("hospital");
        metrics.disconnected("hospital");
        metrics.junk_bytes("hospital", 3);
        metrics.accept_seconds("hospital", 0.001);
        metrics.append_seconds(0.001);
        metrics.committed(3, 0.001);
        metrics.journal_open(true);
        metrics.journal_bytes(4096);
        metrics.disk(1 << 30, false);
        metrics.pruned("body", 3);
        metrics.journal_paused(false);
        metrics.mapped("adt", "sent", 0.000_1);
        metrics.remarked("adt", "unmapped");
        metrics.outcome("record", "adt", "delivered");
        metrics.attempt("record", "ok", 0.01);
        metrics.delivered_after("record", 0.2);
        metrics.pending("record", "ready", 7);
        metrics.oldest_seconds("record", "parked", 12);
        metrics.standing("record", "away", true);
        metrics.decided("replay", 2);
        metrics.reload("live");
        metrics.revision_info("abc", None);
        metrics.build_info("0.1.0");
    }

    fn printed(registry: &Registry) -> String {
        TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
    }

    #[test]
    fn every_metric_in_the_list_is_fed_by_a_method_and_served_with_its_help() {
        let registry = Registry::new();
        everything_happens(&Metrics::new(&registry).unwrap());
        let families = registry.gather();
        let served: BTreeSet<_> = families.iter().map(|family| family.name()).collect();
        let listed: BTreeSet<_> = LIST.iter().map(|metric| metric.name).collect();
        assert_eq!(served, listed);
        let text = printed(&registry);
        assert!(text.contains("tie_connections_open{listener=\"hospital\"} 1\n"), "{text}");
        assert!(text.contains("tie_junk_bytes_total{listener=\"hospital\"} 3\n"), "{text}");
        assert!(text.contains("tie_journal_commit_batch_changes_bucket{le=\"4\"} 1\n"), "{text}");
    }

    #[test]
    fn names_and_helps_follow_the_conventions_of_prometheus() {
        let mut seen = BTreeSet::new();
        for metric in LIST {
            let name = metric.name;
            assert!(seen.insert(name), "{name} is listed twice");
            assert!(name.starts_with("tie_"), "{name}");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
            assert_eq!(
                name.ends_with("_total"),
                metric.kind == "counter",
                "{name}: counters end in _total, others do not"
            );
            assert!(!["_count", "_sum", "_bucket"].iter().any(|end| name.ends_with(end)), "{name}");
            assert!(
                !["_ms", "_millis", "_kb", "_mb", "_minutes"].iter().any(|unit| name.contains(unit)),
                "{name}: base units"
            );
            if metric.kind == "histogram" {
                assert!(
                    ["_seconds", "_changes", "_bytes"].iter().any(|unit| name.ends_with(unit)),
                    "{name}: unit last"
                );
            }
            assert!(metric.help.ends_with('.') && metric.help.len() > 20, "{name} needs a sentence of help");
            assert!(!metric.labels.contains(&"le"), "{name}: le belongs to histograms");
        }
    }

    #[test]
    fn buckets_rise() {
        for buckets in [FAST_SECONDS, REMOTE_SECONDS, ROAD_SECONDS, BATCH] {
            assert!(buckets.is_sorted_by(|a, b| a < b), "{buckets:?}");
        }
    }

    #[test]
    fn a_sender_cannot_make_labels() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        for code in ["adt", "ADT", "JONES^ALAN", "", "Z99"] {
            metrics.received("hospital", code, 0);
        }
        let text = printed(&registry);
        assert!(text.contains("class=\"ADT\",listener=\"hospital\"} 2\n"), "{text}");
        assert!(text.contains("class=\"other\",listener=\"hospital\"} 3\n"), "{text}");
        assert!(!text.contains("JONES"), "{text}");
    }

    #[test]
    fn only_one_revision_is_live() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        metrics.revision_info("first", Some("0123abcd"));
        metrics.revision_info("second", None);
        let text = printed(&registry);
        assert!(text.contains("revision=\"second\"} 1\n") && !text.contains("first"), "{text}");
        metrics.reload("refused");
        assert!(printed(&registry).contains("tie_configuration_refused 1\n"));
        metrics.reload("live");
        assert!(printed(&registry).contains("tie_configuration_refused 0\n"));
    }
}
