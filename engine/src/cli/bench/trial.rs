//! One trial: warm up, load, wait until all is delivered and the engine rests, stop, measure the floors.
//!
//! What a message costs is counted from the first sending until the engine rests, over all messages of the trial: an
//! engine that acknowledges faster than it delivers gets nothing for free.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tokio::time::sleep;

use super::{
    Failure, Options,
    database::{Database, Work},
    direct::{Posted, Posts},
    figures::Figures,
    floor::{self, Disk},
    histogram::Latency,
    load::Loaded,
    messages::Kind,
    parts::Client,
    readings::{self, Reading},
    scenario::{Scenario, Standing},
    stage::Stage,
};

/// How long each floor is measured.
const FLOOR: Duration = Duration::from_secs(2);
/// A document comes so often, a second.
const DOCUMENTS: f64 = 0.5;
/// Those that come while a backlog is worked off are late at most by so much of a second's messages.
const BEHIND: f64 = 0.25;

/// What the loading of a scenario has told.
struct Measured {
    /// The messages whose acknowledgements are told of.
    loaded: Loaded,
    /// Messages that the account from `before` to `rested` is for.
    messages: u64,
    before: Moment,
    /// When the sending ended.
    ended: Moment,
    rested: Moment,
    /// Messages that had arrived everywhere when the sending ended.
    in_time: Option<u64>,
    /// Seconds from the first sending until everything had arrived.
    arrived_after: Option<f64>,
    end_to_end: Option<Latency>,
    more: Map<String, Value>,
}

/// A reading of the engine and of its database server.
struct Moment {
    engine: Reading,
    server: Option<Work>,
}

impl Moment {
    async fn now(stage: &Stage<'_>) -> Result<Self, Failure> {
        let server = match stage.database {
            Some(database) => Some(database.work().await?),
            None => None,
        };
        Ok(Self { engine: Reading::take(&stage.engine)?, server })
    }
}

/// Runs one.
pub(super) async fn run(
    options: &Options,
    scenario: Scenario,
    connections: u32,
    database: Option<&Database>,
) -> Result<Figures, Failure> {
    let mut stage = Stage::start(options, scenario, connections, database).await?;
    let measured = match scenario {
        Scenario::Document => among_documents(options, &mut stage).await?,
        Scenario::Drain => drained(options, &mut stage).await?,
        Scenario::Down | Scenario::Accept => kept(options, &mut stage).await?,
        Scenario::Adt | Scenario::Oru | Scenario::Mix | Scenario::Single => {
            steady(options, &mut stage).await?
        }
    };
    let mut figures = told(options, scenario, connections, &stage, measured)?;
    close(options, stage, &mut figures).await?;
    Ok(figures)
}

/// Everything is delivered, and the engine rests.
async fn settled(stage: &Stage<'_>) -> Result<(), Failure> {
    stage.delivered().await?;
    stage.rest().await;
    stage.reset()
}

async fn warm_up(options: &Options, stage: &mut Stage<'_>) -> Result<(), Failure> {
    let mut plan = stage.plan();
    plan.seconds = Some(options.warm_up);
    stage.load(&plan).await.map(drop)
}

/// As fast as messages are acknowledged, to destinations that answer.
async fn steady(options: &Options, stage: &mut Stage<'_>) -> Result<Measured, Failure> {
    warm_up(options, stage).await?;
    settled(stage).await?;
    let first = stage.acknowledged;
    let before = Moment::now(stage).await?;
    let mut plan = stage.plan();
    plan.seconds = Some(options.seconds);
    let loaded = stage.load(&plan).await?;
    let in_time = stage.arrived_everywhere()?.saturating_sub(first);
    let ended = Moment::now(stage).await?;
    stage.delivered().await?;
    let arrived_after = before.engine.at.elapsed().as_secs_f64();
    stage.rest().await;
    Ok(Measured {
        messages: loaded.acknowledged,
        loaded,
        before,
        ended,
        rested: Moment::now(stage).await?,
        in_time: Some(in_time),
        arrived_after: Some(arrived_after),
        end_to_end: stage.slowest(None)?,
        more: Map::new(),
    })
}

/// As fast as messages are acknowledged, while nothing is delivered.
async fn kept(options: &Options, stage: &mut Stage<'_>) -> Result<Measured, Failure> {
    warm_up(options, stage).await?;
    stage.rest().await;
    let before = Moment::now(stage).await?;
    let mut plan = stage.plan();
    plan.seconds = Some(options.seconds);
    let loaded = stage.load(&plan).await?;
    let ended = Moment::now(stage).await?;
    stage.waits().await?;
    stage.rest().await;
    Ok(Measured {
        messages: loaded.acknowledged,
        loaded,
        before,
        ended,
        rested: Moment::now(stage).await?,
        in_time: None,
        arrived_after: None,
        end_to_end: None,
        more: Map::from_iter([("waiting".to_owned(), json!(stage.acknowledged))]),
    })
}

