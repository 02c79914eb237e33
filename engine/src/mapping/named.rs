//! Resources that a field names, for scripts: the practitioner of an XCN, the organisation of an XON, the places of
//! a PL. The native data types make them; here they are put into a bundle and referred to.

use rhai::{Dynamic, Engine, EvalAltResult, ImmutableString};

use super::{
    current::with,
    fault::fault,
    handles::{BundleHandle, NodeHandle},
    plan::reference_to,
    values::FieldHandle,
};
use crate::fhir::types::resources;

type Result<T> = std::result::Result<T, Box<EvalAltResult>>;

/// Puts what a field names into the bundle, and gives references to it.
pub(super) fn register(engine: &mut Engine) {
    engine
        .register_fn("refer", |out: &mut BundleHandle, data_type: ImmutableString, value: FieldHandle| {
            let mut found = refer(*out, &data_type, &[value])?;
            Ok::<_, Box<EvalAltResult>>(found.pop().unwrap_or(Dynamic::UNIT))
        })
        .register_fn(
            "refer_all",
            |out: &mut BundleHandle, data_type: ImmutableString, values: rhai::Array| {
                let values: Vec<FieldHandle> = values.into_iter().filter_map(Dynamic::try_cast).collect();
                refer(*out, &data_type, &values)
            },
        );
}

fn refer(out: BundleHandle, data_type: &str, values: &[FieldHandle]) -> Result<rhai::Array> {
    with(|current| {
        let parts: Vec<_> = values.iter().filter_map(|value| value.find(current).part()).collect();
        let Some(found) = resources::named(data_type, &parts, &current.cx(None)) else {
            return Err(fault("this data type names no resource: XCN, XON, HD and PL do"));
        };
        let Some(bundle) = current.bundles.get_mut(out.bundle) else {
            return Err(fault("this bundle is gone"));
        };
        Ok(found.into_iter().map(|one| NodeHandle::wrap(reference_to(one, bundle))).collect())
    })
}
