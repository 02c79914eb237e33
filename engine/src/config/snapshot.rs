//! A snapshot: all files that make a revision, read into memory once.
//!
//! Promises: what is checked, tested and run is the same bytes; the revision is named by those bytes and their
//! places alone, so the same files give the same name on any machine; nothing outside the configuration directory
//! is read but the configuration file itself; sizes and numbers of files are bounded.
//! Left to others: what the files mean; settling down after an edit (supervisor).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{git, tables::MAPPINGS};
use crate::{error::Problem, routing};

/// Text files by their place in the configuration directory.
pub type Files = BTreeMap<PathBuf, Arc<str>>;

/// All files that make a revision.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The configuration directory.
    pub home: PathBuf,
    /// The configuration file, as messages about it name it.
    pub config_file: PathBuf,
    /// Its text.
    pub config: Arc<str>,
    /// `routes/*.toml`.
    pub routes: Files,
    /// Scripts and tables of all mapping folders.
    pub mappings: Files,
    /// The mapping folders, of which the first wins: what `mappings` of `tie.toml` says.
    pub folders: Vec<PathBuf>,
    /// The files that tests of routes name, as far as they are there.
    pub samples: BTreeMap<PathBuf, Bytes>,
    /// SHA-256 over all of the above, in hexadecimal.
    pub revision: String,
    /// The git commit of the configuration directory, if it is a checkout. Files may have changed since.
    pub git_commit: Option<String>,
}

/// The largest text file.
const TEXT_BYTES: u64 = 4 << 20;
/// The largest test message or expected output.
const SAMPLE_BYTES: u64 = 32 << 20;
/// All files together.
const TOTAL_BYTES: u64 = 256 << 20;
/// The most files.
const FILES: usize = 10_000;
/// The deepest folder under `mappings/`.
const DEPTH: usize = 8;
/// What mappings are made of.
const MAPPING_EXTENSIONS: [&str; 2] = ["rhai", "csv"];

/// Reads the configuration directory; the configuration file is `tie.toml` in it unless told otherwise.
/// Blocks on the disk.
///
/// # Errors
/// What cannot be read, is too large, is no text, or leads out of the directory.
pub fn snapshot(home: &Path, config_file: Option<&Path>) -> Result<Snapshot, Vec<Problem>> {
    let mut reading = Reading::begin(home)?;
    let (config_file, config) = reading.config(home, config_file);
    let routes = reading.texts("routes", &["toml"], 1);
    let folders = mapping_folders(&config);
    let mappings = reading.mappings(&folders);
    let samples = reading.samples(&routes);
    if !reading.problems.is_empty() {
        return Err(reading.problems);
    }
    let revision = revision(&config, &routes, &mappings, &samples);
    let git_commit = git::commit(&reading.root);
    let home = reading.root;
    Ok(Snapshot { home, config_file, config, routes, mappings, folders, samples, revision, git_commit })
}

/// Reads routes and mappings alone: to try them where there is no instance. If there is a configuration file, it may
/// name the mapping folders. Blocks on the disk.
///
/// # Errors
/// As [`snapshot`].
pub fn library(home: &Path, config_file: &Path) -> Result<Library, Vec<Problem>> {
    let mut reading = Reading::begin(home)?;
    let folders = mapping_folders(&fs::read_to_string(config_file).unwrap_or_default());
    let routes = reading.texts("routes", &["toml"], 1);
    let mappings = reading.mappings(&folders);
    if reading.problems.is_empty() {
        Ok(Library { routes, mappings, folders })
    } else {
        Err(reading.problems)
    }
}

/// The mapping folders that a configuration file names, as far as it can be read.
pub fn mapping_folders(config: &str) -> Vec<PathBuf> {
    #[derive(serde::Deserialize)]
    struct Named {
        mappings: Vec<PathBuf>,
    }
    let named = toml::from_str::<Named>(config).map(|named| named.mappings).unwrap_or_default();
    if named.is_empty() { vec![PathBuf::from(MAPPINGS)] } else { named }
}

/// What an instance shares with others: see [`Snapshot`].
#[derive(Debug)]
pub struct Library {
    /// `routes/*.toml`.
    pub routes: Files,
    /// Scripts and tables of all mapping folders.
    pub mappings: Files,
    /// The mapping folders, of which the first wins.
    pub folders: Vec<PathBuf>,
}

