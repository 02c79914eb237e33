//! P1, P4, P6: a destination is away for so long that very much is queued for it. The engine starts as fast as ever,
//! finds any message at once, and works the queue off in order without holding it in memory.
//!
//! Short here; for the figures of a day's backlog of a large trust:
//! `MESSAGES=1000000 cargo test --release --test backlog -- --nocapture`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice
)]

mod support;

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use support::{
    Instance, Mllp, Process, effort, frame, hostile::acknowledgement, machine::resident_megabytes,
};

/// Who sends at once, each with patients of its own.
const SENDERS: usize = 16;
/// Messages that a sender has under way; they are answered in order.
const UNDER_WAY: usize = 16;
/// Messages of each patient, far apart.
const EACH: usize = 20;
/// What the machine may hold while it works the queue off, whatever the length of the queue.
const RESIDENT_MEGABYTES: u64 = 512;

/// Takes everything by MLLP and knows what came, in order.
#[derive(Default)]
struct Receiver {
    /// The number of each patient's last message.
    last: HashMap<usize, usize>,
    taken: usize,
}

impl Receiver {
    fn start() -> (u16, Arc<Mutex<Self>>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let receiver = Arc::<Mutex<Self>>::default();
        let shared = receiver.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let receiver = shared.clone();
                std::thread::spawn(move || Self::serve(&socket, &receiver));
            }
        });
        (port, receiver)
    }

    fn serve(mut socket: &TcpStream, receiver: &Mutex<Self>) {
        let mut reader = BufReader::new(socket);
        let mut frame = Vec::new();
        while reader.read_until(0x1c, &mut frame).is_ok_and(|read| read > 0) {
            reader.read_exact(&mut [0]).unwrap();
            let text = std::str::from_utf8(&frame).unwrap();
            let control_id = text.split('|').nth(9).unwrap();
            receiver.lock().unwrap().take(control_id);
            if socket.write_all(&acknowledgement("AA", control_id)).is_err() {
                return;
            }
            frame.clear();
        }
    }

    /// Every message once, and each patient's in the order in which they were acknowledged.
    fn take(&mut self, control_id: &str) {
        let (patient, number) = control_id[1..].split_once('N').unwrap();
        let (patient, number): (usize, usize) = (patient.parse().unwrap(), number.parse().unwrap());
        let due = self.last.get(&patient).map_or(0, |last| last + 1);
        assert_eq!(number, due, "patient {patient}");
        self.last.insert(patient, number);
        self.taken += 1;
    }
}

/// So many messages, numbered from 0.
#[derive(Clone, Copy)]
struct Load(usize);

impl Load {
    fn patient(self, message: usize) -> usize {
        message % (self.0 / EACH)
    }

    fn control_id(self, message: usize) -> String {
        format!("P{}N{}", self.patient(message), message / (self.0 / EACH))
    }

    fn result(self, message: usize) -> String {
        let patient = self.patient(message);
        format!(
            "MSH|^~\\&|LAB|RXX|TIE|RXX|20260301120000||ORU^R01^ORU_R01|{id}|T|2.4\r\
             PID|1||{nhs}^^^NHS^NH~M{patient:06}^^^RXX^MR||ZZTEST{patient}^PATIENT^^^MRS||19700101|2|||1 HIGH STREET^^LEEDS^^LS1 1AA\r\
             PV1|1|I|W1^B2^3^RXX||||C1234567^SMITH^J^^^DR|||||||||||V{message}\r\
             ORC|RE|O{message}^PAS|{accession}^LAB\r\
             OBR|1|O{message}^PAS|{accession}^LAB|U&E^Urea and electrolytes^LAB|||20260301110000|||||||||C1234567^SMITH^J^^^DR\r\
             OBX|1|NM|NA^Sodium^LAB||{sodium}|mmol/L|133-146|N|||F|||20260301113000\r\
             OBX|2|NM|K^Potassium^LAB||4.{potassium}|mmol/L|3.5-5.3|N|||F|||20260301113000\r",
            id = self.control_id(message),
            nhs = nhs_number(patient),
            accession = accession_number(message),
            sodium = 130 + message % 20,
            potassium = message % 10,
        )
    }
}

/// A valid NHS number for each patient, below a million of them.
fn nhs_number(patient: usize) -> String {
    // The second digit moves the check digit where it would be 10.
    (0..10)
        .find_map(|filler| {
            let first = format!("9{filler}{patient:07}");
            let sum: usize =
                first.bytes().zip(2..=10).map(|(digit, at)| usize::from(digit - b'0') * (12 - at)).sum();
            let check = (11 - sum % 11) % 11;
            (check < 10).then(|| format!("{first}{check}"))
        })
        .unwrap()
}

fn accession_number(message: usize) -> String {
    format!("26B{message:09}")
}

