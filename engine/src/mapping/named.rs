//! Resources that a field names, for scripts: the practitioner of an XCN, the organisation of an XON, the places of
//! a PL. The native data types make them; here they are put into a bundle and referred to.

use rhai::EvalAltResult;
use smol_str::SmolStr;

use super::{
    current::with,
    datum::{Datum, List},
    fault::fault,
    handles::{BundleHandle, NodeHandle, put_resource},
    host::Host,
    plan::references,
    values::{FieldHandle, fields},
};
use crate::fhir::types::resources::NAMED;

type Result<T> = std::result::Result<T, Box<EvalAltResult>>;

/// Puts what a field names into the bundle, and gives references to it.
pub(super) fn register(host: &mut Host) {
    host.register_fn("refer", |out: &mut BundleHandle, data_type: SmolStr, value: FieldHandle| {
        let mut found = refer(*out, &data_type, &[value])?;
        Ok::<_, Box<EvalAltResult>>(found.pop())
    })
    .register_fn("put_named", |out: &mut BundleHandle, data_type: SmolStr, value: FieldHandle| {
        let data_type = known(&data_type)?;
        with(|current| {
            let message = current.message.clone();
            let Some(part) = value.of_message(&message).part() else { return Ok(None) };
            let known = current.recall.borrow_mut().named(data_type, &[part], &current.cx(None));
            let mut last = None;
            for resource in &known.resources {
                last = Some(put_resource(current, *out, resource.clone())?);
            }
            Ok(last)
        })
    })
    .register_fn("refer_all", |out: &mut BundleHandle, data_type: SmolStr, values: List| {
        refer(*out, &data_type, &fields(&values).collect::<Vec<_>>())
    });
}

fn refer(out: BundleHandle, data_type: &str, values: &[FieldHandle]) -> Result<Vec<Datum>> {
    let data_type = known(data_type)?;
    with(|current| {
        let message = current.message.clone();
        let parts: Vec<_> = values.iter().filter_map(|value| value.of_message(&message).part()).collect();
        let found = references(data_type, &parts, current, out.bundle);
        Ok(found.into_iter().map(NodeHandle::wrap).collect())
    })
}

fn known(data_type: &str) -> Result<&'static str> {
    let found = NAMED.iter().find(|(name, _)| *name == data_type).map(|(name, _)| *name);
    found.ok_or_else(|| fault("this data type names no resource: XCN, XON, HD and PL do"))
}
