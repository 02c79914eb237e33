//! From rows of a database to the journal's own types: the same for every store that is one.
//!
//! Promise:  what cannot be read is an error that names the column, never the value.
//! Not here: statements (the stores), what lies packed in them (body.rs, blob.rs).

use jiff::Timestamp;

use super::{
    Arrival, Audit, DeliveryId, DeliveryRecord, Keys, Pending, Sequence, State, Summary,
    blob::Blob,
    body::Body,
    codec::{Codec, Flaw},
    store::{StoreError, Stored, StoredDelivery},
};
use crate::connector::ErrorClass;

/// The cells of one row, by their place in the statement.
pub(super) trait Cells {
    fn number(&self, index: usize) -> Result<i64, StoreError>;
    fn number_if_any(&self, index: usize) -> Result<Option<i64>, StoreError>;
    fn text(&self, index: usize) -> Result<&str, StoreError>;
    fn text_if_any(&self, index: usize) -> Result<Option<&str>, StoreError>;
    fn bytes(&self, index: usize) -> Result<&[u8], StoreError>;
    fn bytes_if_any(&self, index: usize) -> Result<Option<&[u8]>, StoreError>;
}

macro_rules! cells {
    ($($name:ident -> $type:ty),*) => {
        $(fn $name(&self, index: usize) -> Result<$type, StoreError> {
            sqlx::Row::try_get(self, index).map_err(unreadable)
        })*
    };
    ($row:ty) => {
        impl Cells for $row {
            cells!(
                number -> i64, number_if_any -> Option<i64>, text -> &str, text_if_any -> Option<&str>,
                bytes -> &[u8], bytes_if_any -> Option<&[u8]>
            );
        }
    };
}
cells!(sqlx::sqlite::SqliteRow);
cells!(sqlx::postgres::PgRow);

pub(super) fn unreadable(error: sqlx::Error) -> StoreError {
    match error {
        // Its text could hold the value.
        sqlx::Error::ColumnDecode { index, .. } => {
            StoreError::unreadable(format!("column {index} cannot be read"))
        }
        other => other.into(),
    }
}

impl From<sqlx::Error> for StoreError {
    /// SQLite's texts name tables and columns, never values. PostgreSQL's may where values are the matter. Of a file that
    /// is at hand any failure can be the data's own; a server fails for many reasons, and says which this is.
    fn from(error: sqlx::Error) -> Self {
        let Some(told) = error.as_database_error() else { return Self::new(error.to_string()) };
        let Some(told) = told.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() else {
            return Self::unreadable(error.to_string());
        };
        let about_values = told.code().starts_with("22") || told.code().starts_with("23");
        let what = if about_values { "a value was refused" } else { told.message() };
        let text = format!("{what} (SQLSTATE {})", told.code());
        // Internal error (such as a missing part of a value), data corrupted, index corrupted, input/output error.
        match told.code() {
            "XX000" | "XX001" | "XX002" | "58030" => Self::unreadable(text),
            _ => Self::new(text),
        }
    }
}

/// The columns of [`summary`], of `message m`.
macro_rules! summary_columns {
    () => {
        "m.sequence, m.received, m.listener, m.peer, m.control_id, m.trigger_event, m.sending_application,
         m.sending_facility, m.patient, m.nhs_number, m.local_number, m.visit, m.orders, m.size_bytes, m.hash,
         m.quarantine, m.flag"
    };
}
pub(super) use summary_columns;

pub(super) fn summary(row: &impl Cells) -> Result<Summary, StoreError> {
    Ok(Summary {
        sequence: Sequence(row.number(0)?),
        received: instant(row.number(1)?)?,
        listener: row.text(2)?.to_owned(),
        peer: row.text(3)?.to_owned(),
        keys: Keys {
            control_id: row.text(4)?.to_owned(),
            trigger: row.text(5)?.to_owned(),
            sending_application: row.text(6)?.to_owned(),
            sending_facility: row.text(7)?.to_owned(),
            patient: row.text(8)?.to_owned(),
            nhs_number: row.text(9)?.to_owned(),
            local_number: row.text(10)?.to_owned(),
            visit: row.text(11)?.to_owned(),
            orders: read_orders(row.text(12)?)?,
        },
        size_bytes: usize::try_from(row.number(13)?).unwrap_or(usize::MAX),
        // A hash of another length is damage: it will match nothing.
        hash: row.bytes(14)?.try_into().unwrap_or_default(),
        quarantine: row.text_if_any(15)?.map(str::to_owned),
        flag: row.text_if_any(16)?.map(str::to_owned),
    })
}

