//! P1, P6, P10: sources that crawl, flood, shout, babble and never listen. The engine answers or closes, takes no
//! more memory than it may, and goes on serving everybody else, the admin listener included.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice
)]

mod support;

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use support::{
    Instance, Mllp, frame,
    hostile::{Peer, Reaction},
    http,
    machine::{allow_files, resident_megabytes},
    senders::{Senders, has_all, repeats_in_order},
    update, wait,
};

/// Memory that the engine may come to hold in these tests: its rest is about 60 MB in a debug build.
const RESIDENT_MEGABYTES: u64 = 400;

/// Connections that the admin listener serves at once.
const ADMIN_CONNECTIONS: usize = 64;

/// An instance whose listener has these keys besides its address.
fn instance(keys: &str) -> Instance {
    let instance = Instance::new();
    let config = instance.config().replace("kind = \"mllp\"\n", &format!("kind = \"mllp\"\n{keys}\n"));
    instance.write("tie.toml", &config);
    instance
}

#[test]
fn p6_a_flood_of_connections_shuts_out_neither_senders_nor_the_admin_listener() {
    let flood = support::effort("CONNECTIONS", 2_000) as usize;
    assert!(allow_files(flood as u64 + 1_000), "so many files cannot be opened here");
    let instance = instance("");
    let _record = instance.start_record();
    let engine = instance.start();
    // Who is there before the flood is served through it.
    let mut source = Mllp::connect(instance.mllp).unwrap();
    assert_eq!(source.send(&update(0, 0).1).unwrap().code(), "AA");

    let mut held = Vec::new();
    for number in 0..flood {
        let port = if number % 4 == 0 { instance.admin } else { instance.mllp };
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
            let _ =
                stream.write_all(if port == instance.admin { b"GET /livez HT" } else { b"\x0bMSH|^~\\&|" });
            held.push(stream);
        }
        if number % 500 == 499 {
            assert_eq!(source.send(&update(0, number).1).unwrap().code(), "AA");
            let (status, _) = http(instance.admin, "GET", "/readyz", "").expect("the admin listener answers");
            assert_eq!(status, 200);
        }
    }
    let resident = resident_megabytes(&engine);
    println!("{flood} connections: {resident} MB resident");
    assert!(resident < RESIDENT_MEGABYTES, "{resident} MB");

    // Whoever never ended a request has made room for others: the bound on the admin listener holds.
    let open = |stream: &&TcpStream| {
        stream.set_nonblocking(true).unwrap();
        let port = stream.peer_addr().map_or(0, |address| address.port());
        let waits = (&**stream).read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        port == instance.admin && waits
    };
    wait("the admin listener to hold no more than it may", || {
        held.iter().filter(open).count() <= ADMIN_CONNECTIONS
    });

    // Somebody new is told why, or is served; when the flood is over, everybody is served.
    drop(held);
    wait("a new sender to be served", || {
        Mllp::connect(instance.mllp)
            .and_then(|mut source| source.send(&update(1, 0).1))
            .is_ok_and(|answer| answer.code() == "AA")
    });
    wait("what was acknowledged to be delivered", || {
        instance.ledger().iter().any(|id| *id == update(1, 0).0)
    });
}

#[test]
fn p6_a_message_of_64_megabytes_is_refused_politely_and_takes_no_memory() {
    let instance = instance("");
    let engine = instance.start();
    let writers: Vec<_> = (0..4)
        .map(|patient| {
            let port = instance.mllp;
            std::thread::spawn(move || {
                let mut source = Mllp::connect(port).unwrap();
                let (control_id, mut message) = update(patient, 0);
                message.extend(b"NTE|1||");
                message.resize(64 << 20, b'x');
                let _ = source.write(&frame(&message)); // the engine may close before it has read all
                let answer = source.read().unwrap();
                assert_eq!((answer.code(), answer.control_id()), ("AR", control_id.as_str()), "{answer:?}");
            })
        })
        .collect();
    let mut highest = 0;
    while writers.iter().any(|writer| !writer.is_finished()) {
        highest = highest.max(resident_megabytes(&engine));
        std::thread::sleep(Duration::from_millis(20)); // poll: the memory meanwhile
    }
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    println!("4 messages of 64 MB: {highest} MB resident at most");
    assert!(highest < RESIDENT_MEGABYTES, "{highest} MB");
    let mut source = Mllp::connect(instance.mllp).unwrap();
    assert_eq!(source.send(&update(9, 0).1).unwrap().code(), "AA");
}

#[test]
fn p1_p6_thousands_in_one_write_are_answered_one_by_one_in_order() {
    let instance = instance("");
    let _record = instance.start_record();
    let _engine = instance.start();
    let many = support::effort("PIPELINED", 2_000) as usize;
    let messages: Vec<_> = (0..many).map(|number| update(number % 50, number)).collect();
    let bytes: Vec<u8> = messages.iter().flat_map(|(_, message)| frame(message)).collect();
    let mut writer = TcpStream::connect(("127.0.0.1", instance.mllp)).unwrap();
    let mut source = Mllp::over(writer.try_clone().unwrap());
    let written = std::thread::spawn(move || writer.write_all(&bytes));
    for (control_id, _) in &messages {
        let answer = source.read().unwrap();
        assert_eq!((answer.code(), answer.control_id()), ("AA", control_id.as_str()));
    }
    written.join().unwrap().unwrap();
    let all: BTreeSet<_> = messages.into_iter().map(|(control_id, _)| control_id).collect();
    wait("all to be delivered", || has_all(&instance.ledger(), &all));
    assert_eq!(repeats_in_order(&instance.ledger()), 0);
}