/// At a steady rate: first alone, then beside documents.
async fn among_documents(options: &Options, stage: &mut Stage<'_>) -> Result<Measured, Failure> {
    let rate = options.rate.or(Scenario::Document.rate());
    warm_up(options, stage).await?;
    settled(stage).await?;
    let mut plan = stage.plan();
    (plan.seconds, plan.rate) = (Some(options.seconds), rate);
    let alone = stage.load(&plan).await?;
    stage.delivered().await?;
    let alone_end_to_end = stage.slowest(Some(Kind::Adt))?;
    settled(stage).await?;

    let (first, before) = (stage.acknowledged, Moment::now(stage).await?);
    let (mut plan, mut letters) = (stage.plan(), stage.plan());
    (plan.seconds, plan.rate) = (Some(options.seconds), rate);
    letters.kinds = vec![Kind::Document];
    (letters.connections, letters.seconds, letters.rate) = (1, Some(options.seconds), Some(DOCUMENTS));
    let beside = Client::start("load", &letters).await?;
    let loaded = stage.load(&plan).await?;
    let documents = stage.account(beside.ended().await?)?;
    let in_time = stage.arrived_everywhere()?.saturating_sub(first);
    let ended = Moment::now(stage).await?;
    stage.delivered().await?;
    let arrived_after = before.engine.at.elapsed().as_secs_f64();
    stage.rest().await;
    let more = json!({
        "rate": rate,
        "documents": documents.acknowledged,
        "document_bytes": documents.bytes / documents.acknowledged.max(1),
        "document_acknowledgement_ms": documents.acknowledgement,
        "document_end_to_end_ms": stage.slowest(Some(Kind::Document))?,
        "alone_acknowledgement_ms": alone.acknowledgement,
        "alone_end_to_end_ms": alone_end_to_end,
        "acknowledgement_p99_over_alone": over(loaded.acknowledgement.p99, alone.acknowledgement.p99),
    });
    Ok(Measured {
        messages: loaded.acknowledged + documents.acknowledged,
        loaded,
        before,
        ended,
        rested: Moment::now(stage).await?,
        in_time: Some(in_time),
        arrived_after: Some(arrived_after),
        end_to_end: stage.slowest(Some(Kind::Adt))?,
        more: members(more),
    })
}

/// A backlog is built, then worked off while messages keep coming.
async fn drained(options: &Options, stage: &mut Stage<'_>) -> Result<Measured, Failure> {
    let before = Moment::now(stage).await?;
    let mut plan = stage.plan();
    plan.messages = Some(options.backlog);
    let built = stage.load(&plan).await?;
    stage.waits().await?;
    let rate = options.rate.or(Scenario::Drain.rate()).unwrap_or(1.0);
    let mut plan = stage.plan();
    plan.rate = Some(rate);
    plan.connections = plan.connections.min(8);
    stage.unpause()?;
    let (began, working) = (Instant::now(), Moment::now(stage).await?);
    let beside = Client::start("load", &plan).await?;
    let arrived = caught_up(stage, built.acknowledged, rate, began).await?;
    let took = began.elapsed().as_secs_f64();
    let ended = Moment::now(stage).await?;
    let loaded = stage.account(beside.stop().await?)?;
    stage.delivered().await?;
    let arrived_after = before.engine.at.elapsed().as_secs_f64();
    stage.rest().await;
    let cpu = working.engine.cpu_seconds.zip(ended.engine.cpu_seconds);
    let more = json!({
        "rate": rate,
        "backlog_built": built.acknowledged,
        "built_per_second": built.acknowledged as f64 / built.seconds,
        "built_acknowledgement_ms": built.acknowledgement,
        "drained_per_second": arrived as f64 / took,
        "caught_up_after_seconds": took,
        "drain_cpu_ms_per_message": cpu.map(|(from, to)| (to - from) * 1000.0 / arrived as f64),
    });
    Ok(Measured {
        messages: built.acknowledged + loaded.acknowledged,
        loaded,
        before,
        ended,
        rested: Moment::now(stage).await?,
        in_time: None,
        arrived_after: Some(arrived_after),
        end_to_end: None,
        more: members(more),
    })
}