/// The columns of [`stored`], of `message m`.
macro_rules! stored_columns {
    () => {
        concat!($crate::journal::rows::summary_columns!(), ", m.codec, m.body")
    };
}
pub(super) use stored_columns;

pub(super) fn stored(row: &impl Cells) -> Result<Stored, StoreError> {
    let summary = summary(row)?;
    let codec = u8::try_from(row.number(17)?).ok().and_then(Codec::from_number);
    let (size_bytes, hash) = (summary.size_bytes, summary.hash);
    let body = match (codec, row.bytes_if_any(18)?) {
        (_, None) => Err(Flaw::Removed),
        (None, _) => Err(Flaw::Unreadable),
        (Some(codec), Some(packed)) => Ok(Body { codec, size_bytes, hash, packed: packed.to_vec() }),
    };
    Ok(Stored { summary, body })
}

/// The columns of [`pending`], of `pending`.
macro_rules! pending_columns {
    () => {
        "sequence, route, destination, lanes, received, state, attempts, first_attempt"
    };
}
pub(super) use pending_columns;

pub(super) fn pending(row: &impl Cells) -> Result<Pending, StoreError> {
    Ok(Pending {
        id: id(row)?,
        lanes: lanes(row.text(3)?)?,
        received: instant(row.number(4)?)?,
        state: state(row.number(5)?)?,
        attempts: count(row.number(6)?),
        first_attempt: row.number_if_any(7)?.map(instant).transpose()?,
    })
}

/// The columns of [`delivery`], of `delivery d`.
pub(super) const DELIVERY_COLUMNS: &str = "d.sequence, d.route, d.destination, d.state, d.lanes, d.at,
    d.attempts, d.first_attempt, d.revision, d.reason, d.class";

pub(super) fn delivery(row: &impl Cells) -> Result<DeliveryRecord, StoreError> {
    Ok(DeliveryRecord {
        id: id(row)?,
        state: state(row.number(3)?)?,
        lanes: lanes(row.text(4)?)?,
        at: Some(instant(row.number(5)?)?),
        attempts: count(row.number(6)?),
        first_attempt: row.number_if_any(7)?.map(instant).transpose()?,
        revision: row.text(8)?.to_owned(),
        reason: row.text(9)?.to_owned(),
        class: row.text_if_any(10)?.and_then(class),
    })
}

/// Every delivery of a message, by destination and route: those that have ended or failed, as they are known, and the
/// unfinished ones, which say where those stand now.
pub(super) fn of_message(
    known: &[impl Cells],
    unfinished: &[impl Cells],
) -> Result<Vec<DeliveryRecord>, StoreError> {
    let mut found = std::collections::BTreeMap::new();
    let key = |id: &DeliveryId| (id.destination.clone(), id.route.clone());
    for row in known {
        let delivery = delivery(row)?;
        found.insert(key(&delivery.id), delivery);
    }
    for row in unfinished {
        let pending = pending(row)?;
        let never_attempted = || DeliveryRecord {
            id: pending.id.clone(),
            state: State::Ready,
            lanes: Vec::new(),
            at: None,
            attempts: 0,
            first_attempt: None,
            revision: String::new(),
            reason: String::new(),
            class: None,
        };
        let delivery = found.entry(key(&pending.id)).or_insert_with(never_attempted);
        delivery.lanes = pending.lanes;
        delivery.state = pending.state;
        delivery.attempts = pending.attempts;
        delivery.first_attempt = pending.first_attempt;
    }
    Ok(found.into_values().collect())
}

/// The columns of [`output`], of `delivery d`.
macro_rules! output_columns {
    () => {
        "d.sequence, d.route, d.destination, d.state, d.revision, d.output, d.detail, d.reason"
    };
}
pub(super) use output_columns;