impl Snapshot {
    /// The first twelve characters of the revision: enough for people.
    pub fn short(&self) -> &str {
        self.revision.get(..12).unwrap_or(&self.revision)
    }

    /// The text of one of its files: to show the line that a problem is in.
    pub fn text(&self, file: &Path) -> Option<&Arc<str>> {
        if file == self.config_file {
            return Some(&self.config);
        }
        self.routes.get(file).or_else(|| self.mappings.get(file))
    }
}

struct Reading {
    root: PathBuf,
    total_bytes: u64,
    files: usize,
    problems: Vec<Problem>,
}

impl Reading {
    fn begin(home: &Path) -> Result<Self, Vec<Problem>> {
        let root = home.canonicalize().map_err(|error| {
            vec![
                Problem::error(format!("the configuration directory cannot be read: {error}")).at(home, 0, 0),
            ]
        })?;
        Ok(Self { root, total_bytes: 0, files: 0, problems: Vec::new() })
    }

    fn config(&mut self, home: &Path, file: Option<&Path>) -> (PathBuf, Arc<str>) {
        let (named, real) = match file {
            Some(file) => (file.to_owned(), file.to_owned()),
            None => (PathBuf::from("tie.toml"), home.join("tie.toml")),
        };
        let text = self.read(&named, &real, TEXT_BYTES).and_then(|bytes| self.text(&named, bytes));
        (named, text.unwrap_or_default())
    }

    fn mappings(&mut self, folders: &[PathBuf]) -> Files {
        for folder in folders.iter().filter(|folder| folder.as_os_str() != MAPPINGS) {
            if !self.root.join(folder).is_dir() {
                self.fault(
                    folder,
                    "there is no such folder, and `mappings` in the configuration file names it",
                );
            }
        }
        folders.iter().flat_map(|folder| self.texts(folder, &MAPPING_EXTENSIONS, DEPTH)).collect()
    }

    /// The text files of a folder, if the folder is there.
    fn texts(&mut self, folder: impl AsRef<Path>, extensions: &[&str], depth: usize) -> Files {
        let mut found = Vec::new();
        let folder = folder.as_ref();
        if self.root.join(folder).exists() {
            self.walk(folder, extensions, depth, &mut found);
        }
        let mut files = Files::new();
        for file in found {
            let real = self.root.join(&file);
            if let Some(text) = self.read(&file, &real, TEXT_BYTES).and_then(|bytes| self.text(&file, bytes))
            {
                files.insert(file, text);
            }
        }
        files
    }

    fn walk(&mut self, folder: &Path, extensions: &[&str], depth: usize, found: &mut Vec<PathBuf>) {
        if !self.is_inside(folder) {
            return;
        }
        let entries = match fs::read_dir(self.root.join(folder)) {
            Ok(entries) => entries,
            Err(error) => return self.fault(folder, format!("the folder cannot be read: {error}")),
        };
        for entry in entries.flatten() {
            let path = folder.join(entry.file_name());
            // Dot-files are the swap files of editors and the book-keeping of git and Kubernetes.
            if entry.file_name().as_encoded_bytes().starts_with(b".") || found.len() > FILES {
                continue;
            }
            let is_folder = self.root.join(&path).is_dir();
            if is_folder && depth > 1 {
                self.walk(&path, extensions, depth - 1, found);
            } else if !is_folder
                && path.extension().is_some_and(|end| extensions.iter().any(|known| end == *known))
            {
                found.push(path);
            }
        }
    }

    fn samples(&mut self, routes: &Files) -> BTreeMap<PathBuf, Bytes> {
        let mut samples = BTreeMap::new();
        let named: BTreeSet<PathBuf> = routes.values().flat_map(|text| routing::files_named(text)).collect();
        for file in named {
            // A file that is not there is told with the place of its name, by whoever reads the route.
            if self.root.join(&file).exists()
                && self.is_inside(&file)
                && let Some(bytes) = self.read(&file, &self.root.join(&file), SAMPLE_BYTES)
            {
                samples.insert(file, Bytes::from(bytes));
            }
        }
        samples
    }