/// Waits until what arrives has caught up with what comes; how many have arrived.
async fn caught_up(stage: &Stage<'_>, backlog: u64, rate: f64, began: Instant) -> Result<u64, Failure> {
    let (mut seen, mut since) = (0, Instant::now());
    loop {
        let arrived = stage.arrived_everywhere()?;
        if arrived as f64 >= backlog as f64 + rate * (began.elapsed().as_secs_f64() - BEHIND) {
            return Ok(arrived);
        }
        if arrived > seen {
            (seen, since) = (arrived, Instant::now());
        }
        if since.elapsed() > Duration::from_secs(60) {
            return Err(Failure::Broken(format!(
                "the backlog is not worked off: {arrived} of {backlog} arrived"
            )));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

fn told(
    options: &Options,
    scenario: Scenario,
    connections: u32,
    stage: &Stage<'_>,
    measured: Measured,
) -> Result<Figures, Failure> {
    let Measured { loaded, messages, before, ended, rested, in_time, arrived_after, end_to_end, more } =
        measured;
    let arrived = stage.arrived()?;
    let each = |from: f64, to: f64| (to - from) / messages.max(1) as f64;
    let cpu = before.engine.cpu_seconds.zip(rested.engine.cpu_seconds);
    let written = match before.server.zip(rested.server) {
        Some((from, to)) => Some(each(from.wal_bytes, to.wal_bytes)),
        None => {
            let written = before.engine.written.zip(rested.engine.written);
            written.map(|(from, to)| each(from as f64, to as f64))
        }
    };
    let between = ended.engine.at.duration_since(before.engine.at).as_secs_f64();
    let commits = ended.engine.commits - before.engine.commits;
    let syncs = match before.server.zip(ended.server) {
        Some((from, to)) => from.syncs.zip(to.syncs).map(|(from, to)| to - from),
        None => Some(commits as f64),
    };
    let by_end = if scenario == Scenario::Drain { messages } else { loaded.acknowledged };
    Ok(Figures {
        scenario: scenario.name(),
        store: if stage.database.is_some() { "postgres" } else { "sqlite" },
        connections,
        destinations: options.destinations.unwrap_or(scenario.destinations()),
        seconds: loaded.seconds,
        message_bytes: loaded.bytes as f64 / loaded.acknowledged.max(1) as f64,
        acknowledged: messages,
        delivered: if scenario.standing() == Standing::Up || scenario == Scenario::Drain {
            messages
        } else {
            0
        },
        repeated: arrived.iter().map(|one| one.repeated).sum(),
        acknowledged_per_second: loaded.acknowledged as f64 / loaded.seconds,
        delivered_per_second: in_time.map(|in_time| in_time as f64 / loaded.seconds),
        road_per_second: arrived_after.map(|seconds| messages as f64 / seconds),
        backlog: in_time.map_or(0, |in_time| messages.saturating_sub(in_time)),
        acknowledgement_ms: loaded.acknowledgement,
        end_to_end_ms: end_to_end,
        engine_cpu_ms_per_message: cpu.map(|(from, to)| each(from, to) * 1000.0),
        resident_peak_bytes: readings::resident_peak(stage.engine.process),
        bytes_written_per_message: written,
        fsyncs_per_second: syncs.map(|syncs| syncs / between),
        messages_per_commit: by_end as f64 / commits.max(1) as f64,
        changes_per_commit: (ended.engine.changes - before.engine.changes) as f64 / commits.max(1) as f64,
        ready_after_ms: stage.engine.ready_after.as_secs_f64() * 1000.0,
        more,
        configuration: stage.configuration.clone(),
        ..Figures::default()
    })
}

/// Stops the engine, measures what is left of it, then the floors.
async fn close(options: &Options, stage: Stage<'_>, figures: &mut Figures) -> Result<(), Failure> {
    let (all, connections, database) = (stage.acknowledged, figures.connections, stage.database);
    let (sample, address) = (stage.sample()?, stage.receiver_address());
    let (scratch, receiver) = stage.stop().await?;
    let kept = match database {
        Some(database) => database.size().await?,
        None => readings::size(&scratch.home.join("journal")),
    };
    figures.bytes_kept_per_message = Some(kept as f64 / all.max(1) as f64);

    let batch = (figures.messages_per_commit.round() as u64).max(1);
    let (home, bytes) = (scratch.home.clone(), figures.message_bytes as u64);
    let length = FLOOR.min(Duration::from_secs_f64(options.seconds));
    let disk = tokio::task::spawn_blocking(move || floor::disk(&home, batch, bytes, length)).await;
    let disk: Disk = disk
        .unwrap_or_else(|error| Err(std::io::Error::other(error)))
        .map_err(|error| Failure::unable("the floor", &error))?;
    figures.acknowledged_over_floor = over(figures.acknowledged_per_second, disk.messages_per_second);
    figures.acknowledgement_over_sync = over(figures.acknowledgement_ms.p50, disk.sync_ms.p50);
    figures.floor_disk = Some(disk);
    if let (Some(address), false) = (address, sample.is_empty()) {
        figures.bundle_bytes = Some(sample.len() as u64);
        let seconds = length.as_secs_f64();
        let posts = Posts { address: address.to_string(), connections, seconds, body: sample };
        let posted: Posted = Client::start("direct", &posts).await?.ended().await?;
        figures.floor_posts_per_second = Some(posted.posts as f64 / posted.seconds);
    }
    drop(receiver);
    Ok(())
}

fn over(figure: f64, floor: f64) -> Option<f64> {
    (floor > 0.0).then(|| figure / floor)
}

fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}
