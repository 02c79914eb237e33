//! The figures of a trial, and the median of several.

use serde::Serialize;
use serde_json::Value;

use super::{bare::Bare, floor::Disk, histogram::Latency};

/// What one trial has measured. What the system does not tell, or a scenario does not have, is null.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Figures {
    /// Which scenario.
    pub scenario: &'static str,
    /// `sqlite` or `postgres`.
    pub store: &'static str,
    /// Connections of the load client.
    pub connections: u32,
    /// Destinations of each message.
    pub destinations: u8,
    /// How long messages were sent.
    pub seconds: f64,
    /// Bytes of a message.
    pub message_bytes: f64,
    /// Messages that were positively acknowledged in the measured time.
    pub acknowledged: u64,
    /// Of these, so many have arrived at every destination in the end.
    pub delivered: u64,
    /// Deliveries that came again.
    pub repeated: u64,
    /// Acknowledgements a second.
    pub acknowledged_per_second: f64,
    /// Messages a second that arrived at every destination, while messages were being sent.
    pub delivered_per_second: Option<f64>,
    /// Messages a second from the first sending until everything had arrived.
    pub road_per_second: Option<f64>,
    /// Acknowledged and not delivered when the sending ended.
    pub backlog: u64,
    /// From a message to its acknowledgement.
    pub acknowledgement_ms: Latency,
    /// From a message to its arrival; of the slowest destination.
    pub end_to_end_ms: Option<Latency>,
    /// User and system time of the engine, from the first sending until all was delivered and the engine rested, a message.
    pub engine_cpu_ms_per_message: Option<f64>,
    /// The most memory that the engine had resident.
    pub resident_peak_bytes: Option<u64>,
    /// Bytes that the engine gave to the file system for the disk (PostgreSQL: bytes of its log), a message.
    pub bytes_written_per_message: Option<f64>,
    /// Size of the journal after the stop, over all messages in it.
    pub bytes_kept_per_message: Option<f64>,
    /// Transactions of the engine's messages and outcomes a second; each is one sync.
    pub commits_per_second: f64,
    /// All syncs of the engine a second, counted by `perf` where that is allowed (PostgreSQL: of its log, by its own counter).
    pub fsyncs_per_second: Option<f64>,
    /// Messages for each commit; outcomes share the commits.
    pub messages_per_commit: f64,
    /// Acceptances and outcomes for each commit.
    pub changes_per_commit: f64,
    /// From the start of the process until it was ready.
    pub ready_after_ms: f64,
    /// Bytes of the bundle that came last.
    pub bundle_bytes: Option<u64>,
    /// The disk alone, with as many messages to a sync.
    pub floor_disk: Option<Disk>,
    /// The receiver alone: posts a second of the same bundle by as many connections.
    pub floor_posts_per_second: Option<f64>,
    /// Acknowledged a second, over what the disk alone can do.
    pub acknowledged_over_floor: Option<f64>,
    /// The median acknowledgement, over the median append and sync.
    pub acknowledgement_over_sync: Option<f64>,
    /// The bare road, where messages come as fast as they are acknowledged and from no backlog.
    pub floor_bare: Option<Bare>,
    /// Acknowledged a second, over what the bare road does.
    pub acknowledged_over_bare: Option<f64>,
    /// The median acknowledgement, over that of the bare road.
    pub acknowledgement_over_bare: Option<f64>,
    /// The engine's user and system time of a message, over that of the bare road.
    pub cpu_over_bare: Option<f64>,
    /// Messages a second until everything had arrived, over those of the bare road.
    pub road_over_bare: Option<f64>,
    /// What only this scenario measures.
    #[serde(flatten)]
    pub more: serde_json::Map<String, Value>,
    /// The `tie.toml` of the engine.
    pub configuration: String,
}

/// A figure as a part of its floor.
pub(super) fn over(figure: f64, floor: f64) -> Option<f64> {
    (floor > 0.0).then(|| figure / floor)
}

/// Number by number the median of several trials; all else as in the first.
pub(super) fn median(trials: &[Value]) -> Value {
    let Some(first) = trials.first() else { return Value::Null };
    match first {
        Value::Object(members) => {
            let one = |key: &String| -> Vec<Value> {
                trials.iter().filter_map(|trial| trial.get(key).cloned()).collect()
            };
            members.keys().map(|key| (key.clone(), median(&one(key)))).collect()
        }
        Value::Number(_) => middle(trials).unwrap_or_else(|| first.clone()),
        other => other.clone(),
    }
}

fn middle(numbers: &[Value]) -> Option<Value> {
    let mut sorted: Vec<&Value> = numbers.iter().filter(|value| value.is_number()).collect();
    sorted.sort_by(|one, two| one.as_f64().unwrap_or(0.0).total_cmp(&two.as_f64().unwrap_or(0.0)));
    sorted.get(sorted.len().saturating_sub(1) / 2).map(|value| (*value).clone())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_median_is_of_each_number() {
        let trials = [
            json!({"scenario": "adt", "rate": 3, "ms": {"p50": 1.5}, "none": null}),
            json!({"scenario": "adt", "rate": 1, "ms": {"p50": 0.5}, "none": null}),
            json!({"scenario": "adt", "rate": 2, "ms": {"p50": 9.5}, "none": null}),
        ];
        assert_eq!(median(&trials), json!({"scenario": "adt", "rate": 2, "ms": {"p50": 1.5}, "none": null}));
    }
}