fn send(port: u16, load: Load, messages: impl Iterator<Item = usize>) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut answers = BufReader::new(stream.try_clone().unwrap());
    let mut answer = Vec::new();
    let messages: Vec<usize> = messages.collect();
    for some in messages.chunks(UNDER_WAY) {
        let frames: Vec<u8> =
            some.iter().flat_map(|message| frame(load.result(*message).as_bytes())).collect();
        stream.write_all(&frames).unwrap();
        for message in some {
            answer.clear();
            answers.read_until(0x1c, &mut answer).unwrap();
            let text = String::from_utf8_lossy(&answer);
            assert!(text.contains(&format!("MSA|AA|{}", load.control_id(*message))), "{text}");
        }
    }
}

/// One destination for everything, in maintenance or not.
fn configure(instance: &Instance, receiver: u16, paused: bool) {
    let config = instance.config();
    let (head, _) = config.split_once("[destination").unwrap();
    let lab = format!(
        "[destination.lab-archive]\nkind = \"mllp\"\naddress = \"127.0.0.1:{receiver}\"\nconnections = 8\npaused = {paused}\n"
    );
    instance.write("tie.toml", &format!("{head}{lab}"));
}

fn instance(receiver: u16) -> Instance {
    let instance = Instance::new();
    for route in std::fs::read_dir(instance.path("routes")).unwrap() {
        std::fs::remove_file(route.unwrap().path()).unwrap();
    }
    instance.write("mappings/forward.rhai", "// Sends a message on as it is.\nfn map(msg) { msg.copy() }\n");
    instance.write(
        "routes/archive.toml",
        "about = \"A test.\"\nowner = \"tests\"\nfrom = \"hospital\"\nmap = \"forward\"\norder = \"patient\"\n\
         [[to]]\ndestination = \"lab-archive\"\npurpose = \"direct-care\"\n",
    );
    configure(&instance, receiver, true);
    instance
}

/// Fills the queue of the paused destination through the front door.
fn fill(instance: &Instance, load: Load) {
    let began = Instant::now();
    std::thread::scope(|scope| {
        for sender in 0..SENDERS {
            // A patient's messages all come by one sender.
            let own = (0..load.0).filter(move |message| load.patient(*message) % SENDERS == sender);
            scope.spawn(move || send(instance.mllp, load, own));
        }
    });
    let per_second = load.0 as f64 / began.elapsed().as_secs_f64();
    println!("{} messages acknowledged: {per_second:.0}/s", load.0);
}

fn search(instance: &Instance, load: Load) {
    let message = load.0 / 2;
    for (option, value) in [
        ("--control-id", load.control_id(message)),
        ("--nhs-number", nhs_number(load.patient(message))),
        ("--order", accession_number(message)),
    ] {
        let began = Instant::now();
        let (code, out, err) = instance.tie(&["search", "--json", option, &value]);
        let took = began.elapsed();
        assert!(code == 0 && out.contains(&load.control_id(message)), "{option} {value}: {code} {out}{err}");
        println!("tie search {option}: {took:.2?}");
        assert!(took < Duration::from_secs(1), "{option} took {took:?}");
    }
}

/// Waits until all of it has arrived; returns the most memory that the engine had meanwhile, in megabytes.
fn drained(engine: &Process, receiver: &Mutex<Receiver>, messages: usize) -> u64 {
    let (mut highest, mut before, mut moved) = (0, 0, Instant::now());
    loop {
        highest = highest.max(resident_megabytes(engine));
        let taken = receiver.lock().expect("each patient's messages came in order, each once").taken;
        if taken == messages {
            return highest;
        }
        if taken > before {
            (before, moved) = (taken, Instant::now());
        }
        assert!(moved.elapsed() < support::PATIENCE, "{taken} of {messages} and no more");
        std::thread::sleep(Duration::from_millis(50)); // poll: the memory meanwhile
    }
}

#[test]
fn p1_p4_p6_a_long_backlog_is_found_again_searched_and_worked_off_in_bounded_memory() {
    let messages = effort("MESSAGES", 5_000) as usize;
    let load = Load(messages);
    let (port, receiver) = Receiver::start();
    let instance = instance(port);
    let mut engine = instance.start();
    fill(&instance, load);
    engine.terminate();
    engine.0.wait().unwrap();

    let began = Instant::now();
    let engine = instance.start();
    let took = began.elapsed();
    println!("{messages} queued: ready after {took:.2?}, {} MB resident", resident_megabytes(&engine));
    assert!(took < Duration::from_secs(10), "{took:?} until ready");
    search(&instance, load);

    let began = Instant::now();
    configure(&instance, port, false);
    let highest = drained(&engine, &receiver, messages);
    let per_second = messages as f64 / began.elapsed().as_secs_f64();
    println!("worked off in order, each once: {per_second:.0}/s, {highest} MB resident at most");
    assert!(highest < RESIDENT_MEGABYTES, "{highest} MB");
    search(&instance, load);

    // Who was served before is served now, at once.
    let mut source = Mllp::connect(instance.mllp).unwrap();
    assert_eq!(source.send(load.result(messages).as_bytes()).unwrap().code(), "AA");
    drained(&engine, &receiver, messages + 1);
}
