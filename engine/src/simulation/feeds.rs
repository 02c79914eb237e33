//! The configurations of the simulated instance: real `tie.toml`, routes and mappings, built once for each thread.

use std::{cell::OnceCell, collections::BTreeMap, path::PathBuf, sync::Arc};

use super::{receivers, senders};
use crate::{
    config::Snapshot,
    connector::{Plugin, Role},
    revision::Revision,
};

pub const DESTINATIONS: [&str; 3] = ["archive", "pacs", "record"];
/// The one that must get nothing twice.
pub const HELD: &str = "pacs";

/// One way to configure the instance, and who is owed what in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    Home,
    /// Another mapping, which also knows what to do with what was held.
    Mended,
    /// Without the route `adt`.
    NoAdt,
    /// Without the destination `archive`.
    NoArchive,
    /// Other settings of the destination `record`.
    Slower,
    /// The route `results` in the order of each patient, not of the whole route.
    ByPatient,
}

impl Variant {
    pub const ALL: [Self; 6] =
        [Self::Home, Self::Mended, Self::NoAdt, Self::NoArchive, Self::Slower, Self::ByPatient];

    /// The routes and destinations that a message is owed to, sorted.
    pub fn owed(self, listener: &str, trigger: &str) -> Vec<(&'static str, &'static str)> {
        let hospital = listener == "hospital";
        let archive = self != Self::NoArchive;
        let mut owed = Vec::new();
        if hospital && trigger.starts_with("ADT") && self != Self::NoAdt {
            owed.push(("adt", "record"));
            owed.extend(archive.then_some(("adt", "archive")));
        }
        if hospital && trigger == "ADT^A08" {
            owed.push(("copy", "record"));
        }
        if trigger.starts_with("ADT") || trigger.starts_with("ORU") {
            owed.push(("images", "pacs"));
        }
        if !hospital && trigger.starts_with("ORU") {
            owed.push(("results", "record"));
            owed.extend(archive.then_some(("results", "archive")));
        }
        owed.sort_unstable();
        owed
    }

    pub fn has_destination(self, name: &str) -> bool {
        self != Self::NoArchive || name != "archive"
    }
}

/// The revision of a variant.
pub fn revision(variant: Variant) -> Arc<Revision> {
    thread_local! {
        static BUILT: [OnceCell<Arc<Revision>>; Variant::ALL.len()] = const { [const { OnceCell::new() }; 6] };
    }
    BUILT.with(|built| built[variant as usize].get_or_init(|| Arc::new(build(variant))).clone())
}

fn build(variant: Variant) -> Revision {
    let files = |files: Vec<(&str, String)>| {
        files.into_iter().map(|(name, text)| (PathBuf::from(name), Arc::from(text))).collect()
    };
    let mut routes = vec![
        ("routes/copy.toml", COPY.to_owned()),
        ("routes/images.toml", IMAGES.to_owned()),
        ("routes/results.toml", RESULTS.to_owned()),
    ];
    if variant != Variant::NoAdt {
        routes.push(("routes/adt.toml", ADT.to_owned()));
    }
    if variant == Variant::NoArchive {
        for (_, text) in &mut routes {
            *text = text.replace(TO_ARCHIVE, "");
        }
    }
    if variant == Variant::ByPatient {
        for (_, text) in &mut routes {
            *text = text.replace("order = 'route'", "order = 'patient'");
        }
    }
    let hold = if variant == Variant::Home { "true" } else { "false" };
    let script = |route: &str| SCRIPT.replace("ROUTE", route).replace("HOLD", hold);
    let mappings =
        ["adt", "copy", "images", "results"].map(|route| (format!("mappings/{route}.rhai"), script(route)));
    let config = INSTANCE.to_owned() + if variant == Variant::NoArchive { "" } else { ARCHIVE };
    let config = if variant == Variant::Slower {
        config.replace("concurrency = 4", "concurrency = 2")
    } else {
        config
    };
    let snapshot = Snapshot {
        home: PathBuf::from("."),
        config_file: PathBuf::from("tie.toml"),
        config: Arc::from(config),
        routes: files(routes),
        mappings: files(mappings.iter().map(|(name, text)| (name.as_str(), text.clone())).collect()),
        folders: vec![PathBuf::from("mappings")],
        samples: BTreeMap::new(),
        revision: format!("{variant:?}"),
        git_commit: None,
    };
    match Revision::build(&snapshot, PLUGINS) {
        Ok(revision) => revision,
        Err(problems) => panic!("{variant:?}: {problems:?}"),
    }
}

