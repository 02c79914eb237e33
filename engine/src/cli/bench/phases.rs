//! The ways to load the engine: each sends its messages, waits until they are where they belong and the engine rests, and
//! tells what it has seen meanwhile.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tokio::time::sleep;

use super::{
    Failure, Options, database::Work, figures::over, histogram::Latency, load::Loaded, messages::Kind,
    parts::Client, readings::Reading, scenario::Scenario, stage::Stage, syncs::Counter,
};

/// A document comes so often, a second.
const DOCUMENTS: f64 = 0.5;
/// Those that come while a backlog is worked off are late at most by so much of a second's messages.
const BEHIND: f64 = 0.25;
/// A backlog that has grown in this time is not worked off.
const HOPELESS: Duration = Duration::from_secs(30);
/// A backlog that has not been worked off by then is not waited for any longer.
const ENDLESS: Duration = Duration::from_secs(900);

/// What the loading of a scenario has told.
pub(super) struct Measured {
    /// The messages whose acknowledgements are told of.
    pub loaded: Loaded,
    /// Messages that the account from `before` to `rested` is for.
    pub messages: u64,
    pub before: Moment,
    /// When the sending ended.
    pub ended: Moment,
    pub rested: Moment,
    /// Messages that had arrived everywhere when the sending ended.
    pub in_time: Option<u64>,
    /// Seconds from the first sending until everything had arrived.
    pub arrived_after: Option<f64>,
    pub end_to_end: Option<Latency>,
    pub more: Map<String, Value>,
}

/// A reading of the engine and of its database server.
pub(super) struct Moment {
    pub engine: Reading,
    pub server: Option<Work>,
    /// Syncs since the moment before, if they could be counted.
    pub syncs: Option<u64>,
    counter: Option<Counter>,
}

impl Moment {
    /// Begins to count.
    async fn begin(stage: &Stage<'_>) -> Result<Self, Failure> {
        let counter = Counter::start(stage.engine.process);
        Ok(Self { counter, ..Self::now(stage, None).await? })
    }

    /// With what was counted since another.
    async fn now(stage: &Stage<'_>, since: Option<&mut Self>) -> Result<Self, Failure> {
        let syncs = match since.and_then(|before| before.counter.take()) {
            Some(counter) => counter.count().await,
            None => None,
        };
        let server = match stage.database() {
            Some(database) => Some(database.work().await?),
            None => None,
        };
        Ok(Self { engine: Reading::take(&stage.engine)?, server, syncs, counter: None })
    }
}

/// Loads the engine as a scenario says.
pub(super) async fn load(
    scenario: Scenario,
    options: &Options,
    stage: &mut Stage<'_>,
) -> Result<Measured, Failure> {
    match scenario {
        Scenario::Document => among_documents(options, stage).await,
        Scenario::Drain => drained(options, stage).await,
        Scenario::Down | Scenario::Accept => kept(options, stage).await,
        Scenario::Adt
        | Scenario::Oru
        | Scenario::Mix
        | Scenario::Single
        | Scenario::Growth
        | Scenario::Routes => steady(options, stage).await,
    }
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
    let mut before = Moment::begin(stage).await?;
    let mut plan = stage.plan();
    plan.seconds = Some(options.seconds);
    let loaded = stage.load(&plan).await?;
    let in_time = stage.arrived_everywhere()?.saturating_sub(first);
    let ended = Moment::now(stage, Some(&mut before)).await?;
    stage.delivered().await?;
    let arrived_after = before.engine.at.elapsed().as_secs_f64();
    stage.rest().await;
    Ok(Measured {
        messages: loaded.acknowledged,
        loaded,
        before,
        ended,
        rested: Moment::now(stage, None).await?,
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
    let mut before = Moment::begin(stage).await?;
    let mut plan = stage.plan();
    plan.seconds = Some(options.seconds);
    let loaded = stage.load(&plan).await?;
    let ended = Moment::now(stage, Some(&mut before)).await?;
    stage.waits().await?;
    stage.rest().await;
    Ok(Measured {
        messages: loaded.acknowledged,
        loaded,
        before,
        ended,
        rested: Moment::now(stage, None).await?,
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

    let (first, mut before) = (stage.acknowledged, Moment::begin(stage).await?);
    let (mut plan, mut letters) = (stage.plan(), stage.plan());
    (plan.seconds, plan.rate) = (Some(options.seconds), rate);
    letters.kinds = vec![Kind::Document];
    (letters.connections, letters.seconds, letters.rate) = (1, Some(options.seconds), Some(DOCUMENTS));
    let beside = Client::start("load", &letters).await?;
    let loaded = stage.load(&plan).await?;
    let documents = stage.account(beside.ended().await?)?;
    let in_time = stage.arrived_everywhere()?.saturating_sub(first);
    let ended = Moment::now(stage, Some(&mut before)).await?;
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
        rested: Moment::now(stage, None).await?,
        in_time: Some(in_time),
        arrived_after: Some(arrived_after),
        end_to_end: stage.slowest(Some(Kind::Adt))?,
        more: members(more),
    })
}

/// A backlog is built, then worked off while messages keep coming.
async fn drained(options: &Options, stage: &mut Stage<'_>) -> Result<Measured, Failure> {
    let mut before = Moment::begin(stage).await?;
    let mut plan = stage.plan();
    plan.messages = Some(options.backlog);
    let built = stage.load(&plan).await?;
    stage.waits().await?;
    let rate = options.rate.or(Scenario::Drain.rate()).unwrap_or(1.0);
    let mut plan = stage.plan();
    plan.rate = Some(rate);
    plan.connections = plan.connections.min(8);
    stage.unpause()?;
    let (began, working) = (Instant::now(), Moment::now(stage, None).await?);
    let beside = Client::start("load", &plan).await?;
    let (arrived, caught_up) = caught_up(stage, built.acknowledged, rate, began).await?;
    let took = began.elapsed().as_secs_f64();
    let ended = Moment::now(stage, Some(&mut before)).await?;
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
        "caught_up_after_seconds": caught_up.then_some(took),
        "drain_cpu_ms_per_message": cpu.map(|(from, to)| (to - from) * 1000.0 / arrived as f64),
    });
    Ok(Measured {
        messages: built.acknowledged + loaded.acknowledged,
        loaded,
        before,
        ended,
        rested: Moment::now(stage, None).await?,
        in_time: None,
        arrived_after: Some(arrived_after),
        end_to_end: None,
        more: members(more),
    })
}

/// Waits until what arrives has caught up with what comes, or clearly never will; how many have arrived, and whether
/// they have caught up.
async fn caught_up(
    stage: &Stage<'_>,
    backlog: u64,
    rate: f64,
    began: Instant,
) -> Result<(u64, bool), Failure> {
    loop {
        let arrived = stage.arrived_everywhere()?;
        let elapsed = began.elapsed();
        let missing = backlog as f64 + rate * (elapsed.as_secs_f64() - BEHIND) - arrived as f64;
        let grown = elapsed > HOPELESS && missing >= backlog as f64;
        if missing <= 0.0 || grown || elapsed > ENDLESS {
            return Ok((arrived, missing <= 0.0));
        }
        if elapsed > HOPELESS && arrived == 0 {
            return Err(Failure::Broken("the destination is paused no more, and nothing arrives".to_owned()));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}
