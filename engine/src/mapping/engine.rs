//! The Rhai engine that mappings run in: what it offers, and what it never lets a script do.
//!
//! No file, socket, clock, randomness or printing; operations, time, depth and sizes are bounded.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::OnceLock,
};

use rhai::{
    Dynamic, Engine, INT, Module, OptimizationLevel,
    packages::{
        BasicArrayPackage, BasicBlobPackage, BasicMapPackage, BasicMathPackage, BitFieldPackage, CorePackage,
        LogicPackage, MoreStringPackage, Package,
    },
};

use super::{
    Limits, apart, belonging, current, drafts,
    fault::{Verdict, fault},
    groups, handles,
    host::Host,
    lines, lookups, named, preference, reading, series, spans, tokens, values, wire,
};

/// How often the clock is looked at, in operations; a power of two.
const CLOCK_EVERY: u64 = 256;

/// Functions of Rhai's packages that mappings do without.
const WITHHELD: [&str; 6] = ["sleep", "exit", "eval", "print", "debug", "Fn"];

/// An engine with everything that scripts may call.
pub(super) fn build(limits: &Limits) -> Host {
    let mut engine = Engine::new_raw();
    engine.register_global_module(package().into());
    for word in ["eval", "Fn"] {
        engine.disable_symbol(word);
    }
    engine
        .set_max_operations(limits.operations)
        .set_max_call_levels(limits.depth)
        .set_max_expr_depths(64, 64)
        .set_max_variables(1000)
        .set_max_functions(1000)
        .set_max_modules(1000)
        .set_max_string_size(limits.text_bytes)
        .set_max_array_size(limits.items)
        .set_max_map_size(limits.items)
        .set_allow_shadowing(true)
        .set_strict_variables(true)
        .set_fail_on_invalid_map_property(true)
        .set_optimization_level(OptimizationLevel::Simple);
    engine.on_progress(|count| {
        (count % CLOCK_EVERY == 0 && current::is_late()).then(|| Dynamic::from(Verdict::Late))
    });
    tokens::register(&mut engine);
    let mut host = Host::new(engine);
    values::register(&mut host);
    groups::register(&mut host);
    handles::register(&mut host);
    named::register(&mut host);
    preference::register(&mut host);
    series::register(&mut host);
    apart::register(&mut host);
    lines::register(&mut host);
    spans::register(&mut host);
    lookups::register(&mut host);
    drafts::register(&mut host);
    reading::register(&mut host);
    belonging::register(&mut host);
    wire::register(&mut host);
    #[cfg(test)]
    host.register_fn("test_panic", || -> bool { panic!("on purpose") });
    host.register_fn("sleep", |_: INT| Err::<(), _>(fault("a mapping cannot wait")));
    host
}

/// The names and numbers of arguments (the object of a method included) of all native functions.
pub(super) fn functions() -> &'static BTreeMap<String, BTreeSet<usize>> {
    static FUNCTIONS: OnceLock<BTreeMap<String, BTreeSet<usize>>> = OnceLock::new();
    FUNCTIONS.get_or_init(|| {
        #[derive(serde::Deserialize)]
        struct Listing {
            functions: Vec<Function>,
        }
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Function {
            name: String,
            num_params: usize,
        }
        let text = build(&Limits::default()).engine.gen_fn_metadata_to_json(true).unwrap_or_default();
        let listing: Listing = serde_json::from_str(&text).unwrap_or(Listing { functions: Vec::new() });
        let mut found: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
        for function in listing.functions {
            found.entry(function.name).or_default().insert(function.num_params);
        }
        // Words that Rhai's engine itself answers, and ours that exist only while constants are made.
        for (name, count) in [
            ("type_of", 1),
            ("is_shared", 1),
            ("is_def_var", 1),
            ("segment_map", 3),
            ("with", 2),
            ("without", 2),
            ("preference", 1),
            ("ignored", 1),
            ("series", 3),
        ] {
            found.entry(name.into()).or_default().insert(count);
        }
        // What Rhai makes of a closure that uses variables around it, of which there may be this many.
        found.entry("curry".into()).or_default().extend(2..32);
        for name in WITHHELD {
            found.remove(name);
        }
        found
    })
}

/// Rhai's packages but the one with the clock, as one module: every module is another place to look a call up in.
fn package() -> Module {
    let mut package = Module::new();
    CorePackage::init(&mut package);
    BitFieldPackage::init(&mut package);
    LogicPackage::init(&mut package);
    BasicMathPackage::init(&mut package);
    BasicArrayPackage::init(&mut package);
    BasicBlobPackage::init(&mut package);
    BasicMapPackage::init(&mut package);
    MoreStringPackage::init(&mut package);
    package.register_lazy_functions();
    package.build_index();
    package
}