const PLUGINS: &[Plugin] = &[Plugin {
    name: "simulated",
    about: "A system of the simulation.",
    answers: &[],
    source: Some(Role {
        example: "",
        schema: || schemars::schema_for!(senders::Options),
        build: |options| options.parse::<senders::Options>().map(|_| senders::source(&options.name)),
    }),
    destination: Some(Role {
        example: "",
        schema: || schemars::schema_for!(receivers::Options),
        build: |options| options.parse::<receivers::Options>().map(|_| receivers::destination(&options.name)),
    }),
}];

const INSTANCE: &str = "environment = 'test'\njournal.path = 'journal'\n\
    [limits]\nmapping_operations = 3000\nmapping_time = '60s'\n\
    [listener.hospital]\nkind = 'simulated'\n\
    [listener.laboratory]\nkind = 'simulated'\nunmatched = 'accept'\n\
    [destination.record]\nkind = 'simulated'\ntimeout = '5s'\nconcurrency = 4\nrepeat = 'safe'\n\
    [destination.pacs]\nkind = 'simulated'\ntimeout = '5s'\nconcurrency = 3\nrepeat = 'hold'\n";
const ARCHIVE: &str =
    "[destination.archive]\nkind = 'simulated'\ntimeout = '3s'\nconcurrency = 1\nrepeat = 'safe'\n";

const TO_ARCHIVE: &str = "[[to]]\ndestination = 'archive'\n\
    retry = { first = '1s', max = '10s', give_up = '40s', then = 'park' }\n";
const ADT: &str = "from = 'hospital'\nmap = 'adt'\naccept = { trigger = 'ADT' }\norder = 'patient'\n\
    [[to]]\ndestination = 'record'\nretry = { first = '1s', max = '20s', give_up = '1h', then = 'dead-letter' }\n\
    [[to]]\ndestination = 'archive'\n\
    retry = { first = '1s', max = '10s', give_up = '40s', then = 'park' }\n";
const COPY: &str = "from = 'hospital'\nmap = 'copy'\naccept = { trigger = 'ADT^A08' }\norder = 'patient'\n\
    [[to]]\ndestination = 'record'\nretry = { first = '1s', max = '5s', give_up = '24h', then = 'park' }\n";
const IMAGES: &str = "from = ['hospital', 'laboratory']\nmap = 'images'\naccept = { trigger = ['ADT', 'ORU'] }\n\
    order = 'none'\n[[to]]\ndestination = 'pacs'\n\
    retry = { first = '1s', max = '5s', give_up = '30s', then = 'dead-letter' }\n";
const RESULTS: &str = "from = 'laboratory'\nmap = 'results'\naccept = { trigger = 'ORU' }\norder = 'route'\n\
    [[to]]\ndestination = 'record'\nretry = { first = '1s', max = '20s', give_up = '24h', then = 'dead-letter' }\n\
    [[to]]\ndestination = 'archive'\n\
    retry = { first = '1s', max = '10s', give_up = '40s', then = 'park' }\n";

const SCRIPT: &str = r##"
fn patient(msg, id) {
    #{ resourceType: "Patient", id: "ROUTE-" + id, identifier: [#{ value: msg["ZSM-2"].text }] }
}
fn map(msg) {
    let kind = msg["ZSM-1"].text;
    if kind == "skip" { return skip("not for this place"); }
    if kind == "hold" && HOLD { return hold("a person must look"); }
    if kind == "reject" { return reject("it cannot be mapped"); }
    if kind == "throw" { throw "on purpose"; }
    if kind == "endless" { loop { } }
    let out = [patient(msg, msg["PID-3.1"].text)];
    if kind == "merge" { out.push(patient(msg, msg["MRG-1.1"].text)); }
    if kind == "double" { out.push(patient(msg, msg["PID-3.1"].text + "-2")); }
    out
}
"##;
