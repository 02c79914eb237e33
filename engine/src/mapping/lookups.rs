//! Code tables for scripts: a table by name, its rows by code. A code without a row is reported. And codes as concepts.

use std::sync::Arc;

use rhai::EvalAltResult;
use smol_str::SmolStr;

use super::{
    current::with,
    datum::{Datum, Opaque},
    fault::fault,
    handles::{NodeHandle, text},
    host::Host,
    nodes::node,
};
use crate::fhir::{self, Node, name::name};

type Result<T> = std::result::Result<T, Box<EvalAltResult>>;

/// A table of the revision, by name.
#[derive(Clone)]
struct TableHandle(SmolStr);

/// What a table says of a code.
#[derive(Clone)]
struct RowHandle {
    table: SmolStr,
    row: Arc<fhir::Row>,
}

impl Opaque for TableHandle {}
impl Opaque for RowHandle {}

/// Gives scripts the tables.
pub(super) fn register(host: &mut Host) {
    host.register_type_with_name::<TableHandle>("Table");
    host.register_type_with_name::<RowHandle>("Row");
    host.register_fn("table", |name: SmolStr| {
        with(|current| match current.tables.get(&name) {
            Some(_) => Ok(TableHandle(name)),
            None => Err(fault("there is no such table")),
        })
    })
    .register_fn("get", |table: &mut TableHandle, code: Datum| row(table, &text(code)?, true))
    .register_fn("has", |table: &mut TableHandle, code: Datum| -> Result<bool> {
        Ok(row(table, &text(code)?, false)?.is_some())
    })
    .register_indexer_get(|table: &mut TableHandle, code: Datum| row(table, &text(code)?, true))
    .register_fn("from", |table: &mut TableHandle, code: Datum| origin(table, &text(code)?))
    .register_get("code", |row: &mut RowHandle| cell(row.row.code()))
    .register_get("system", |row: &mut RowHandle| cell(row.row.system()))
    .register_get("display", |row: &mut RowHandle| cell(row.row.display()))
    .register_indexer_get(|row: &mut RowHandle, column: SmolStr| {
        with(|current| match current.tables.get(&row.table) {
            Some(table) if table.columns().any(|heading| heading == column.as_str()) => {
                Ok(cell(table.cell(&row.row, &column)))
            }
            _ => Err(fault("the table has no such column")),
        })
    })
    .register_fn("coding", |row: &mut RowHandle| NodeHandle::wrap(row.row.coding()))
    .register_fn("concept", |system: Datum, code: Datum, display: Datum| -> Result<Datum> {
        let (code, display, system) = (node(code)?, node(display)?, node(system)?);
        let coding = [(name!("code"), code), (name!("display"), display), (name!("system"), system)];
        Ok(NodeHandle::wrap(Node::concept(Node::object(coding))))
    });
}

fn row(table: &TableHandle, code: &str, report: bool) -> Result<Option<RowHandle>> {
    with(|current| {
        let Some(found) = current.tables.get(&table.0) else { return Err(fault("there is no such table")) };
        let row = if report { current.cx(None).look_up(found, code) } else { found.get(code) };
        Ok(row.map(|row| RowHandle { table: table.0.clone(), row: Arc::new(row.clone()) }))
    })
}

/// The first code that becomes this one: the table read backwards.
fn origin(table: &TableHandle, code: &str) -> Result<Option<SmolStr>> {
    with(|current| {
        let Some(found) = current.tables.get(&table.0) else { return Err(fault("there is no such table")) };
        let mut rows = found.rows().filter(|(from, _)| *from != "*");
        let from = rows.find(|(_, row)| row.code().is_some_and(|own| own == code));
        Ok(from.map(|(from, _)| SmolStr::from(from)))
    })
}

fn cell(cell: Option<&SmolStr>) -> Option<SmolStr> {
    cell.cloned()
}
