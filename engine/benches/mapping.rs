//! How long a mapping takes: a whole admission, with all that hangs on it, from the parsed message to the bytes,
//! with a script of its own and with the shipped mapping; a result of 30 numbers; and every other shipped mapping with a
//! message of `testdata/`.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::BTreeSet,
    fs,
    hint::black_box,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use criterion::{Criterion, criterion_group, criterion_main};
use tie_engine::{
    incoming::Incoming,
    mapping::{Context, Files, Limits, Mapped, Mappings},
};

/// As the binary has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ADMISSION: &str = "MSH|^~\\&|PAS|RXX|TIE|TIE|20260115093000||ADT^A01^ADT_A01|BENCH1|P|2.4|1||||GBR|UNICODE|EN\r\
    EVN||20260115093000|||111111111^CLERK^ANNE^^^Miss^^RXX01|20260115092500\r\
    PID|1||9991001018^^^NHS~1000001^^^RXX^MR||OAKLEY^FREDA^JANE^^MRS^^L~SCHMIDT^FREDA^^^^^M||196512130415|F|||29 WEST AVENUE^BURYTHORPE^MALTON^NORTH YORKSHIRE^YO17 9ZZ^GBR^H||01653555123^PRN^PH~07700900123^PRN^CP|01653555199^WPN^PH|EN|M|C22|||||A|||N||||||N\r\
    PD1|||MALTON GP PRACTICE^^Y06601|G9999981^TOWNLEY^GREGORY^^^Dr^^^GMP\r\
    NK1|1|OAKLEY^ALBERT^J^^MR^^L|1|29 WEST AVENUE^BURYTHORPE^MALTON^NORTH YORKSHIRE^YO17 9ZZ^GBR^H|07700900456\r\
    PV1|1|I|MAU^WARD7^BED04^RXX01|21|||C9999991^DARWIN^SAMUEL^^^Dr^^^GMC|G9999981^TOWNLEY^GREGORY^^^Dr^^^GMP|C9999991^DARWIN^SAMUEL^^^Dr^^^GMC~C9999992^BLACKWELL^ELIZA^^^Dr^^^GMC|300||||19|||C9999991^DARWIN^SAMUEL^^^Dr^^^GMC||V0001234^^^VISITID|||||||||||||||||||||||||20260115090000\r\
    PV2|||||||||20260120\r\
    AL1|1|DA|91936005^Allergy to penicillin^SCT|SV|Rash|19980701\r\
    DG1|1||J18.9^Pneumonia, unspecified^ICD10||202601150900|A|||||||||1\r";

/// A result of 30 numbers.
fn results() -> String {
    let mut message = String::from(
        "MSH|^~\\&|LIMS|RXX|TIE|TIE|20260304101500||ORU^R01^ORU_R01|BENCH2|P|2.5.1||||||8859/1|EN\r\
         PID|1||9991001018^^^NHS~1000001^^^RXX^MR||OAKLEY^FREDA||19651213|F\rPV1|1|I|MAU^WARD7^BED04||||||||||||||||V0001234\r\
         ORC|RE|ORD1|26H000001||CM\rOBR|1|ORD1|26H000001|FBC^FULL BLOOD COUNT^L|||20260304090000|||||||||C9999991^DARWIN^SAMUEL||||||20260304101000||HM|F\r",
    );
    for n in 1..=30 {
        message += &format!(
            "OBX|{n}|NM|7{n:02}-8^Analyte number {n}^LN^A{n:02}^Local {n}^L||{n}.{n}|10*9/L^^UCUM|1.0-{n}.9|N|||F|||20260304093000||C9999992^SCIENTIST^JO\r"
        );
    }
    message
}