    fn is_inside(&mut self, file: &Path) -> bool {
        let inside = self.root.join(file).canonicalize().is_ok_and(|real| real.starts_with(&self.root));
        if !inside {
            self.fault(file, "leads out of the configuration directory");
        }
        inside
    }

    fn read(&mut self, named: &Path, real: &Path, most_bytes: u64) -> Option<Vec<u8>> {
        if real.starts_with(&self.root) && named.is_relative() && real.exists() && !self.is_inside(named) {
            return None;
        }
        self.files += 1;
        if self.files > FILES || self.total_bytes > TOTAL_BYTES {
            if self.files == FILES + 1 {
                self.fault(named, format!("more than {FILES} files or {TOTAL_BYTES} bytes of configuration"));
            }
            return None;
        }
        match read_bounded(real, most_bytes) {
            Ok(bytes) if bytes.len() as u64 > most_bytes => {
                self.fault(named, format!("the file is longer than {most_bytes} bytes"));
                None
            }
            Ok(bytes) => {
                self.total_bytes += bytes.len() as u64;
                Some(bytes)
            }
            Err(error) => {
                self.fault(named, format!("the file cannot be read: {error}"));
                None
            }
        }
    }

    fn text(&mut self, file: &Path, bytes: Vec<u8>) -> Option<Arc<str>> {
        match String::from_utf8(bytes) {
            // A byte order mark is what some editors put there; nobody means it.
            Ok(text) => Some(text.strip_prefix('\u{feff}').unwrap_or(&text).into()),
            Err(error) => {
                let before = error.utf8_error().valid_up_to();
                let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                self.problems.push(Problem::error("the file is not UTF-8").at_offset(file, &text, before));
                None
            }
        }
    }

    fn fault(&mut self, file: &Path, what: impl Into<String>) {
        self.problems.push(Problem::error(what).at(file, 0, 0));
    }
}

