//! `tie search`: find messages in the journal of a running engine, and what became of them.
//!
//! Promise: P9. Shows no bodies and no identifiers of patients, whatever was searched for.

use jiff::{Span, Timestamp, Unit, civil::DateTime, tz::TimeZone};

use super::{Exit, Place, client::Target, complain, report::counted, say};
use crate::{
    admin::{MessageView, SearchAnswer, SearchKey, SearchRequest},
    clock::{Clock, SystemClock},
    journal::State,
};

/// Find messages in the journal of a running engine, the newest first.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    key: KeyArguments,
    /// Received at or after: a time such as 2026-11-25T08:00, or how long ago, such as 30m, 12h, 7d.
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,
    /// Received before: as `--since`.
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,
    /// By this listener.
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// With this trigger event, such as ADT^A01.
    #[arg(long, value_name = "EVENT")]
    trigger: Option<String>,
    /// In quarantine: no route or parser could take it.
    #[arg(long)]
    quarantined: bool,
    /// With a delivery of this route.
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// With a delivery to this destination.
    #[arg(long, value_name = "NAME")]
    destination: Option<String>,
    /// With a delivery that stands so: ready, retrying, parked, held, filtered, delivered, dead.
    #[arg(long, value_name = "STATE", value_parser = state)]
    state: Option<State>,
    /// At most so many.
    #[arg(long, default_value_t = 100, value_name = "NUMBER")]
    limit: usize,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// What a message has; one of them.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct KeyArguments {
    /// With this control id (MSH-10).
    #[arg(long, value_name = "ID")]
    control_id: Option<String>,
    /// Of the patient with this NHS number.
    #[arg(long, value_name = "NUMBER")]
    nhs_number: Option<String>,
    /// Of the patient with this number at the sender.
    #[arg(long, value_name = "NUMBER")]
    local_number: Option<String>,
    /// Of the patient with this key, as `authority|identifier`: what orders one patient's messages.
    #[arg(long, value_name = "KEY")]
    patient: Option<String>,
    /// Of this visit (PV1-19).
    #[arg(long, value_name = "NUMBER")]
    visit: Option<String>,
    /// With this placer, filler or accession number.
    #[arg(long, value_name = "NUMBER")]
    order: Option<String>,
}

pub(super) fn run(arguments: &Arguments, place: &Place) -> Exit {
    let mut request = request(arguments);
    let mut all = SearchAnswer { messages: Vec::new(), next: None, oldest: None };
    loop {
        request.limit = arguments.limit.saturating_sub(all.messages.len());
        let body = serde_json::to_value(&request).unwrap_or_default();
        let answer = match arguments.target.post(place, "/api/search", &body) {
            Ok(answer) => answer,
            Err(exit) => return exit,
        };
        let Ok(found) = serde_json::from_value::<SearchAnswer>(answer) else {
            complain("tie: the engine answers in another version's words");
            return Exit::Unreachable;
        };
        all.messages.extend(found.messages);
        (all.next, all.oldest) = (found.next, found.oldest);
        if all.next.is_none() || all.messages.len() >= arguments.limit {
            break;
        }
        request.before = all.next;
    }
    if arguments.json {
        say(format_args!("{}\n", serde_json::to_value(&all).unwrap_or_default()));
    } else {
        say(table(&all));
        complain(searched(&all, arguments));
    }
    if all.messages.is_empty() { Exit::Wrong } else { Exit::Well }
}

fn request(arguments: &Arguments) -> SearchRequest {
    let key = &arguments.key;
    let keys = [
        key.control_id.clone().map(SearchKey::ControlId),
        key.nhs_number.clone().map(SearchKey::NhsNumber),
        key.local_number.clone().map(SearchKey::LocalNumber),
        key.patient.clone().map(SearchKey::Patient),
        key.visit.clone().map(SearchKey::Visit),
        key.order.clone().map(SearchKey::Order),
    ];
    SearchRequest {
        since: arguments.since,
        until: arguments.until,
        listener: arguments.listener.clone(),
        trigger: arguments.trigger.clone(),
        quarantined: arguments.quarantined,
        route: arguments.route.clone(),
        destination: arguments.destination.clone(),
        state: arguments.state,
        key: keys.into_iter().flatten().next(),
        before: None,
        limit: 0,
    }
}

fn table(answer: &SearchAnswer) -> String {
    let mut lines = Vec::new();
    for view in &answer.messages {
        let message = &view.message;
        let received = message.received.round(Unit::Second).unwrap_or(message.received);
        lines.push(format!(
            "{:>10}  {received}  {:<12} {:<10} {:<20} {}\n",
            message.sequence,
            message.listener,
            message.trigger,
            message.control_id,
            standing(view)
        ));
    }
    lines.concat()
}

/// What became of it, in a few words.
fn standing(view: &MessageView) -> String {
    let mut parts: Vec<String> = view
        .deliveries
        .iter()
        .map(|one| format!("{} → {}: {}", one.route, one.destination, one.state.word()))
        .collect();
    parts.extend(view.message.quarantine.as_ref().map(|why| format!("quarantine: {why}")));
    parts.extend(view.message.flag.clone());
    parts.join("; ")
}

/// What the answer rests on: nothing found must not be taken for nothing received.
fn searched(answer: &SearchAnswer, arguments: &Arguments) -> String {
    let found = counted(answer.messages.len(), "message");
    let Some(oldest) = answer.oldest else { return "The journal has no messages at all.".to_owned() };
    let until = arguments.until.map(|until| format!(" to {until}")).unwrap_or_default();
    match answer.next {
        Some(_) => format!("{found}; there may be older ones (--limit)."),
        None => match arguments.since {
            Some(since) if since < oldest => {
                format!("{found}; the journal goes back to {oldest} only, searched from there{until}.")
            }
            Some(since) => format!("{found}; searched all from {since}{until}."),
            None => format!("{found}; searched all from {oldest} on{until}."),
        },
    }
}

/// A time with or without a zone (this machine's then), or how long ago.
fn time(text: &str) -> Result<Timestamp, String> {
    let now = SystemClock.now().to_zoned(TimeZone::system());
    let sentence = |error: jiff::Error| error.to_string();
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(time) = text.parse::<DateTime>() {
        return Ok(time.to_zoned(now.time_zone().clone()).map_err(sentence)?.timestamp());
    }
    let ago =
        text.parse::<Span>().map_err(|_| "expected a time such as 2026-11-25T08:00, or 30m, 12h, 7d")?;
    Ok(now.checked_sub(ago.abs()).map_err(sentence)?.timestamp())
}

fn state(text: &str) -> Result<State, String> {
    let words: Vec<_> = State::ALL.iter().map(|state| state.word()).collect();
    let found = State::ALL.into_iter().find(|state| state.word() == text);
    found.ok_or_else(|| format!("expected one of {}", words.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_usual_way() {
        assert_eq!(time("2026-11-25T08:00:00Z").unwrap().as_second(), 1_795_593_600);
        assert!(time("2026-11-25T08:00").is_ok() && time("2026-11-25").is_ok());
        let (now, hour, week) = (SystemClock.now(), time("1h").unwrap(), time("7d").unwrap());
        let hours = |before: Timestamp| (now.as_second() - before.as_second() + 30) / 3600;
        assert_eq!(hours(hour), 1);
        assert!((7 * 24 - 1..=7 * 24 + 1).contains(&hours(week)), "a week may hold a change of the clocks");
        assert!(time("yesterday").is_err());
    }
}
