//! Looking at every page and every body, also while an engine runs.
//!
//! In:       the directory of a journal; nothing is written there.
//! Out:      a [`Report`]: how much was looked at, and exactly what is damaged.
//! Promise:  P7. What can be read is read: a damaged page or row hides nothing but itself, and what lies beside a long
//!           message that it has damaged.
//! Not here: mending. A damaged message is for a person; the rest of the journal goes on.

use std::path::Path;

use serde::Serialize;
use sqlx::SqlitePool;

use super::{OpenError, column, open, read};
use crate::journal::{Sequence, blob::Blob, codec::Flaw, store::StoreError};

/// Messages looked at together.
const STEP: i64 = 256;
/// Faults of the database itself that are listed.
const LISTED: i64 = 100;

/// What a look at a whole journal has found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Messages looked at.
    pub messages: u64,
    /// Those of them whose bodies retention has removed.
    pub without_body: u64,
    /// Deliveries looked at.
    pub deliveries: u64,
    /// What SQLite says of its pages and indexes.
    pub pages: Vec<String>,
    /// What is damaged, by message.
    pub damaged: Vec<Damaged>,
}

/// One damaged thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damaged {
    /// The message.
    pub sequence: i64,
    /// The route, if it is a delivery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// The destination, if it is a delivery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// What is wrong.
    pub what: String,
}

impl Report {
    /// Whether all is well.
    pub fn is_sound(&self) -> bool {
        self.pages.is_empty() && self.damaged.is_empty()
    }
}

/// Looks at the whole journal in a directory.
///
/// # Errors
/// When there is no journal, or nothing of it can be read.
pub async fn verify(directory: &Path) -> Result<Report, OpenError> {
    database(&directory.join(open::DATABASE)).await
}

/// Looks at a whole database, whatever its name.
pub(super) async fn database(database: &Path) -> Result<Report, OpenError> {
    let failed = |error| OpenError::Database { directory: database.to_owned(), error };
    let readers = open::readers(database).await?;
    let mut report = Report { pages: pages(&readers).await, ..Report::default() };
    let looked = bodies(&readers, &mut report).await;
    readers.close().await;
    match looked {
        Err(error) if report.pages.is_empty() => Err(failed(error)),
        // The check has told of it already.
        _ => Ok(report),
    }
}

/// SQLite's own check of every page, index and constraint.
async fn pages(readers: &SqlitePool) -> Vec<String> {
    let check = sqlx::AssertSqlSafe(format!("PRAGMA integrity_check({LISTED})"));
    match sqlx::query_scalar::<_, String>(check).fetch_all(readers).await {
        Ok(said) => said.into_iter().filter(|line| line != "ok").collect(),
        Err(error) => vec![format!("the check itself failed: {error}")],
    }
}

async fn bodies(readers: &SqlitePool, report: &mut Report) -> Result<(), StoreError> {
    let mut after = (i64::MIN, i64::MIN);
    loop {
        let page = places(readers, after).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = *last;
        let sequences: Vec<_> = page.iter().map(|(_, sequence)| Sequence(*sequence)).collect();
        look_at_messages(readers, &sequences, report).await;
        look_at_deliveries(readers, &sequences, report).await;
    }
}

/// Times and sequences, in the order of the index: the table itself may be what is damaged.
async fn places(readers: &SqlitePool, after: (i64, i64)) -> Result<Vec<(i64, i64)>, StoreError> {
    const BY_INDEX: &str = "SELECT received, sequence FROM message INDEXED BY message_received
        WHERE (received, sequence) > (?, ?) ORDER BY received, sequence LIMIT ?";
    let rows = sqlx::query(BY_INDEX).bind(after.0).bind(after.1).bind(STEP).fetch_all(readers).await?;
    rows.iter().map(|row| Ok((column(row, 0)?, column(row, 1)?))).collect()
}

/// Together if that goes well, one by one if not.
async fn look_at_messages(readers: &SqlitePool, sequences: &[Sequence], report: &mut Report) {
    report.messages += sequences.len() as u64;
    let found = match read::messages(readers, sequences, usize::MAX).await {
        Ok(found) => found,
        Err(_) => {
            let mut found = Vec::new();
            for sequence in sequences {
                match read::messages(readers, &[*sequence], usize::MAX).await {
                    Ok(one) => found.extend(one),
                    Err(error) => report.message(*sequence, error.to_string()),
                }
            }
            found
        }
    };
    for sequence in sequences {
        if !found.iter().any(|one| one.summary.sequence == *sequence) && !report.names(*sequence) {
            report.message(*sequence, "the index has it, the table has not".to_owned());
        }
    }
    for one in found {
        let sequence = one.summary.sequence;
        match one.body.and_then(|body| body.unpack()) {
            Ok(_) => {}
            Err(Flaw::Removed) => report.without_body += 1,
            Err(flaw) => report.message(sequence, flaw.to_string()),
        }
    }
}

async fn look_at_deliveries(readers: &SqlitePool, sequences: &[Sequence], report: &mut Report) {
    let found = match read::exchanges(readers, sequences).await {
        Ok(found) => found,
        Err(_) => {
            let mut found = Vec::new();
            for sequence in sequences {
                match read::exchanges(readers, &[*sequence]).await {
                    Ok(some) => found.extend(some),
                    Err(error) => report.message(*sequence, format!("its deliveries: {error}")),
                }
            }
            found
        }
    };
    for one in found {
        report.deliveries += 1;
        for (blob, name) in [(one.output, "what was sent"), (one.detail, "what was answered")] {
            let Some(blob) = blob else { continue };
            if let Err(flaw) = look_at_blob(readers, one.id.sequence, blob).await {
                report.damaged.push(Damaged {
                    sequence: one.id.sequence.0,
                    route: Some(one.id.route.clone()),
                    destination: Some(one.id.destination.clone()),
                    what: format!("{name}: {flaw}"),
                });
            }
        }
    }
}

async fn look_at_blob(readers: &SqlitePool, sequence: Sequence, blob: Blob) -> Result<(), Flaw> {
    if !blob.needs_message()? {
        return blob.unpack(&[]).map(drop);
    }
    let found = read::messages(readers, &[sequence], usize::MAX).await.map_err(|_| Flaw::Unreadable)?;
    match found.into_iter().next().map(|message| message.body) {
        // Retention has removed both since the output was read.
        None | Some(Err(Flaw::Removed)) => Ok(()),
        Some(message) => blob.unpack(&message?.unpack()?).map(drop),
    }
}

impl Report {
    fn message(&mut self, sequence: Sequence, what: String) {
        self.damaged.push(Damaged { sequence: sequence.0, route: None, destination: None, what });
    }

    fn names(&self, sequence: Sequence) -> bool {
        self.damaged.iter().any(|damaged| damaged.sequence == sequence.0)
    }
}
