//! `tie reconcile`: is everything that a sender has sent accounted for, here and at the receivers?
//!
//! In:       the sender's list; what a running engine knows of each (the admin listener); receivers' own lists, or a
//!           receiver that can be asked what it holds.
//! Promise:  every control id of the sender's list is either accounted for (delivered to or filtered for every
//!           destination that it is owed to) or named with where it is missing; a control id that is named n times stands
//!           for n messages. Memory: the lists, and no more.
//! Not here: mending it (`tie replay`). An engine that is stopped is not asked: start it first.

mod account;
mod judge;
mod lists;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use serde_json::Value;

use self::{
    account::Account,
    judge::{Finding, Question, Received, What},
    lists::List,
};
use super::{Exit, Place, client::Target, complain, report};
use crate::{
    admin::{CONTROL_IDS, SearchAnswer, SearchRequest, Status, TraceAnswer, TraceRequest},
    connector::{Destination, Plugin},
    revision::Revision,
};

/// Control ids in one request to the engine, in bytes: a request may have 64 KiB.
const REQUEST_BYTES: usize = 32 * 1024;
/// Messages in one answer when all of a time are listed.
const LISTED: usize = 200;

/// Compare a sender's list with what a running engine knows, and with what receivers have.
///
/// The list names messages: a control id that stands there twice means two messages (of a sender that begins to count
/// anew each day, say), and if fewer arrived one is missing. Of a log that names a message again each time that it was
/// sent, say --transmissions: then a control id stands for one message, however often it is named. With --listener,
/// --since and --until, what arrived there and then and is not in the list is named too; nothing is amiss by that alone.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// The sender's list: control ids (MSH-10), one a line or in a column of a CSV file; `-` is stdin. One line for each
    /// message.
    #[arg(long, value_name = "LIST")]
    sent: PathBuf,
    /// The sender's list is a log of transmissions: a message that was sent again, as after a lost acknowledgement,
    /// stands there again. Two messages with one control id cannot be told apart then: give the list day by day.
    #[arg(long)]
    transmissions: bool,
    /// A receiver's list of control ids; with several destinations, say whose. May be given several times.
    #[arg(long, value_name = "[DESTINATION=]LIST")]
    received: Vec<String>,
    /// Ask this destination, a FHIR server, whether it holds what was delivered to it; by its address and
    /// credentials in the configuration.
    #[arg(long, value_name = "DESTINATION")]
    fhir: Option<String>,
    /// The column of a CSV file that has the control id, from 1.
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    column: usize,
    /// Only messages of this listener: control ids of two senders may be alike.
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// Only messages received from then on, such as 2026-03-01T00:00:00Z.
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
    /// Only messages received before.
    #[arg(long, value_name = "TIME")]
    until: Option<Timestamp>,
    /// Print each finding as a line of JSON, and the summary as the last.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, place: &Place, plugins: &'static [Plugin]) -> Exit {
    match reconcile(arguments, place, plugins) {
        Ok(account) => {
            account.close();
            if account.is_complete() { Exit::Well } else { Exit::Wrong }
        }
        Err(exit) => exit,
    }
}

fn reconcile(arguments: &Arguments, place: &Place, plugins: &'static [Plugin]) -> Result<Account, Exit> {
    let sent = read(&arguments.sent, arguments.column)?;
    if sent.len() == 0 {
        complain("tie: the sender's list names no message");
        return Err(Exit::Usage);
    }
    let receiver = match &arguments.fhir {
        Some(name) => Some(Receiver::new(name, place, plugins)?),
        None => None,
    };
    let question = Question {
        received: received(arguments, place)?,
        asked: arguments.fhir.clone(),
        transmissions: arguments.transmissions,
        listener: arguments.listener.clone(),
        since: arguments.since,
        until: arguments.until,
    };
    let mut account = Account::new(arguments.json);
    for some in portions(&sent) {
        let request = TraceRequest {
            control_ids: some.iter().map(|(id, _)| (*id).to_owned()).collect(),
            written_to: arguments.fhir.clone(),
        };
        let answer = arguments.target.post(place, "/api/trace", &to_value(&request))?;
        let traced: TraceAnswer = understood(answer)?;
        let missing = match &receiver {
            Some(receiver) => receiver.missing(&traced)?,
            None => BTreeSet::new(),
        };
        for (trace, (_, times)) in traced.traces.iter().zip(some) {
            account.take(question.judge(trace, times, &missing));
        }
    }
    for (destination, list) in &question.received {
        for (id, _) in list.iter().filter(|(id, _)| sent.times(id) == 0) {
            account.find(Finding::new(What::NeverSent, id).at(destination));
        }
    }
    unlisted(arguments, place, &sent, &mut account)?;
    Ok(account)
}

/// What the journal has of a listener and a time, and the sender's list has not; nothing unless both are said.
fn unlisted(arguments: &Arguments, place: &Place, sent: &List, account: &mut Account) -> Result<(), Exit> {
    let Arguments { listener: Some(listener), since: Some(since), until: Some(until), .. } = arguments else {
        return Ok(());
    };
    let mut request = SearchRequest {
        listener: Some(listener.clone()),
        since: Some(*since),
        until: Some(*until),
        limit: LISTED,
        ..SearchRequest::default()
    };
    loop {
        let answer: SearchAnswer =
            understood(arguments.target.post(place, "/api/search", &to_value(&request))?)?;
        for message in answer.messages.iter().map(|found| &found.message) {
            let id = message.control_id.trim();
            if sent.times(id) == 0 {
                account.find(Finding::new(What::NotListed, id).of(message));
            }
        }
        match answer.next {
            Some(next) => request.before = Some(next),
            None => return Ok(()),
        }
    }
}

