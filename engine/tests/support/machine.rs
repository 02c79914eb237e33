//! What a test does to the machine beneath the engine: failing system calls, small disks, many connections.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{Instance, Process};

/// Whether failing system calls can be injected here; if not, says so plainly.
pub fn can_inject() -> bool {
    let probe = Command::new("strace").args(["-qq", "-e", "trace=none", "true"]).output();
    let can = probe.is_ok_and(|output| output.status.success());
    if !can {
        println!(
            "NOT TESTED HERE: strace is missing or ptrace is not allowed, so that no system call can be made to fail"
        );
    }
    can
}

/// An engine whose system calls fail as told.
pub struct Injected {
    /// The engine; `strace` ends with it.
    pub engine: Process,
    log: PathBuf,
}

impl Injected {
    /// Starts the engine with injections such as `fdatasync:error=EIO:when=3`; counts are of each thread. Only calls
    /// on `file` count, if one is named. Does not wait.
    pub fn spawn(instance: &Instance, injections: &[String], file: Option<&Path>) -> Self {
        let log = instance.path("strace.log");
        let mut command = Command::new("strace");
        // `-D`: the engine is our child, and strace its child: what we wait for and kill is the engine.
        command.args(["-D", "-f", "-qq", "-y", "--seccomp-bpf", "-o"]).arg(&log);
        let calls: Vec<_> = injections.iter().filter_map(|one| one.split(':').next()).collect();
        command.args(["-e", &format!("trace={}", calls.join(","))]);
        for injection in injections {
            command.args(["-e", &format!("inject={injection}")]);
        }
        if let Some(file) = file {
            command.arg("-P").arg(file);
        }
        Self { engine: instance.spawn_under(Some(command)), log }
    }

    /// The calls that were traced, in order: `fdatasync(12</…/journal.sqlite-wal>) = 0`.
    pub fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

/// A file system of its own in memory, gone when dropped.
pub struct SmallDisk(pub PathBuf);

impl SmallDisk {
    /// Mounts one of so many megabytes at a directory; none where that is not allowed, which is said plainly.
    pub fn mount(at: &Path, megabytes: u64) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let size = format!("size={megabytes}m,mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(at.to_owned()));
        }
        println!(
            "NOT TESTED HERE: mounting a small file system needs root, so that no real disk can be full"
        );
        None
    }

    /// Takes all the space that is free but so many kilobytes.
    pub fn fill(&self, all_but_kilobytes: u64) -> PathBuf {
        let output = Command::new("df").args(["-k", "--output=avail"]).arg(&self.0).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let free: u64 = text.lines().last().unwrap().trim().parse().unwrap();
        let ballast = self.0.join("ballast");
        let bytes = free.saturating_sub(all_but_kilobytes) * 1024;
        fs::write(&ballast, vec![0; usize::try_from(bytes).unwrap()]).unwrap();
        ballast
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Resident memory of a process in megabytes.
pub fn resident_megabytes(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.0.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes / 1024
}

/// Lets this process and its children open so many files; false where that is not allowed.
pub fn allow_files(number: u64) -> bool {
    let own = std::process::id().to_string();
    let raised = Command::new("prlimit").args(["--pid", &own, &format!("--nofile={number}:")]).output();
    raised.is_ok_and(|output| output.status.success())
}