const SCRIPT: &str = r#"
const PATIENT = segment_map("PID", "Patient", [
    ["PID-3",  "identifier", "CX"],
    ["PID-5",  "name",       "XPN"],
    ["PID-7",  "birthDate",  "date"],
    ["PID-8",  "gender",     "code", "administrative-sex"],
    ["PID-11", "address",    "XAD"],
    ["PID-13", "telecom",    "XTN", #{ use: "home" }],
    ["PID-14", "telecom",    "XTN", #{ use: "work" }],
    ["=",      "active",     true],
]);
const GP = segment_map("PD1", "Patient", [
    ["PD1-3",  "generalPractitioner", "XON"],
    ["PD1-4",  "generalPractitioner", "XCN"],
]);
const NEXT_OF_KIN = segment_map("NK1", "RelatedPerson", [
    ["NK1-2",  "name",       "XPN"],
    ["NK1-4",  "address",    "XAD"],
    ["NK1-5",  "telecom",    "XTN"],
]);
const ATTENDER = #{ type: [#{ text: "attender" }] };
const CONSULTANT = #{ type: [#{ text: "consultant" }] };
const ENCOUNTER = segment_map("PV1", "Encounter", [
    ["PV1-19", "identifier", "visit-number"],
    ["PV1-2",  "class",      "CWE", "patient-class"],
    ["PV1-44", "period.start", "DTM"],
    ["PV1-7",  "participant[].individual", "XCN", ATTENDER],
    ["PV1-9",  "participant[].individual", "XCN", CONSULTANT],
    ["PV1-3",  "location[].location", "PL", #{ status: "active" }],
]);

fn status(event) {
    switch event {
        "A03" => "finished",
        "A11" => "cancelled",
        _ => "in-progress",
    }
}

fn map(msg) {
    let out = bundle();
    let p = out.put(PATIENT, msg["PID"]);
    if msg.text("PID-30") == "Y" { p.set("deceasedBoolean", true); }
    p.fill(GP, msg["PD1"]);
    for nk1 in msg.segments("NK1") {
        let n = out.put(NEXT_OF_KIN, nk1, "https://example.org/nk1", p.id + nk1[1]);
        n.set("patient", p);
    }
    let e = out.put(ENCOUNTER, msg["PV1"]);
    e.set("status", status(msg.event));
    e.set("subject", p);
    out
}
"#;

/// The other shipped mappings, each with a usual message.
const SHIPPED: [(&str, &str); 16] = [
    ("appointments", "siu/s12-outpatient.hl7"),
    ("charges", "dft/p03-charge-and-credit.hl7"),
    ("documents", "mdm/t02-discharge-summary.hl7"),
    ("fhir-appointments", "fhir/appointment.fhir"),
    ("fhir-documents", "fhir/document.fhir"),
    ("fhir-observations", "fhir/observation-patient-reported-bp.fhir"),
    ("fhir-orders", "fhir/order.fhir"),
    ("fhir-patients", "fhir/patient-update.fhir"),
    ("forward", "adt/a01-full.hl7"),
    ("generic", "generic/local-assessment.hl7"),
    ("master-files", "mfn/m02-consultant.hl7"),
    ("orders", "orders/oml-o21-pathology.hl7"),
    ("pharmacy", "pharmacy/o11-new.hl7"),
    ("problems", "problems/pc1-add.hl7"),
    ("referrals", "ref/i12-to-cardiology.hl7"),
    ("vaccination", "vaccination/v04-given.hl7"),
];

fn mapping(criterion: &mut Criterion) {
    let files: Files = [
        ("mappings/adt.rhai", SCRIPT),
        ("mappings/tables/administrative-sex.csv", "from,code\nF,female\nM,male\n"),
        ("mappings/tables/patient-class.csv", "from,code\nI,IMP\nO,AMB\nE,EMER\n"),
    ]
    .into_iter()
    .map(|(path, text)| (PathBuf::from(path), Arc::from(text)))
    .collect();
    measure(criterion, "adt own", &files, ADMISSION);
    let mut shipped = Files::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    gather(&root, &root.join("mappings"), &mut shipped);
    if shipped.contains_key(Path::new("mappings/adt.rhai")) {
        measure(criterion, "adt shipped", &shipped, ADMISSION);
        measure(criterion, "oru shipped", &shipped, &results());
        others(criterion, &root.join("testdata"), &Mappings::compile(&shipped, &Limits::default()).unwrap());
    }
}

fn others(criterion: &mut Criterion, messages: &Path, mappings: &Mappings) {
    let measured: BTreeSet<_> = SHIPPED.iter().map(|(name, _)| *name).chain(["adt", "oru"]).collect();
    assert_eq!(mappings.names().collect::<BTreeSet<_>>(), measured, "every shipped mapping is measured");
    for (name, file) in SHIPPED {
        let name = format!("{name} shipped");
        if is_wanted(&name) {
            let raw = fs::read(messages.join(file)).unwrap();
            let message = Incoming::read(raw.into(), encoding_rs::WINDOWS_1252).unwrap();
            run(criterion, &name, mappings, &message);
        }
    }
}

/// The scripts and tables below a folder.
fn gather(root: &Path, folder: &Path, files: &mut Files) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            gather(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rhai" || extension == "csv") {
            files.insert(path.strip_prefix(root).unwrap().into(), fs::read_to_string(&path).unwrap().into());
        }
    }
}

/// What a run costs this thread, in microseconds: comparable on a busy machine, where the wall clock is not.
fn processor_time(runs: u32, mut work: impl FnMut()) -> u128 {
    let spent = || {
        let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::try_from(used).unwrap()
    };
    (0..runs / 10).for_each(|_| work());
    let before = spent();
    (0..runs).for_each(|_| work());
    ((spent() - before) / runs).as_micros()
}

/// Whether the words of the command line ask for this script; no word asks for all.
fn is_wanted(name: &str) -> bool {
    let mut words =
        std::env::args().skip(1).filter(|word| !word.starts_with('-') && word.parse::<u32>().is_err());
    let first = words.next();
    first.is_none_or(|word| format!("mapping/{name}").contains(word.trim_end_matches('$')))
}

fn context() -> Context {
    Context {
        received: "2026-01-15T09:30:01Z".parse().unwrap(),
        zone: jiff::tz::TimeZone::get("Europe/London").unwrap(),
        environment: "test".into(),
        revision: "sample".into(),
        coverage: false,
    }
}

/// A mapping, the same when no staff, place or code of the message is known from one before, and while it counts what is
/// read, and the compilation of its scripts.
fn measure(criterion: &mut Criterion, name: &str, files: &Files, message: &str) {
    if !is_wanted(name) {
        return;
    }
    let mappings = Mappings::compile(files, &Limits::default()).unwrap();
    let message = Incoming::read(message.to_owned().into(), encoding_rs::WINDOWS_1252).unwrap();
    let mapping = run(criterion, name, &mappings, &message);
    let forgetful = Mappings::compile(files, &Limits::default()).unwrap().without_memory();
    run(criterion, &format!("{name}, nothing known"), &forgetful, &message);
    let counting = Context { coverage: true, ..context() };
    criterion.bench_function(&format!("mapping/{name}, coverage"), |bencher| {
        bencher.iter(|| black_box(mappings.run(mapping, message.clone(), &counting).unwrap()));
    });
    criterion.bench_function(&format!("mapping/compile {name}"), |bencher| {
        bencher.iter(|| black_box(Mappings::compile(files, &Limits::default()).unwrap()));
    });
}

/// A mapping, which the first word names.
fn run<'n>(criterion: &mut Criterion, name: &'n str, mappings: &Mappings, message: &Incoming) -> &'n str {
    let (mapping, context) = (name.split(' ').next().unwrap(), context());
    println!(
        "{name}: {} µs of the processor a message",
        processor_time(2000, || drop(black_box(mappings.run(mapping, message.clone(), &context))))
    );
    match mappings.run(mapping, message.clone(), &context).unwrap().mapped {
        Mapped::Outputs(outputs) => {
            println!("{name}: {} bytes", outputs.iter().map(|one| one.bytes().len()).sum::<usize>())
        }
        other => panic!("{name}: {other:?}"),
    }
    criterion.bench_function(&format!("mapping/{name}"), |bencher| {
        bencher.iter(|| black_box(mappings.run(mapping, message.clone(), &context).unwrap()));
    });
    mapping
}

criterion_group!(benches, mapping);
criterion_main!(benches);
