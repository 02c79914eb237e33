//! The rules of the house that no compiler holds: who may import whom, how a file opens, how long it grows.
//!
//! Each rule is a test; each failure names the file and says what to do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice
)]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

/// What may stand at the top level, besides dot-files.
const TOP_LEVEL: [&str; 9] =
    ["Cargo.lock", "Cargo.toml", "LICENSE", "README.md", "engine", "mappings", "ops", "plugins", "routes"];

/// Which rooms of the engine each room may import. `metrics`, `error`, `clock` and `secret` are open to all but
/// the pure rooms, which may import `error` only.
const ARROWS: [(&str, &[&str]); 22] = [
    ("error", &[]),
    ("secret", &["error"]),
    ("clock", &[]),
    ("document", &["error"]),
    ("priority", &[]),
    ("metrics", &["error"]),
    ("hl7", &["error"]),
    ("fhir", &["hl7", "error"]),
    ("incoming", &["fhir", "hl7", "error"]),
    ("connector", &["error", "secret", "document"]),
    ("journal", &["connector", "error", "metrics", "clock", "priority", "hl7", "secret"]),
    ("intake", &["journal", "connector", "incoming", "fhir", "hl7", "error", "metrics", "clock"]),
    ("routing", &["incoming", "hl7", "connector", "error", "document"]),
    ("mapping", &["incoming", "fhir", "hl7", "connector", "error"]),
    ("delivery", &["journal", "connector", "error", "metrics", "clock"]),
    (
        "config",
        &["connector", "routing", "error", "secret", "hl7", "document", "intake", "delivery", "journal"],
    ),
    (
        "revision",
        &[
            "config",
            "document",
            "connector",
            "routing",
            "mapping",
            "incoming",
            "fhir",
            "hl7",
            "error",
            "clock",
        ],
    ),
    (
        "pipeline",
        &[
            "intake",
            "journal",
            "routing",
            "mapping",
            "delivery",
            "connector",
            "incoming",
            "fhir",
            "hl7",
            "error",
            "metrics",
            "clock",
            "priority",
            "config",
            "revision",
        ],
    ),
    (
        "supervisor",
        &[
            "pipeline",
            "intake",
            "journal",
            "routing",
            "mapping",
            "delivery",
            "connector",
            "error",
            "metrics",
            "clock",
            "config",
            "revision",
            "admin",
        ],
    ),
    // Tests of the whole middle: they stand on everything.
    (
        "simulation",
        &[
            "pipeline",
            "intake",
            "journal",
            "delivery",
            "connector",
            "metrics",
            "clock",
            "config",
            "revision",
            "supervisor",
        ],
    ),
    ("admin", &["connector", "journal", "error", "metrics", "clock"]),
    (
        "cli",
        &[
            "supervisor",
            "admin",
            "config",
            "revision",
            "routing",
            "mapping",
            "connector",
            "incoming",
            "fhir",
            "hl7",
            "error",
            "metrics",
            "clock",
            "secret",
            "journal",
            "document",
        ],
    ),
];

/// Rooms that are pure functions, and what would make them otherwise.
const PURE: [&str; 5] = ["hl7", "fhir", "incoming", "routing", "mapping"];
const IMPURE: [&str; 7] =
    ["tokio::", "std::fs", "std::net", "std::process", "SystemTime", "Timestamp::now", "std::env"];

/// What a connector may know of the engine.
const OPEN_TO_PLUGINS: [&str; 5] = ["connector", "error", "hl7", "fhir", "secret"];

const CEILING_LINES: usize = 500;

#[test]
fn the_top_level_holds_what_the_card_says() {
    let allowed: BTreeSet<_> = TOP_LEVEL.into_iter().chain(["testdata"]).collect();
    let strangers: BTreeSet<_> = tracked()
        .into_iter()
        .filter_map(|file| {
            file.components().next().map(|first| first.as_os_str().to_string_lossy().into_owned())
        })
        .filter(|name| !name.starts_with('.') && !allowed.contains(name.as_str()))
        .collect();
    assert!(strangers.is_empty(), "not on the card: {strangers:?}");
}

