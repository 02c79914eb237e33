//! The simulated sources: each sends its letters one after the other, and sends one again until it has an answer that it
//! can make something of. Their memory outlives the engine, and answers get lost on the way.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::{
    dice::Dice,
    letters::{self, Kind, Letter},
    world::World,
};
use crate::connector::{self, Inbox, Peer, SourceError};

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {}

/// A system that sends.
pub struct Sender {
    pub listener: &'static str,
    pub letters: Vec<Letter>,
    /// The first letter that it has no answer to.
    pub next: usize,
    /// So many of them were in the last frame.
    pub in_frame: usize,
}

pub fn all(dice: &mut Dice) -> Vec<Sender> {
    let mut first = 1;
    let count = 2 + dice.below(2) as usize;
    (0..count)
        .map(|number| {
            let laboratory = number == 1;
            let letters = letters::letters(dice, first, number, laboratory);
            first += letters.len();
            let listener = if laboratory { "laboratory" } else { "hospital" };
            Sender { listener, letters, next: 0, in_frame: 0 }
        })
        .collect()
}

pub fn source(listener: &str) -> Box<dyn connector::Source> {
    Box::new(Source { listener: listener.to_owned() })
}

struct Source {
    listener: String,
}

#[async_trait]
impl connector::Source for Source {
    async fn run(self: Box<Self>, inbox: Inbox, stop: CancellationToken) -> Result<(), SourceError> {
        let world = World::current();
        let mine: Vec<usize> = {
            let facts = world.facts.lock();
            (0..facts.senders.len()).filter(|n| facts.senders[*n].listener == self.listener).collect()
        };
        inbox.notice(connector::Notice::Serving);
        let all = mine.into_iter().map(|number| serve(&world, number, &inbox, &stop));
        futures::future::join_all(all).await;
        stop.cancelled().await;
        Ok(())
    }
}

async fn serve(world: &World, number: usize, inbox: &Inbox, stop: &CancellationToken) {
    let peer = Peer(format!("192.0.2.{number}"));
    let mut tired = false;
    while let Some((what, frame)) = world.frame(number) {
        let mut dice = world.dice(&format!("pause of sender {number}"));
        let pause = match dice.below(20) {
            _ if tired => 500 + dice.below(1500),
            0 => dice.below(4000),
            _ => dice.below(20),
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = world.stage.turn(format!("send {what}"), Duration::from_millis(pause)) => {}
        }
        world.begins(number, &what);
        let answer = inbox.accept(frame, &peer).await;
        let code = match &answer {
            Ok(reply) => reply.acknowledgement.as_ref().map_or_else(|| "none".to_owned(), code),
            Err(closed) => closed.to_string(),
        };
        tired = !world.answered(number, &what, &code);
    }
}

/// MSA-1 and the reason.
fn code(answer: &Bytes) -> String {
    let text = String::from_utf8_lossy(answer);
    let msa = text.split('\r').find_map(|segment| segment.strip_prefix("MSA|")).unwrap_or("no MSA");
    let mut fields = msa.split('|');
    let code = fields.next().unwrap_or_default();
    fields.nth(1).map_or_else(|| code.to_owned(), |why| format!("{code} {why}"))
}

impl World {
    /// What a sender sends next, if it has anything left: one letter, or two as one frame.
    fn frame(&self, number: usize) -> Option<(String, Bytes)> {
        let together = self.dice("frames").in_thousand(80);
        let mut facts = self.facts.lock();
        let sender = &mut facts.senders[number];
        let letter = sender.letters.get(sender.next)?;
        let batchable = |letter: &Letter| !matches!(letter.kind, Kind::Stray | Kind::Junk);
        let second =
            sender.letters.get(sender.next + 1).filter(|second| batchable(letter) && batchable(second));
        match second.filter(|_| together) {
            Some(second) => {
                sender.in_frame = 2;
                let what = format!("L{}+L{}", letter.number, second.number);
                Some((what, Bytes::from([letter.raw.clone(), second.raw.clone()].concat())))
            }
            None => {
                sender.in_frame = 1;
                Some((format!("L{}", letter.number), letter.raw.clone()))
            }
        }
    }

    fn begins(&self, number: usize, what: &str) {
        let mut facts = self.facts.lock();
        let live = facts.live.len();
        let sender = &facts.senders[number];
        let sent = sender.letters[sender.next..sender.next + sender.in_frame].iter();
        let sent: Vec<usize> = sent.map(|letter| letter.number).collect();
        for letter in sent {
            facts.first_sent.entry(letter).or_insert(live);
        }
        facts.tell(format!("sender {number} sends {what}"));
    }

    /// Takes an answer in; whether the sender goes on.
    fn answered(&self, number: usize, what: &str, code: &str) -> bool {
        let lost = self.fails("answers", 60);
        let ended = if lost { " (lost on the way)" } else { "" };
        self.tell(format!("sender {number} is answered {code} for {what}{ended}"));
        let positive = code.starts_with("AA");
        if positive {
            self.check_acknowledged(number);
        } else if !code.contains("send again") && code.starts_with('A') {
            self.check_refused(number, code);
        } else {
            return false;
        }
        let mut facts = self.facts.lock();
        let sender = &mut facts.senders[number];
        if !lost {
            sender.next += sender.in_frame;
        }
        !lost
    }
}
