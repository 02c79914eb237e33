//! What repeats are recognised by: routed messages, the newest first, and those with one source and control id.

use jiff::Timestamp;
use sqlx::{PgConnection, QueryBuilder};

use super::{search, text};
use crate::journal::{
    Arrival, Key, Predecessors, Sequence,
    rows::{self, Cells, arrival_columns, many},
    store::StoreError,
};

pub(super) async fn arrivals(
    connection: &mut PgConnection,
    before: Sequence,
    limit: usize,
) -> Result<Vec<Arrival>, StoreError> {
    const PAGE: &str = concat!(
        "SELECT ",
        arrival_columns!(),
        " FROM message WHERE sequence < $1 AND quarantine IS NULL ORDER BY sequence DESC LIMIT $2"
    );
    let rows = sqlx::query(PAGE).bind(before.0).bind(many(limit)).fetch_all(connection).await?;
    rows.iter().map(rows::arrival).collect()
}

pub(super) async fn earlier(
    connection: &mut PgConnection,
    arrival: &Arrival,
    since: Timestamp,
    before: Sequence,
) -> Result<Predecessors, StoreError> {
    let mut sql = QueryBuilder::new("SELECT max(m.sequence) FILTER (WHERE m.hash = ");
    sql.push_bind(arrival.hash.to_vec()).push("), max(m.sequence) FILTER (WHERE m.hash <> ");
    sql.push_bind(arrival.hash.to_vec()).push(") FROM ");
    search::push_found_by(&mut sql, Key::ControlId(&arrival.control_id));
    sql.push(" AND s.sequence < ").push_bind(before.0);
    sql.push(" AND m.received >= ").push_bind(since.as_microsecond());
    sql.push(" AND m.listener = ").push_bind(text(&arrival.listener));
    sql.push(" AND m.sending_application = ").push_bind(text(&arrival.sending_application));
    sql.push(" AND m.sending_facility = ").push_bind(text(&arrival.sending_facility));
    let row = sql.push(" AND m.quarantine IS NULL").build().fetch_one(connection).await?;
    let newest = |column| Ok::<_, StoreError>(row.number_if_any(column)?.map(Sequence));
    Ok(Predecessors { copy: newest(0)?, other: newest(1)? })
}
