//! The shape of a file in `routes/`: what may be written, with which defaults. Its doc comments are the
//! descriptions in the JSON Schema.

use std::{fmt, num::NonZeroU32};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use super::Order;
use crate::{
    connector::{Acknowledge, GiveUp, Retry},
    document::Period,
    hl7::Path,
};

/// One feed: which messages, which mapping, which destinations.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RouteFile {
    /// What the feed is for, in a sentence.
    #[serde(default)]
    pub about: String,
    /// Who looks after it.
    #[serde(default)]
    pub owner: String,
    /// The listener or listeners in `tie.toml` that its messages come from.
    pub from: OneOrMany,
    /// Which messages of the listener it takes; all of them if nothing is said.
    #[serde(default)]
    pub accept: AcceptTable,
    /// The mapping: `adt` for `mappings/adt.rhai`.
    #[schemars(with = "String")]
    pub map: Spanned<String>,
    /// Which messages may not overtake each other: those of one `patient`, all of the `route`, `none`, or those with one
    /// value at a place such as `PV1-19`.
    #[serde(default)]
    #[schemars(with = "String")]
    pub order: Order,
    /// What an acknowledgement waits for: `received` (the disk), `mapped` or `delivered`; else as the listener says.
    #[serde(default)]
    pub ack: Option<Acknowledge>,
    /// How long its messages are kept, where that differs from `[journal.retention]`.
    #[serde(default)]
    pub retention: AgesTable,
    /// The destinations.
    #[schemars(with = "Vec<ToTable>")]
    pub to: Spanned<Vec<ToTable>>,
    /// Messages with the output that the mapping must make of them; checked before the route goes live.
    #[serde(default, rename = "test")]
    pub tests: Vec<TestTable>,
}

/// Patterns for the header of a message: `?` is any one character, `*` any many. All that are given must match.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AcceptTable {
    /// MSH-9 as `ADT^A01`; without `^` the message code alone.
    pub trigger: OneOrMany,
    /// MSH-3, first component.
    pub sending_application: OneOrMany,
    /// MSH-4, first component.
    pub sending_facility: OneOrMany,
    /// MSH-5, first component.
    pub receiving_application: OneOrMany,
    /// MSH-6, first component.
    pub receiving_facility: OneOrMany,
    /// Takes only what no other route of the listener takes.
    pub otherwise: bool,
}

/// How long messages of a route are kept. One that several routes take is kept as long as any of them says.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AgesTable {
    /// After this age of a message its bytes go, and what was sent and answered.
    pub bodies: Option<Period>,
    /// After this age a message goes altogether.
    pub messages: Option<Period>,
}

/// One destination of a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ToTable {
    /// Its name in `tie.toml`.
    #[schemars(with = "String")]
    pub destination: Spanned<String>,
    /// Why the data may go there, such as `direct-care`.
    #[serde(default)]
    pub purpose: String,
    /// What to do with a message that the destination has not taken.
    #[serde(default)]
    #[schemars(with = "RetryTable")]
    pub retry: Option<Spanned<RetryTable>>,
    /// What nobody took, if it is to end otherwise than `retry` says.
    #[serde(default)]
    pub unavailable: LimitTable,
    /// What may have been taken, if it is to end otherwise than `retry` says.
    #[serde(default)]
    pub uncertain: LimitTable,
    /// What the receiver read and refused: at once, unless `attempts` or `give_up` is said.
    #[serde(default)]
    #[schemars(with = "LimitTable")]
    pub rejected: Option<LimitTable>,
    /// What the receiver read and failed over. `attempts` counts only failures between which it has answered others, 5
    /// if nothing is said; `give_up` is 1 h or that of `retry` if shorter, and that of `retry` while it fails over others
    /// too.
    #[serde(default)]
    pub failing: LimitTable,
    /// What is refused as if the destination were misconfigured, though it takes others.
    #[serde(default)]
    #[schemars(with = "MisconfiguredTable")]
    pub misconfigured: Option<Spanned<MisconfiguredTable>>,
    /// What the script failed at or rejected; as `retry.then` if nothing is said.
    #[serde(default)]
    pub unmapped: Option<GiveUp>,
}

/// When a kind of failure ends; what is not said is as in `retry`. Whichever bound is reached first counts.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LimitTable {
    /// After so many attempts.
    #[schemars(range(min = 1))]
    pub attempts: Option<NonZeroU32>,
    /// After this age of the first attempt.
    pub give_up: Option<Period>,
    /// What happens then.
    pub then: Option<GiveUp>,
}

/// When a message is itself at fault that is answered by 401, 403, 404 or the like.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct MisconfiguredTable {
    /// After so many refusals between which the destination has taken others; 3 if nothing is said. One refusal alone
    /// could be anything.
    #[schemars(range(min = 2))]
    pub attempts: Option<u32>,
    /// What happens then; as `retry.then` if nothing is said.
    pub then: Option<GiveUp>,
}

/// When to try again, and when to stop trying.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RetryTable {
    /// The pause before the second attempt; it doubles with each further one.
    pub first: Period,
    /// The longest pause between attempts.
    pub max: Period,
    /// After this age of the first attempt, `then` happens.
    pub give_up: Period,
    /// `dead-letter` sets the message aside and goes on; `park` makes the lane wait for a person.
    pub then: GiveUp,
}

/// One message with the output that the mapping must make of it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TestTable {
    /// A file with one HL7 v2 message, relative to the configuration directory.
    #[schemars(with = "String")]
    pub message: Spanned<String>,
    /// A JSON file with the output, as `tie map` prints it.
    #[schemars(with = "String")]
    pub expect: Spanned<String>,
}

impl Default for RetryTable {
    fn default() -> Self {
        let Retry { first, max, give_up, then } = Retry::default();
        Self { first: Period(first), max: Period(max), give_up: Period(give_up), then }
    }
}

impl<'de> Deserialize<'de> for Order {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "patient" => Ok(Self::Patient),
            "route" => Ok(Self::Route),
            "none" => Ok(Self::None),
            // A word in small letters is no place in a message, but a slip of the pen.
            word if !word.contains(|c: char| c.is_ascii_uppercase() || c.is_ascii_digit()) => {
                Err(de::Error::unknown_variant(word, &["patient", "route", "none"]))
            }
            place => match Path::parse(place) {
                Ok(path) if path.field > 0 => Ok(Self::Value(path)),
                Ok(_) => {
                    Err(de::Error::custom(format!("`{place}` names a segment: `order` needs a field of it")))
                }
                Err(error) => Err(de::Error::custom(error)),
            },
        }
    }
}

/// One string or a list of them.
#[derive(Debug, Default)]
pub(super) struct OneOrMany(pub Vec<Spanned<String>>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Spanned::<Texts>::deserialize(deserializer)?;
        let span = texts.span();
        Ok(Self(match texts.into_inner() {
            Texts::One(text) => vec![Spanned::new(span, text)],
            Texts::Many(texts) => texts,
        }))
    }
}

enum Texts {
    One(String),
    Many(Vec<Spanned<String>>),
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> de::Visitor<'de> for Either {
            type Value = Texts;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Texts, E> {
                Ok(Texts::One(text.to_owned()))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Texts, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = list.next_element()? {
                    texts.push(text);
                }
                Ok(Texts::Many(texts))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for OneOrMany {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "OneOrMany".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }]
        })
    }
}