/// The list in pieces that one request can carry.
fn portions(list: &List) -> impl Iterator<Item = Vec<(&str, u32)>> {
    let mut rest = list.iter().peekable();
    std::iter::from_fn(move || {
        let (mut some, mut bytes) = (Vec::new(), 0);
        while some.len() < CONTROL_IDS
            && bytes < REQUEST_BYTES
            && let Some((id, times)) = rest.next()
        {
            // Quotes and commas; a control id may need escapes.
            bytes += 2 * id.len() + 3;
            some.push((id, times));
        }
        (!some.is_empty()).then_some(some)
    })
}

fn read(file: &Path, column: usize) -> Result<List, Exit> {
    List::read(file, column).map_err(|what| {
        complain(format_args!("tie: {what}"));
        Exit::Unreachable
    })
}

/// The receivers' lists; one without a name is that of the only destination.
fn received(arguments: &Arguments, place: &Place) -> Result<Received, Exit> {
    let mut received = Received::new();
    if arguments.received.is_empty() {
        return Ok(received);
    }
    let status: Status = understood(arguments.target.get(place, "/api/status")?)?;
    let names: Vec<_> = status.destinations.iter().map(|destination| destination.name.as_str()).collect();
    for given in &arguments.received {
        let (name, file) = match given.split_once('=') {
            Some((name, file)) if names.contains(&name) => (name, file),
            _ => match names.as_slice() {
                [name] => (*name, given.as_str()),
                _ => {
                    complain(format_args!(
                        "tie: whose list is `{given}`? Say {}=LIST; the destinations are {}",
                        names.first().unwrap_or(&"DESTINATION"),
                        names.join(", ")
                    ));
                    return Err(Exit::Usage);
                }
            },
        };
        received.insert(name.to_owned(), read(Path::new(file), arguments.column)?);
    }
    Ok(received)
}

/// A destination that is asked what it holds.
struct Receiver {
    name: String,
    destination: Arc<dyn Destination>,
    timeout: Duration,
    runtime: tokio::runtime::Runtime,
}

impl Receiver {
    fn new(name: &str, place: &Place, plugins: &'static [Plugin]) -> Result<Self, Exit> {
        let snapshot = place.snapshot();
        let built = match &snapshot {
            Ok(snapshot) => Revision::build(snapshot, plugins),
            Err(problems) => Err(problems.clone()),
        };
        let revision = built.map_err(|problems| {
            complain(report::rendered(&problems, snapshot.as_ref().ok(), report::wants_colour()).trim_end());
            Exit::Wrong
        })?;
        let config = revision.config.destinations.iter().find(|config| config.name == name);
        match (config, revision.destinations.get(name)) {
            (Some(config), Some(destination)) => Ok(Self {
                name: name.to_owned(),
                destination: destination.clone(),
                timeout: config.timeout,
                runtime: super::runtime()?,
            }),
            _ => {
                let known: Vec<_> = revision.destinations.keys().map(String::as_str).collect();
                complain(format_args!(
                    "tie: no destination is called `{name}`; there are {}",
                    known.join(", ")
                ));
                Err(Exit::Usage)
            }
        }
    }

    /// Which of the resources that were written it does not hold.
    fn missing(&self, traced: &TraceAnswer) -> Result<BTreeSet<String>, Exit> {
        let deliveries =
            traced.traces.iter().flat_map(|trace| &trace.messages).flat_map(|message| &message.deliveries);
        let written: BTreeSet<_> = deliveries.flat_map(|delivery| &delivery.written).cloned().collect();
        let written: Vec<_> = written.into_iter().collect();
        let mut missing = BTreeSet::new();
        for some in written.chunks(RESOURCES_AT_ONCE) {
            let asked = async { tokio::time::timeout(self.timeout, self.destination.missing(some)).await };
            let what = match self.runtime.block_on(asked) {
                Ok(Some(Ok(names))) => {
                    missing.extend(names);
                    continue;
                }
                Ok(Some(Err(error))) => error.reason,
                Ok(None) => "a destination of its kind cannot be asked what it holds".to_owned(),
                Err(_) => format!("no answer within {:?}", self.timeout),
            };
            complain(format_args!("tie: destination {}: {what}", self.name));
            return Err(Exit::Unreachable);
        }
        Ok(missing)
    }
}

/// Resources that a destination is asked for within one time-out.
const RESOURCES_AT_ONCE: usize = 100;

fn to_value(request: &impl serde::Serialize) -> Value {
    serde_json::to_value(request).unwrap_or_default()
}

fn understood<T: serde::de::DeserializeOwned>(answer: Value) -> Result<T, Exit> {
    serde_json::from_value(answer).map_err(|_| {
        complain("tie: the engine answers in another version's words");
        Exit::Unreachable
    })
}
