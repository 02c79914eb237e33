//! The simulated destinations: they take, refuse, hang, lose answers and break, by their weather; what they have taken
//! they keep for ever.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;

use super::{dice::Dice, letters, world::World};
use crate::{
    connector::{self, DeliveryError, ErrorClass, Outbound, Payload, Receipt, Repeats},
    journal::Sequence,
};

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {}

/// What a destination remembers.
#[derive(Default)]
pub struct Receiver {
    pub weather: Weather,
    /// How often each output of each letter was taken.
    pub taken: BTreeMap<(usize, String), u32>,
    /// When it was first taken, in virtual time.
    pub first: BTreeMap<(usize, String), Duration>,
    /// What it shows now: the letter that each output was last written by.
    pub shows: BTreeMap<String, usize>,
    /// The highest message taken, by what is to be in order.
    pub top: BTreeMap<String, Sequence>,
    /// The letters and outputs on their way now.
    pub in_flight: BTreeSet<(usize, String)>,
    /// When each output was attempted since the engine's start, in virtual time.
    pub attempts: BTreeMap<(usize, String), Vec<Duration>>,
    /// What it has refused for good.
    pub refused: BTreeSet<usize>,
}

/// How a destination is at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Weather {
    #[default]
    Fair,
    Down,
    /// Up and down, with everything that can happen.
    Foul,
    Unclear,
    Hanging,
    Misconfigured,
    Busy,
    Picky,
    Slow,
    Broken,
}

impl Weather {
    pub const ALL: [Self; 10] = [
        Self::Fair,
        Self::Down,
        Self::Foul,
        Self::Unclear,
        Self::Hanging,
        Self::Misconfigured,
        Self::Busy,
        Self::Picky,
        Self::Slow,
        Self::Broken,
    ];
}

/// What happens to one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Take,
    /// Takes it after so many milliseconds.
    TakeSlowly(u64),
    Fail(ErrorClass),
    RetryAfter(u64),
    /// Takes it and loses the answer.
    TakeAndFail,
    /// Never answers; whether bytes have left, and whether they were taken.
    Hang {
        left: bool,
        taken: bool,
    },
    Panic,
}

fn fate(weather: Weather, letter: usize, dice: &mut Dice) -> Fate {
    use ErrorClass::{Misconfigured, Rejected, Unavailable, Uncertain};
    let hang = |dice: &mut Dice| {
        let left = dice.in_thousand(700);
        Fate::Hang { left, taken: left && dice.in_thousand(500) }
    };
    match weather {
        Weather::Fair => Fate::Take,
        Weather::Down => Fate::Fail(Unavailable),
        Weather::Unclear => *dice.pick(&[Fate::TakeAndFail, Fate::Fail(Uncertain), Fate::Take]),
        Weather::Hanging => hang(dice),
        Weather::Misconfigured => Fate::Fail(Misconfigured),
        Weather::Busy => *dice.pick(&[Fate::RetryAfter(2), Fate::RetryAfter(8), Fate::Take]),
        Weather::Picky if letter.is_multiple_of(3) => Fate::Fail(Rejected),
        Weather::Picky => Fate::Take,
        Weather::Slow => Fate::TakeSlowly(500 + dice.below(7000)),
        Weather::Broken => *dice.pick(&[Fate::Panic, Fate::Take]),
        Weather::Foul => match dice.below(14) {
            0..5 => Fate::Take,
            5 | 6 => Fate::Fail(Unavailable),
            7 => Fate::Fail(Uncertain),
            8 => Fate::TakeAndFail,
            9 => hang(dice),
            10 => Fate::TakeSlowly(dice.below(4000)),
            11 => Fate::Fail(Rejected),
            12 => Fate::RetryAfter(dice.below(4)),
            _ => Fate::Panic,
        },
    }
}

pub fn destination(name: &str) -> Arc<dyn connector::Destination> {
    let name = super::feeds::DESTINATIONS.into_iter().find(|known| *known == name).unwrap_or("nobody");
    Arc::new(Destination { name })
}

struct Destination {
    name: &'static str,
}

#[async_trait]
impl connector::Destination for Destination {
    async fn deliver(&self, outbound: &Outbound) -> Result<Receipt, DeliveryError> {
        let world = World::current();
        let Payload::FhirResource { id: output, json, .. } = &outbound.payload else {
            world.broken("something else than a resource was sent");
            return Err(DeliveryError::new(ErrorClass::Rejected, "no resource"));
        };
        let letter = letters::number(json).unwrap_or_default();
        let attempt = Attempt { world: &world, to: self.name, letter, output: output.clone() };
        world.check_start(self.name, letter, output);
        let result = attempt.make(outbound).await;
        drop(attempt);
        result
    }

    fn repeats(&self) -> Repeats {
        if self.name == "record" { Repeats::ChangeNothing } else { Repeats::Harm }
    }
}

/// One attempt; dropped, it is no longer under way.
struct Attempt<'a> {
    world: &'a World,
    to: &'static str,
    letter: usize,
    output: String,
}

impl Attempt<'_> {
    async fn make(&self, outbound: &Outbound) -> Result<Receipt, DeliveryError> {
        let Self { world, to, letter, output } = self;
        let what = format!("L{letter} as {output} to {to}");
        let mut dice = world.dice(&what);
        world.turn(format!("deliver {what}")).await;
        let fate = fate(world.facts.lock().receivers[to].weather, *letter, &mut dice);
        world.tell(format!("{what}: {fate:?}"));
        match fate {
            Fate::Take => {
                outbound.mark_left();
                world.check_taken(to, *letter, output);
                self.answer(&what, 0).await
            }
            Fate::TakeSlowly(milliseconds) => {
                outbound.mark_left();
                self.answer(&what, milliseconds).await?;
                world.check_taken(to, *letter, output);
                self.answer(&what, 0).await
            }
            Fate::TakeAndFail => {
                outbound.mark_left();
                world.check_taken(to, *letter, output);
                Err(DeliveryError::new(ErrorClass::Uncertain, "closed"))
            }
            Fate::Fail(class) => {
                if class == ErrorClass::Rejected {
                    world.facts.lock().receivers.get_mut(to).unwrap().refused.insert(*letter);
                }
                Err(DeliveryError::new(class, "on purpose"))
            }
            Fate::RetryAfter(seconds) => Err(DeliveryError {
                retry_after: Some(Duration::from_secs(seconds)),
                ..DeliveryError::new(ErrorClass::Unavailable, "busy")
            }),
            Fate::Hang { left, taken } => {
                if left {
                    outbound.mark_left();
                }
                if taken {
                    world.check_taken(to, *letter, output);
                }
                std::future::pending().await
            }
            Fate::Panic => panic!("on purpose"),
        }
    }

    async fn answer(&self, what: &str, milliseconds: u64) -> Result<Receipt, DeliveryError> {
        let wait = Duration::from_millis(milliseconds);
        self.world.stage.turn(format!("answer {what}"), wait).await;
        Ok(Receipt { answer: "200".to_owned(), detail: None })
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let mut facts = self.world.facts.lock();
        let receiver = facts.receivers.get_mut(self.to).unwrap();
        receiver.in_flight.remove(&(self.letter, self.output.clone()));
    }
}
