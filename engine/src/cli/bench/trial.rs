//! One trial: warm up, load, wait until all is delivered and the engine rests, stop, measure the floors.
//!
//! What a message costs is counted from the first sending until the engine rests, over all messages of the trial: an
//! engine that acknowledges faster than it delivers gets nothing for free.

use std::time::Duration;

use serde_json::json;

use super::{
    Failure, Options,
    bare::Bare,
    direct::{Posted, Posts},
    figures::{Figures, over},
    floor::{self, Disk},
    ground::Ground,
    parts::Client,
    phases::{self, Measured, Moment},
    readings,
    scenario::{Scenario, Standing, Step},
    stage::Stage,
};

/// How long each floor is measured.
const FLOOR: Duration = Duration::from_secs(2);
/// How long the bare road is measured.
const BARE: Duration = Duration::from_secs(3);

/// Runs one.
pub(super) async fn run(
    options: &Options,
    scenario: Scenario,
    connections: u32,
    step: Step,
    ground: &mut Ground,
) -> Result<Figures, Failure> {
    if let Step::Stored(messages) = step {
        ground.fill(options, messages).await?;
    }
    let mut stage = Stage::start(options, scenario, connections, step, ground).await?;
    let measured = phases::load(scenario, options, &mut stage).await?;
    let mut figures = told(options, scenario, connections, &stage, measured)?;
    let stepped = match step {
        Step::Usual => None,
        Step::Stored(_) => Some(("stored", ground.stored())),
        Step::Routes(routes) => Some(("routes", routes.into())),
    };
    figures.more.extend(stepped.map(|(name, number)| (name.to_owned(), json!(number))));
    let sent = stage.acknowledged;
    close(options, scenario, stage, ground, &mut figures).await?;
    ground.sent(sent);
    Ok(figures)
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
    let between = ended.engine.at.duration_since(before.engine.at).as_secs_f64();
    let commits = ended.engine.commits - before.engine.commits;
    let by_end = if scenario == Scenario::Drain { messages } else { loaded.acknowledged };
    Ok(Figures {
        scenario: scenario.name(),
        store: if stage.database().is_some() { "postgres" } else { "sqlite" },
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
        bytes_written_per_message: written(&before, &rested).map(|bytes| bytes / messages.max(1) as f64),
        commits_per_second: commits as f64 / between,
        fsyncs_per_second: syncs(&before, &ended).map(|syncs| syncs / between),
        messages_per_commit: by_end as f64 / commits.max(1) as f64,
        changes_per_commit: (ended.engine.changes - before.engine.changes) as f64 / commits.max(1) as f64,
        ready_after_ms: stage.engine.ready_after.as_secs_f64() * 1000.0,
        more,
        configuration: stage.configuration.clone(),
        ..Figures::default()
    })
}

/// Bytes written between two moments: by the server to its log, or by the engine.
fn written(from: &Moment, to: &Moment) -> Option<f64> {
    match from.server.zip(to.server) {
        Some((from, to)) => Some(to.wal_bytes - from.wal_bytes),
        None => from.engine.written.zip(to.engine.written).map(|(from, to)| (to - from) as f64),
    }
}

/// Syncs between two moments: by the server's counter, or as they were counted.
fn syncs(from: &Moment, to: &Moment) -> Option<f64> {
    match from.server.zip(to.server) {
        Some((from, to)) => from.syncs.zip(to.syncs).map(|(from, to)| to - from),
        None => to.syncs.map(|syncs| syncs as f64),
    }
}

/// Stops the engine, measures what is left of it, then the floors.
async fn close(
    options: &Options,
    scenario: Scenario,
    mut stage: Stage<'_>,
    ground: &Ground,
    figures: &mut Figures,
) -> Result<(), Failure> {
    let (all, connections) = (ground.stored() + stage.acknowledged, figures.connections);
    let (sample, plans) = (stage.sample()?, [stage.plan(), stage.plan()]);
    let receiver = stage.stop().await?;
    let kept = match &ground.database {
        Some(database) => database.size().await?,
        None => readings::journal_bytes(&ground.scratch.home.join("journal")),
    };
    figures.bytes_kept_per_message = Some(kept as f64 / all.max(1) as f64);

    let batch = (figures.messages_per_commit.round() as u64).max(1);
    let (home, bytes) = (ground.scratch.home.clone(), figures.message_bytes as u64);
    let length = FLOOR.min(Duration::from_secs_f64(options.seconds));
    let disk = tokio::task::spawn_blocking(move || floor::disk(&home, batch, bytes, length)).await;
    let disk: Disk = disk
        .unwrap_or_else(|error| Err(std::io::Error::other(error)))
        .map_err(|error| Failure::unable("the floor", &error))?;
    figures.acknowledged_over_floor = over(figures.acknowledged_per_second, disk.messages_per_second);
    figures.acknowledgement_over_sync = over(figures.acknowledgement_ms.p50, disk.sync_ms.p50);
    figures.floor_disk = Some(disk);
    if let (Some(receiver), false) = (&receiver, sample.is_empty()) {
        figures.bundle_bytes = Some(sample.len() as u64);
        let seconds = length.as_secs_f64();
        let posts = Posts { address: receiver.address.to_string(), connections, seconds, body: sample };
        let posted: Posted = Client::start("direct", &posts).await?.ended().await?;
        figures.floor_posts_per_second = Some(posted.posts as f64 / posted.seconds);
    }
    if scenario.has_bare_road() {
        let receiver = receiver.as_ref().filter(|_| scenario.standing() == Standing::Up);
        let seconds = BARE.min(Duration::from_secs_f64(options.seconds)).as_secs_f64();
        beside(figures, Bare::measure(ground, receiver, figures, plans, seconds).await?);
    }
    Ok(())
}

/// Sets the engine beside the bare road.
fn beside(figures: &mut Figures, bare: Bare) {
    let ratio = |figure: Option<f64>, floor: Option<f64>| over(figure?, floor?);
    figures.acknowledged_over_bare = over(figures.acknowledged_per_second, bare.acknowledged_per_second);
    figures.acknowledgement_over_bare = over(figures.acknowledgement_ms.p50, bare.acknowledgement_ms.p50);
    figures.cpu_over_bare = ratio(figures.engine_cpu_ms_per_message, bare.cpu_ms_per_message);
    figures.road_over_bare = ratio(figures.road_per_second, bare.road_per_second);
    figures.floor_bare = Some(bare);
}