pub(super) fn output(row: &impl Cells) -> Result<StoredDelivery, StoreError> {
    Ok(StoredDelivery {
        id: id(row)?,
        state: state(row.number(3)?)?,
        revision: row.text(4)?.to_owned(),
        output: row.bytes_if_any(5)?.map(|bytes| Blob::read(bytes.to_vec())),
        detail: row.bytes_if_any(6)?.map(|bytes| Blob::read(bytes.to_vec())),
        reason: row.text(7)?.to_owned(),
    })
}

/// The columns of [`audit`].
macro_rules! audit_columns {
    () => {
        "at, action, who, why, asked, deliveries"
    };
}
pub(super) use audit_columns;

pub(super) fn audit(row: &impl Cells) -> Result<Audit, StoreError> {
    Ok(Audit {
        at: instant(row.number(0)?)?,
        action: row.text(1)?.to_owned(),
        who: row.text(2)?.to_owned(),
        why: row.text(3)?.to_owned(),
        asked: row.text(4)?.to_owned(),
        deliveries: row.number(5)?.unsigned_abs(),
    })
}

/// The columns of [`arrival`], of `message`.
macro_rules! arrival_columns {
    () => {
        "sequence, received, listener, sending_application, sending_facility, control_id, hash"
    };
}
pub(super) use arrival_columns;

pub(super) fn arrival(row: &impl Cells) -> Result<Arrival, StoreError> {
    Ok(Arrival {
        sequence: Sequence(row.number(0)?),
        received: instant(row.number(1)?)?,
        listener: row.text(2)?.to_owned(),
        sending_application: row.text(3)?.to_owned(),
        sending_facility: row.text(4)?.to_owned(),
        control_id: row.text(5)?.to_owned(),
        // A hash of another length is damage: it will match nothing.
        hash: row.bytes(6)?.try_into().unwrap_or_default(),
    })
}

/// The first three columns of everything that is about a delivery.
fn id(row: &impl Cells) -> Result<DeliveryId, StoreError> {
    Ok(DeliveryId {
        sequence: Sequence(row.number(0)?),
        route: row.text(1)?.to_owned(),
        destination: row.text(2)?.to_owned(),
    })
}

/// The number of a state in a store.
pub(super) fn state_number(state: State) -> i64 {
    match state {
        State::Ready => 0,
        State::Retrying => 1,
        State::Parked => 2,
        State::Held => 3,
        State::Filtered => 4,
        State::Delivered => 5,
        State::Dead => 6,
    }
}

pub(super) fn state(number: i64) -> Result<State, StoreError> {
    let found = State::ALL.into_iter().find(|state| state_number(*state) == number);
    found.ok_or_else(|| StoreError::unreadable(format!("a delivery has the unknown state {number}")))
}

pub(super) fn instant(microseconds: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(microseconds)
        .map_err(|_| StoreError::unreadable(format!("a row has the impossible time {microseconds}")))
}

/// A limit as databases take it.
pub(super) fn many(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(super) fn json<T: serde::Serialize>(rows: &[T]) -> Result<String, StoreError> {
    serde_json::to_string(rows)
        .map_err(|error| StoreError::new(format!("rows cannot be written down: {error}")))
}

fn class(word: &str) -> Option<ErrorClass> {
    ErrorClass::ALL.into_iter().find(|class| class.word() == word)
}

/// Order numbers as they are stored. Most messages have none: an empty text is shorter than an empty list.
pub(super) fn write_orders(orders: &[String]) -> String {
    if orders.is_empty() { String::new() } else { serde_json::Value::from(orders).to_string() }
}

pub(super) fn read_orders(text: &str) -> Result<Vec<String>, StoreError> {
    match text {
        "" => Ok(Vec::new()),
        list => serde_json::from_str(list)
            .map_err(|_| StoreError::unreadable("the order numbers of a message cannot be read")),
    }
}

fn lanes(text: &str) -> Result<Vec<String>, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::unreadable("the lanes of a delivery cannot be read"))
}

fn count(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