#[test]
fn p6_a_sender_that_never_reads_its_acknowledgements_is_held_back_and_then_closed() {
    let instance = instance("frame_time = \"2s\"");
    let engine = instance.start();
    let mut deaf = with_a_small_ear(instance.mllp);
    let shouting = std::thread::spawn(move || {
        let mut sent = 0;
        while sent < 50_000 && deaf.write_all(&frame(&update(sent % 9, sent).1)).is_ok() {
            sent += 1;
        }
        sent
    });
    // Others are served meanwhile.
    let mut source = Mllp::connect(instance.mllp).unwrap();
    let mut highest = 0;
    let mut number = 0;
    while !shouting.is_finished() {
        number += 1;
        assert_eq!(source.send(&update(20, number).1).unwrap().code(), "AA");
        highest = highest.max(resident_megabytes(&engine));
    }
    let sent = shouting.join().unwrap();
    println!("a deaf sender was closed after {sent} messages; {highest} MB resident at most");
    assert!(sent < 50_000, "it was never held back");
    assert!(highest < RESIDENT_MEGABYTES, "{highest} MB");
}

/// A connection whose own system takes little that is not read: megabytes otherwise, which is a long way for
/// acknowledgements.
fn with_a_small_ear(port: u16) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(([127, 0, 0, 1], port).into()).await.unwrap().into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

#[test]
fn p6_half_messages_garbage_and_crawlers_end_with_an_answer_and_hold_nobody_up() {
    let instance = instance("frame_time = \"2s\"");
    let _record = instance.start_record();
    let _engine = instance.start();
    let senders = Senders::start(instance.mllp, 0..2);

    // Begins and crawls: a byte now and then, never the end.
    let (control_id, message) = update(30, 0);
    let crawler = std::thread::spawn({
        let (port, message) = (instance.mllp, message.clone());
        move || {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let mut source = Mllp::over(stream.try_clone().unwrap());
            stream.write_all(&frame(&message)[..80]).unwrap();
            let began = Instant::now();
            let crawling = std::thread::spawn(move || {
                while stream.write_all(b"x").is_ok() {
                    std::thread::sleep(Duration::from_millis(100)); // poll: as slow as that
                }
            });
            let answer = source.read().unwrap();
            assert!(began.elapsed() < Duration::from_secs(20), "it took {:?}", began.elapsed());
            drop(source);
            crawling.join().unwrap();
            answer
        }
    });
    // Half a message, then closes its side.
    let stream = TcpStream::connect(("127.0.0.1", instance.mllp)).unwrap();
    (&stream).write_all(&frame(&message)[..90]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let answer = Mllp::over(stream).read().unwrap();
    assert_eq!((answer.code(), answer.control_id()), ("AR", control_id.as_str()), "{answer:?}");
    // Half a message, then gone without a word.
    let mut gone = TcpStream::connect(("127.0.0.1", instance.mllp)).unwrap();
    gone.write_all(&frame(&message)[..90]).unwrap();
    drop(gone);
    // Another protocol, random bytes, nothing but filling.
    let mut random = support::senders::Random(7);
    let noise: Vec<u8> = (0..300_000).map(|_| random.below(256) as u8).collect();
    let filling = vec![0; 100_000];
    for garbage in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &noise, &filling, b"\x16\x03\x01\x02\x00\x01"]
    {
        let mut stream = TcpStream::connect(("127.0.0.1", instance.mllp)).unwrap();
        stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
        let _ = stream.write_all(garbage); // it may be closed before it is done
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer);
        assert!(!text.contains("MSA|AA") && !text.contains("MSA|CA"), "{text}");
    }
    let answer = crawler.join().unwrap();
    assert_eq!((answer.code(), answer.control_id()), ("AR", control_id.as_str()), "{answer:?}");

    let enough = senders.acknowledged() + 20;
    wait("the others to get on", || senders.acknowledged() >= enough);
    let ledger = senders.stop();
    assert_eq!(ledger.refused, [""; 0], "nobody else was refused");
    wait("everything acknowledged to be delivered", || has_all(&instance.ledger(), &ledger.acknowledged));
    assert!(!instance.ledger().contains(&control_id), "half a message is no message");
}

#[test]
fn p10_p2_a_stop_under_load_with_a_hung_destination_takes_seconds_and_loses_nothing() {
    let instance = instance("");
    let hung = Peer::fhir(|_| Reaction::Silence);
    let config = instance.config();
    let hanging = config.replace(&instance.record.to_string(), &hung.port.to_string());
    instance.write("tie.toml", &hanging.replace("timeout = \"5s\"", "timeout = \"10m\""));
    let mut engine = instance.start();
    let senders = Senders::start(instance.mllp, 0..16);
    wait("load, and deliveries that hang", || senders.acknowledged() > 200 && hung.asked() >= 8);

    let asked = Instant::now();
    engine.terminate();
    wait("the engine to end", || engine.0.try_wait().unwrap().is_some());
    assert!(asked.elapsed() < Duration::from_secs(30), "it took {:?}", asked.elapsed());
    assert_eq!(engine.0.wait().unwrap().code(), Some(0), "{}", instance.log());
    let ledger = senders.stop();

    instance.write("tie.toml", &config);
    let _record = instance.start_record();
    let _engine = instance.start();
    wait("everything acknowledged to be delivered", || has_all(&instance.ledger(), &ledger.acknowledged));
    repeats_in_order(&instance.ledger());
}
