//! What repeats are recognised by: routed messages, the newest first, and those with one source and control id.

use jiff::Timestamp;
use sqlx::SqlitePool;

use super::column;
use crate::journal::{
    Arrival, Predecessors, Sequence,
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
    // The second half is for what the search table does not have yet: nothing, where `before` is below its mark.
    const EARLIER: &str =
        "SELECT max(m.sequence) FILTER (WHERE m.hash = ?1), count(*) FILTER (WHERE m.hash <> ?1)
        FROM message m WHERE m.sequence IN (
            SELECT sequence FROM search WHERE kind = 1 AND value = ?2 AND sequence < ?3
            UNION ALL
            SELECT sequence FROM message WHERE control_id = ?2 AND sequence < ?3
            AND sequence > (SELECT value FROM mark WHERE name = 'searched'))
        AND m.received >= ?4 AND m.listener = ?5 AND m.sending_application = ?6 AND m.sending_facility = ?7
        AND m.quarantine IS NULL";
    let row = sqlx::query(EARLIER)
        .bind(arrival.hash.as_slice())
        .bind(arrival.control_id.as_str())
        .bind(before.0)
        .bind(since.as_microsecond())
        .bind(arrival.listener.as_str())
        .bind(arrival.sending_application.as_str())
        .bind(arrival.sending_facility.as_str())
        .fetch_one(readers)
        .await?;
    let copy = column::<Option<i64>>(&row, 0)?.map(Sequence);
    Ok(Predecessors { copy, others: column::<i64>(&row, 1)? > 0 })
}
