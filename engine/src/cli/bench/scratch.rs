//! The scratch directory of a trial: a whole instance, with a configuration that anybody can look at and run by hand.
//!
//! Promises: the mappings are copies of the shipped ones (or of the folder that was named), unchanged; everything is
//! removed in the end unless it is to be kept.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use super::{
    Failure,
    messages::{APPLICATIONS, Kind},
    parts::free_addresses,
    scenario::{Scenario, Standing},
};

/// What the bench's routes run.
const NEEDED: [&str; 3] = ["adt.rhai", "oru.rhai", "documents.rhai"];
/// The route of admissions, or the first of them.
pub(super) const ADMISSIONS: &str = "admissions-1";
/// Connections that a listener takes unless told.
const CONNECTIONS: u32 = 256;

/// The directory of one trial.
#[derive(Debug)]
pub(super) struct Scratch {
    /// Where it is.
    pub home: PathBuf,
    keep: bool,
}

/// What the configuration says.
#[derive(Debug, Clone)]
pub(super) struct Instance {
    /// The admin listener.
    pub admin: SocketAddr,
    /// The MLLP listener.
    pub mllp: SocketAddr,
    /// Where the destinations are.
    pub receiver: SocketAddr,
    /// How many there are.
    pub destinations: u8,
    /// Whether they are paused.
    pub paused: bool,
    /// Attempts under way at once, if not the engine's default.
    pub concurrency: Option<u16>,
    /// Connections to the MLLP listener.
    pub connections: u32,
    /// Routes that share the admissions.
    pub routes: u32,
    /// The journal's table.
    pub journal: String,
}

impl Scratch {
    /// Makes one below a directory.
    pub(super) fn make(below: &Path, mappings: &Path, keep: bool) -> Result<Self, Failure> {
        let name = format!("tie-bench-{}", uuid::Uuid::new_v4().simple());
        let scratch = Self { home: below.join(name), keep };
        let made = fs::DirBuilder::new().mode(0o700).create(&scratch.home);
        made.map_err(|error| Failure::unable(&scratch.home.display().to_string(), &error))?;
        let copied = copy(mappings, &scratch.home.join("mappings"));
        copied.map_err(|error| Failure::unable(&mappings.display().to_string(), &error))?;
        Ok(scratch)
    }

    /// Writes the configuration; gives its text.
    pub(super) fn configure(&self, instance: &Instance) -> Result<String, Failure> {
        let text = instance.text();
        self.write("tie.toml", &text)?;
        self.write("routes/results.toml", &instance.route("trigger = \"ORU\"", Kind::Oru))?;
        self.write("routes/documents.toml", &instance.route("trigger = \"MDM\"", Kind::Document))?;
        for number in 1..=instance.routes {
            let accept = instance.admissions(number);
            self.write(&format!("routes/admissions-{number}.toml"), &instance.route(&accept, Kind::Adt))?;
        }
        Ok(text)
    }

    /// Writes as an editor does, so that a running engine sees all or nothing.
    fn write(&self, name: &str, text: &str) -> Result<(), Failure> {
        let path = self.home.join(name);
        let beside = path.with_extension("tmp~");
        let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
        let written =
            folder.and_then(|()| fs::write(&beside, text)).and_then(|()| fs::rename(&beside, &path));
        written.map_err(|error| Failure::unable(&path.display().to_string(), &error))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_dir_all(&self.home);
        }
    }
}

impl Instance {
    /// For a scenario, with free ports.
    pub(super) fn new(scenario: Scenario, connections: u32, journal: String) -> Result<Self, Failure> {
        let [admin, mllp, receiver] = free_addresses()?;
        Ok(Self {
            admin,
            mllp,
            receiver,
            destinations: scenario.destinations(),
            paused: scenario.standing() == Standing::Paused,
            concurrency: None,
            connections,
            routes: 1,
            journal,
        })
    }

    fn text(&self) -> String {
        let Self { admin, mllp, receiver, journal, .. } = self;
        let mut text = format!(
            "environment = \"test\"\n\n{journal}\n[admin]\nlisten = \"{admin}\"\n\n[listener.hospital]\nkind = \"mllp\"\nlisten = \"{mllp}\"\n"
        );
        // The bench has a connection more for documents.
        if self.connections >= CONNECTIONS {
            text += &format!("connections = {}\n", self.connections + 1);
        }
        for number in 1..=self.destinations {
            text += &format!(
                "\n[destination.record-{number}]\nkind = \"fhir\"\nbase = \"http://{receiver}/{number}/fhir\"\n"
            );
            if let Some(concurrency) = self.concurrency {
                text += &format!("concurrency = {concurrency}\n");
            }
            if self.paused {
                text += "paused = true\n";
            }
        }
        text
    }

    /// What one of the routes of admissions accepts: all, or those for its part of the applications.
    fn admissions(&self, number: u32) -> String {
        let own = (0..APPLICATIONS).filter(|application| application % self.routes == number - 1);
        let own: Vec<_> = own.map(|application| format!("\"{application:03}\"")).collect();
        match self.routes {
            1 => "trigger = \"ADT\"".to_owned(),
            _ => format!("trigger = \"ADT\", receiving_application = [{}]", own.join(", ")),
        }
    }

    fn route(&self, accept: &str, kind: Kind) -> String {
        let mapping = kind.mapping();
        let to =
            (1..=self.destinations).map(|number| format!("\n[[to]]\ndestination = \"record-{number}\"\n"));
        format!(
            "from = \"hospital\"\naccept = {{ {accept} }}\nmap = \"{mapping}\"\norder = \"patient\"\n{}",
            to.collect::<String>()
        )
    }
}

/// Whether a folder has the mappings that the bench runs.
pub(super) fn check(mappings: &Path) -> Result<(), Failure> {
    match NEEDED.iter().find(|name| !mappings.join(name).is_file()) {
        None => Ok(()),
        Some(name) => Err(Failure::Usage(format!(
            "there is no {name} in {}: run `tie bench` where the shipped mappings are, or name their folder by --mappings",
            mappings.display()
        ))),
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_the_mappings_is_told() {
        let Err(Failure::Usage(told)) = check(Path::new("no/such/folder")) else { panic!() };
        assert!(told.contains("adt.rhai") && told.contains("--mappings"), "{told}");
    }

    #[test]
    fn a_scratch_directory_is_gone_in_the_end_unless_it_is_kept() {
        let below = tempfile::tempdir().unwrap();
        let mappings = below.path().join("mappings");
        fs::create_dir_all(mappings.join("lib")).unwrap();
        fs::write(mappings.join("lib/a.rhai"), "1").unwrap();
        for keep in [false, true] {
            let scratch = Scratch::make(below.path(), &mappings, keep).unwrap();
            let home = scratch.home.clone();
            assert!(home.join("mappings/lib/a.rhai").is_file());
            drop(scratch);
            assert_eq!(home.exists(), keep);
        }
    }
}