/// Reads one byte more than allowed at most.
fn read_bounded(file: &Path, most_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = fs::File::open(file)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    file.take(most_bytes + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Lengths go in before the bytes, so that no two sets of files give the same stream.
fn revision(config: &str, routes: &Files, mappings: &Files, samples: &BTreeMap<PathBuf, Bytes>) -> String {
    let mut hash = Sha256::new();
    let mut add = |place: &[u8], bytes: &[u8]| {
        for part in [place, bytes] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
    };
    add(b"tie.toml", config.as_bytes());
    for (file, text) in routes.iter().chain(mappings) {
        add(file.as_os_str().as_encoded_bytes(), text.as_bytes());
    }
    for (file, bytes) in samples {
        add(file.as_os_str().as_encoded_bytes(), bytes);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: &str = "[[test]]\nmessage = 'testdata/a.hl7'\nexpect = 'testdata/a.json'\n";

    fn home(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        for (file, bytes) in files {
            let file = home.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, bytes).unwrap();
        }
        home
    }

    fn problems(home: &Path) -> Vec<String> {
        snapshot(home, None).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_makes_a_revision_is_read_and_nothing_else() {
        let home = home(&[
            ("tie.toml", b"environment = 'test'"),
            ("routes/adt.toml", ROUTE.as_bytes()),
            ("routes/.adt.toml.swp", b"x"),
            ("routes/adt.toml~", b"x"),
            ("routes/old/adt.toml", b"x"),
            ("mappings/adt.rhai", b"fn map(msg) {}"),
            ("mappings/lib/person.rhai", b""),
            ("mappings/tables/sex.csv", b"M,male"),
            ("mappings/README.md", b"x"),
            ("testdata/a.hl7", b"MSH|\xff"),
            ("testdata/b.hl7", b"MSH|"),
        ]);
        let snapshot = snapshot(home.path(), None).unwrap();
        let names =
            |files: Vec<&PathBuf>| files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>();
        assert_eq!(names(snapshot.routes.keys().collect()), ["routes/adt.toml"]);
        assert_eq!(
            names(snapshot.mappings.keys().collect()),
            ["mappings/adt.rhai", "mappings/lib/person.rhai", "mappings/tables/sex.csv"]
        );
        assert_eq!(names(snapshot.samples.keys().collect()), ["testdata/a.hl7"]);
        assert_eq!(snapshot.config_file, Path::new("tie.toml"));
        assert_eq!(snapshot.revision.len(), 64);
        assert_eq!(snapshot.short().len(), 12);
    }

    #[test]
    fn the_same_files_are_the_same_revision_and_any_change_is_another() {
        let files: [(&str, &[u8]); 3] = [
            ("tie.toml", b"environment = 'test'"),
            ("routes/adt.toml", ROUTE.as_bytes()),
            ("testdata/a.hl7", b"MSH|"),
        ];
        let revision = |home: &tempfile::TempDir| snapshot(home.path(), None).unwrap().revision;
        let first = home(&files);
        assert_eq!(revision(&first), revision(&home(&files)));
        for (file, _) in files {
            let changed = home(&files);
            let path = changed.path().join(file);
            let mut bytes = fs::read(&path).unwrap();
            bytes.push(b'\n');
            fs::write(&path, bytes).unwrap();
            assert_ne!(revision(&first), revision(&changed), "{file}");
        }
        let moved = home(&files);
        fs::rename(moved.path().join("routes/adt.toml"), moved.path().join("routes/adu.toml")).unwrap();
        assert_ne!(revision(&first), revision(&moved));
    }

    #[test]
    fn a_mapping_folder_that_is_named_must_be_there() {
        let files: [(&str, &[u8]); 2] =
            [("tie.toml", b"mappings = ['trust', 'mappings']"), ("mappings/adt.rhai", b"fn map(msg) {}")];
        let home = home(&files);
        let told = "trust: there is no such folder, and `mappings` in the configuration file names it";
        assert_eq!(problems(home.path()), [told]);
        fs::create_dir(home.path().join("trust")).unwrap();
        assert_eq!(snapshot(home.path(), None).unwrap().folders, [Path::new("trust"), Path::new("mappings")]);
    }

    #[test]
    fn the_configuration_file_may_be_elsewhere() {
        let home = home(&[("routes/adt.toml", b"")]);
        let other = tempfile::NamedTempFile::new().unwrap();
        fs::write(other.path(), "\u{feff}environment = 'live'").unwrap();
        let snapshot = snapshot(home.path(), Some(other.path())).unwrap();
        assert_eq!(&*snapshot.config, "environment = 'live'");
        assert_eq!(snapshot.text(other.path()), Some(&snapshot.config));
        assert_eq!(
            problems(home.path()),
            ["tie.toml: the file cannot be read: No such file or directory (os error 2)"]
        );
    }

    #[cfg(unix)]
    #[test]
    fn links_that_lead_out_are_refused_and_links_that_stay_are_followed() {
        use std::os::unix::fs::symlink;
        let outside = home(&[("secret.toml", b"x"), ("folder/x.rhai", b"x")]);
        let home =
            home(&[("tie.toml", b""), ("routes/real.toml", ROUTE.as_bytes()), ("mappings/a.rhai", b"")]);
        symlink("real.toml", home.path().join("routes/same.toml")).unwrap();
        assert_eq!(snapshot(home.path(), None).unwrap().routes.len(), 2);
        symlink(outside.path().join("secret.toml"), home.path().join("routes/out.toml")).unwrap();
        symlink(outside.path().join("folder"), home.path().join("mappings/out")).unwrap();
        symlink(outside.path(), home.path().join("testdata")).unwrap();
        fs::write(outside.path().join("a.hl7"), "x").unwrap();
        assert_eq!(
            problems(home.path()),
            ["routes/out.toml", "mappings/out", "testdata/a.hl7"]
                .map(|file| format!("{file}: leads out of the configuration directory"))
        );
    }

    #[test]
    fn what_is_no_text_or_too_long_is_told() {
        let home = home(&[
            ("tie.toml", b"a = 1\nb = '\xff'"),
            ("mappings/big.rhai", &vec![b' '; usize::try_from(TEXT_BYTES).unwrap() + 1]),
        ]);
        assert_eq!(
            problems(home.path()),
            [
                "tie.toml:2:6: the file is not UTF-8".to_owned(),
                format!("mappings/big.rhai: the file is longer than {TEXT_BYTES} bytes")
            ]
        );
    }
}
