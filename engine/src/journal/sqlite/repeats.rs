//! What repeats are recognised by: routed messages, the newest first, and those with one source and control id.

use jiff::Timestamp;
use std::sync::LazyLock;

use sqlx::{AssertSqlSafe, SqlitePool};

use super::{column, search::found_by};
use crate::journal::{
    Arrival, Key, Predecessors, Sequence,
    rows::{self, arrival_columns, many},
    store::StoreError,
};

pub(super) async fn arrivals(
    readers: &SqlitePool,
    before: Sequence,
    limit: usize,
) -> Result<Vec<Arrival>, StoreError> {
    const PAGE: &str = concat!(
        "SELECT ",
        arrival_columns!(),
        " FROM message WHERE sequence < ? AND quarantine IS NULL ORDER BY sequence DESC LIMIT ?"
    );
    let rows = sqlx::query(PAGE).bind(before.0).bind(many(limit)).fetch_all(readers).await?;
    rows.iter().map(rows::arrival).collect()
}

pub(super) async fn earlier(
    readers: &SqlitePool,
    arrival: &Arrival,
    since: Timestamp,
    before: Sequence,
) -> Result<Predecessors, StoreError> {
    static EARLIER: LazyLock<String> = LazyLock::new(|| {
        format!(
            "SELECT max(m.sequence) FILTER (WHERE m.hash = ?1), max(m.sequence) FILTER (WHERE m.hash <> ?1)
            FROM message m WHERE m.sequence IN ({})
            AND m.received >= ?4 AND m.listener = ?5 AND m.sending_application = ?6 AND m.sending_facility = ?7
            AND m.quarantine IS NULL",
            found_by(Key::ControlId(""), "?2", "1", "?3")
        )
    });
    let row = sqlx::query(AssertSqlSafe(EARLIER.as_str()))
        .bind(arrival.hash.as_slice())
        .bind(arrival.control_id.as_str())
        .bind(before.0)
        .bind(since.as_microsecond())
        .bind(arrival.listener.as_str())
        .bind(arrival.sending_application.as_str())
        .bind(arrival.sending_facility.as_str())
        .fetch_one(readers)
        .await?;
    let newest = |number| Ok::<_, StoreError>(column::<Option<i64>>(&row, number)?.map(Sequence));
    Ok(Predecessors { copy: newest(0)?, other: newest(1)? })
}