#[test]
fn a_message_travels_one_way() {
    let mut faults = Vec::new();
    for file in rust_files("engine/src") {
        let Some(room) = room(&file) else { continue };
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == room) else {
            faults.push(format!("{}: the room `{room}` has no line in ARROWS", file.display()));
            continue;
        };
        for import in imports(&product_code(&file), "crate::") {
            if import != room && !allowed.contains(&import.as_str()) {
                faults.push(format!("{}: `{room}` may not import `{import}`", file.display()));
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn plugins_know_the_contract_and_nothing_else_of_the_engine() {
    let mut faults = Vec::new();
    for file in rust_files("plugins") {
        for import in imports(&product_code(&file), "tie_engine::") {
            if !OPEN_TO_PLUGINS.contains(&import.as_str()) {
                faults.push(format!("{}: a plugin may not import `tie_engine::{import}`", file.display()));
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn pure_rooms_have_no_clock_socket_or_file() {
    let mut faults = Vec::new();
    for room in PURE {
        for file in rust_files(&format!("engine/src/{room}")) {
            let code = product_code(&file);
            faults.extend(
                IMPURE
                    .iter()
                    .filter(|word| code.contains(*word))
                    .map(|word| format!("{}: `{room}` is pure, but says `{word}`", file.display())),
            );
        }
    }
    assert_none(&faults);
}

#[test]
fn a_connector_has_no_retry_time_out_or_task_of_its_own() {
    let mut faults = Vec::new();
    for file in rust_files("plugins") {
        let code = product_code(&file);
        for word in ["tokio::time::sleep", "prometheus", "backoff"] {
            if code.contains(word) {
                faults.push(format!("{}: `{word}` belongs to the engine", file.display()));
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn every_file_says_what_it_is_for() {
    let faults: Vec<_> = rust_files("engine")
        .into_iter()
        .chain(rust_files("plugins"))
        .filter(|file| !read(file).lines().take(3).any(|line| line.starts_with("//! ")))
        .map(|file| format!("{}: does not open with `//! …`", file.display()))
        .collect();
    assert_none(&faults);
}

#[test]
fn no_file_outgrows_its_reader() {
    let faults: Vec<_> = rust_files("engine")
        .into_iter()
        .chain(rust_files("plugins"))
        .map(|file| (product_code(&file).lines().count(), file))
        .filter(|(lines, _)| *lines > CEILING_LINES)
        .map(|(lines, file)| {
            format!("{}: {lines} lines before its tests, ceiling {CEILING_LINES}", file.display())
        })
        .collect();
    assert_none(&faults);
}

#[test]
fn tests_wait_for_conditions_and_not_for_time() {
    let mut faults = Vec::new();
    for file in rust_files("engine").into_iter().chain(rust_files("plugins")) {
        let text = read(&file);
        let tests = if is_test_file(&file) {
            text.as_str()
        } else {
            &text[text.find("#[cfg(test)]").unwrap_or(text.len())..]
        };
        for (number, line) in tests.lines().enumerate() {
            if line.contains("sleep(") && !line.contains("// poll") && !file.ends_with("tidy.rs") {
                faults.push(format!("{}: test line {}: {}", file.display(), number + 1, line.trim()));
            }
        }
    }
    assert_none(&faults);
}

#[test]
fn no_path_of_a_machine_is_in_the_tree() {
    let needles = [["/wo", "rk/"].concat(), ["/ro", "ot/"].concat(), ["/ho", "me/"].concat()];
    let mut faults = Vec::new();
    for file in tracked() {
        if file.extension().is_some_and(|extension| extension == "lock") {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(top().join(&file)) else { continue };
        faults.extend(
            needles
                .iter()
                .filter(|needle| text.contains(*needle))
                .map(|n| format!("{}: {n}", file.display())),
        );
    }
    assert_none(&faults);
}

#[test]
fn nothing_is_left_for_later() {
    let words = [
        ["to", "do!("].concat(),
        ["unimple", "mented!("].concat(),
        ["FIX", "ME"].concat(),
        ["#[ig", "nore"].concat(),
    ];
    let mut faults = Vec::new();
    for file in rust_files("engine").into_iter().chain(rust_files("plugins")) {
        let text = read(&file);
        faults.extend(words.iter().filter(|w| text.contains(*w)).map(|w| format!("{}: {w}", file.display())));
    }
    assert_none(&faults);
}

fn top() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The files that git tracks or would track, relative to the top.
fn tracked() -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(top())
        .output()
        .expect("git runs");
    assert!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let files: Vec<_> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(PathBuf::from)
        .filter(|file| top().join(file).is_file())
        .collect();
    assert!(files.len() > 10, "git lists the tree");
    files
}

fn rust_files(under: &str) -> Vec<PathBuf> {
    let files: Vec<_> = tracked()
        .into_iter()
        .filter(|file| file.starts_with(under) && file.extension().is_some_and(|extension| extension == "rs"))
        .collect();
    assert!(!files.is_empty(), "no Rust file below {under}: the rule would hold for nothing");
    files
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(top().join(file)).unwrap()
}

/// The text of a file before its tests; nothing of a file that is all tests.
fn product_code(file: &Path) -> String {
    if is_test_file(file) {
        return String::new();
    }
    let text = read(file);
    let end = text.find("\n#[cfg(test)]").unwrap_or(text.len());
    text[..end].to_owned()
}

fn is_test_file(file: &Path) -> bool {
    let stem = file.file_stem().unwrap().to_string_lossy();
    file.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "fuzz")
        || stem == "tests"
        || stem.ends_with("_tests")
}

/// The room of a file of the engine: the first folder below `src`, or the file itself; none for `lib.rs`.
fn room(file: &Path) -> Option<String> {
    let below = file.strip_prefix("engine/src").ok()?;
    let first = below.components().next()?.as_os_str().to_string_lossy().into_owned();
    let name = first.strip_suffix(".rs").unwrap_or(&first).to_owned();
    (name != "lib").then_some(name)
}

/// The first path segments after `prefix` in code, also in `prefix{a, b::c}`; comments do not count.
fn imports(code: &str, prefix: &str) -> BTreeSet<String> {
    let code: String =
        code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let rest = &code[at + prefix.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut word = String::new();
            let mut open = true;
            for character in group.chars() {
                match character {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => open = true,
                    c if depth == 0 && open && (c.is_alphanumeric() || c == '_') => word.push(c),
                    ':' if depth == 0 => open = false,
                    _ => {}
                }
                if (character == ',' || character == ':') && depth == 0 && !word.is_empty() {
                    found.insert(std::mem::take(&mut word));
                }
            }
            if !word.is_empty() {
                found.insert(word);
            }
        } else {
            found.insert(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    found.retain(|name| name.chars().next().is_some_and(char::is_lowercase));
    found
}

fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn imports_are_found_in_every_way_they_are_written() {
    let code = "use crate::{hl7::{Message, Path}, error::Problem, clock};\nlet x = crate::journal::Sequence(1);\n// crate::cli";
    let found: Vec<_> = imports(code, "crate::").into_iter().collect();
    assert_eq!(found, ["clock", "error", "hl7", "journal"]);
}
