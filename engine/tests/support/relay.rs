//! A socket between the engine and a PostgreSQL server, that can go silent as a host does which has lost its power, or
//! lead to another server as a balancer does.
//!
//! On std alone, as everything here.
#![allow(dead_code)] // each user takes its part

use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

pub struct Relay {
    home: tempfile::TempDir,
    shared: Arc<Shared>,
}

struct Shared {
    /// The first connection that goes to each server.
    servers: Mutex<Vec<(usize, PathBuf)>>,
    silent_from: AtomicUsize,
    connections: AtomicUsize,
}

impl Relay {
    /// To the server whose socket is in a directory.
    pub fn start(server: &Path) -> Self {
        let home = tempfile::Builder::new().prefix("tie-relay-").tempdir().unwrap();
        let listener = UnixListener::bind(home.path().join(".s.PGSQL.5432")).unwrap();
        let shared = Arc::new(Shared {
            servers: Mutex::new(vec![(0, server.to_owned())]),
            silent_from: AtomicUsize::new(usize::MAX),
            connections: AtomicUsize::new(0),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                accepting.connect(client);
            }
        });
        Self { home, shared }
    }

    /// The directory of its socket; the port is 5432.
    pub fn socket(&self) -> &Path {
        self.home.path()
    }

    /// From this connection on, counted from 0 in their order, nothing gets through any more, and nothing ends.
    pub fn silence_from(&self, connection: usize) {
        self.shared.silent_from.store(connection, Ordering::SeqCst);
    }

    /// From this connection on they go to another server.
    pub fn lead_from(&self, connection: usize, server: &Path) {
        self.shared.servers.lock().unwrap().push((connection, server.to_owned()));
    }

    /// How many there have been.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn connect(self: &Arc<Self>, client: UnixStream) {
        let number = self.connections.fetch_add(1, Ordering::SeqCst);
        let to = self.servers.lock().unwrap().iter().rfind(|(first, _)| *first <= number).unwrap().1.clone();
        let Ok(server) = UnixStream::connect(to.join(".s.PGSQL.5432")) else { return };
        let (from_client, from_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        for (from, to) in [(from_client, server), (from_server, client)] {
            let shared = self.clone();
            std::thread::spawn(move || shared.pump(number, from, to));
        }
    }

    fn pump(&self, number: usize, mut from: UnixStream, mut to: UnixStream) {
        let mut buffer = [0; 65_536];
        loop {
            let read = from.read(&mut buffer).unwrap_or(0);
            while self.silent_from.load(Ordering::SeqCst) <= number {
                std::thread::sleep(Duration::from_millis(5)); // poll
            }
            if read == 0 || to.write_all(&buffer[..read]).is_err() {
                let _ = to.shutdown(std::net::Shutdown::Both);
                return;
            }
        }
    }
}
