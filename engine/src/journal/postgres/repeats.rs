//! What repeats are recognised by: routed messages, the newest first, and those with one source and control id.

use jiff::Timestamp;
use sqlx::{Connection, PgConnection, QueryBuilder};

use super::{
    search::{LOOKED_AT, candidates, push_has},
    spans, text,
};
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
    let key = Key::ControlId(&arrival.control_id);
    let mut transaction = connection.begin().await?;
    let mut predecessors = Predecessors::default();
    let Some((first, last)) = spans::bounds(&mut transaction, Some(since), None).await? else {
        return Ok(predecessors);
    };
    let mut before = before.0.min(last + 1);
    while first < before && (predecessors.copy.is_none() || predecessors.other.is_none()) {
        let found = candidates(&mut transaction, key, (first, before), LOOKED_AT).await?;
        let among = among(&mut transaction, arrival, since, found.sequences).await?;
        predecessors.copy = predecessors.copy.or(among.copy);
        predecessors.other = predecessors.other.or(among.other);
        before = found.from;
    }
    Ok(predecessors)
}

/// The newest of some messages.
async fn among(
    connection: &mut PgConnection,
    arrival: &Arrival,
    since: Timestamp,
    sequences: Vec<i64>,
) -> Result<Predecessors, StoreError> {
    let mut sql = QueryBuilder::new("SELECT max(m.sequence) FILTER (WHERE m.hash = ");
    sql.push_bind(arrival.hash.to_vec()).push("), max(m.sequence) FILTER (WHERE m.hash <> ");
    sql.push_bind(arrival.hash.to_vec()).push(") FROM message m WHERE m.sequence = ANY(");
    sql.push_bind(sequences).push(")");
    push_has(&mut sql, Key::ControlId(&arrival.control_id));
    sql.push(" AND m.received >= ").push_bind(since.as_microsecond());
    sql.push(" AND m.listener = ").push_bind(text(&arrival.listener));
    sql.push(" AND m.sending_application = ").push_bind(text(&arrival.sending_application));
    sql.push(" AND m.sending_facility = ").push_bind(text(&arrival.sending_facility));
    let row = sql.push(" AND m.quarantine IS NULL").build().fetch_one(connection).await?;
    let newest = |column| Ok::<_, StoreError>(row.number_if_any(column)?.map(Sequence));
    Ok(Predecessors { copy: newest(0)?, other: newest(1)? })
}
