//! The shipped mappings and routes, and the messages to try them with.
#![allow(dead_code)] // each test binary uses its part

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use jiff::tz::TimeZone;
use tie_engine::{
    hl7::Message,
    mapping::{Context, Files, Limits, Mappings},
    routing::{Known, Routes},
};

/// The mapping of the first shipped route that takes a message.
pub fn mapping_of(message: &Message) -> Option<String> {
    routes().matching("hospital", message).next().map(|route| route.map.clone())
}

/// The shipped routes.
pub fn routes() -> &'static Routes {
    static ROUTES: LazyLock<Routes> = LazyLock::new(|| {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let known = Known {
            listeners: Some(&names(&["hospital", "fhir"])),
            destinations: Some(&names(&["shared-care-record", "epr"])),
            mappings: Some(&shipped().names().map(str::to_owned).collect()),
        };
        let files = walk(&root().join("routes")).into_iter().map(|file| {
            let text = fs::read_to_string(&file).unwrap();
            (file, Arc::from(text))
        });
        Routes::parse(&files.collect(), &known).expect("the shipped routes are sound")
    });
    &ROUTES
}

pub fn context() -> Context {
    Context {
        received: "2026-01-15T09:30:01Z".parse().unwrap(),
        zone: TimeZone::get("Europe/London").unwrap(),
        environment: "test".into(),
        revision: "sample".into(),
        coverage: false,
    }
}

pub fn shipped() -> Mappings {
    compiled(&files())
}

/// The scripts and tables as they are shipped.
pub fn files() -> Files {
    let root = root();
    walk(&root.join("mappings"))
        .into_iter()
        .filter(|file| matches!(extension(file), "rhai" | "csv"))
        .map(|file| {
            (file.strip_prefix(&root).unwrap().to_owned(), Arc::from(fs::read_to_string(&file).unwrap()))
        })
        .collect()
}

pub fn compiled(files: &Files) -> Mappings {
    Mappings::compile(files, &Limits::default()).unwrap_or_else(|problems| {
        panic!("{}", problems.iter().map(|problem| format!("{problem}\n")).collect::<String>())
    })
}

pub fn messages(folder: &Path) -> Vec<PathBuf> {
    walk(folder).into_iter().filter(|file| matches!(extension(file), "hl7" | "fhir")).collect()
}

pub fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(walk(&path));
        } else {
            found.insert(path);
        }
    }
    found.into_iter().collect()
}

pub fn extension(file: &Path) -> &str {
    file.extension().and_then(|extension| extension.to_str()).unwrap_or_default()
}

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
