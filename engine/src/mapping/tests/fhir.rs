//! FHIR as scripts read it, and HL7 v2 as they write it.

use super::*;
use crate::incoming::Incoming;

const BUNDLE: &str = r##"{"resourceType":"Bundle","type":"transaction","identifier":{"value":"B1"},"entry":[
    {"fullUrl":"urn:uuid:1","resource":{"resourceType":"Patient","active":true,"gender":"female","multipleBirthInteger":2,
        "identifier":[{"system":"https://fhir.nhs.uk/Id/nhs-number","value":"9991001018"},{"system":"urn:oid:1.2","value":"7","type":{"coding":[{"code":"MR"}]}}],
        "name":[{"use":"usual","family":"O|Neill","given":["Ann","May"],"prefix":["Dr"]}]}},
    {"resource":{"resourceType":"Observation","id":"o","status":"final","code":{"coding":[{"system":"urn:tie:codes:RXX:Win%20Path","code":"HB","display":"Hb"}],"text":"Haemoglobin"},
        "subject":{"reference":"urn:uuid:1"},"contained":[{"resourceType":"Device","id":"d","deviceName":[{"name":"Scale"}]}],"device":{"reference":"#d"},
        "valueQuantity":{"value":7.10,"comparator":"<","unit":"g"},"effectiveDateTime":"2026-07-01T09:00:00.50+01:00",
        "extension":[{"url":"https://x.y/z","valueCode":"q"}]}}]}"##;

fn run_fhir(script: &str, text: &str) -> String {
    let files: Files = [(PathBuf::from("mappings/adt.rhai"), Arc::from(script))].into();
    let mappings = match Mappings::compile(&files, &Limits::default()) {
        Ok(mappings) => mappings,
        Err(problems) => return problems.iter().map(|problem| format!("{problem}\n")).collect(),
    };
    let incoming = Incoming::read(text.to_owned().into(), encoding_rs::UTF_8).unwrap();
    match mappings.run("adt", &incoming, &context()).map(|product| product.mapped) {
        Ok(Mapped::Outputs(payloads)) => payloads
            .iter()
            .map(|payload| String::from_utf8_lossy(payload.bytes()).replace('\r', "\n"))
            .collect(),
        Ok(other) => format!("{other:?}\n"),
        Err(error) => format!("error: {error}\n"),
    }
}

/// What expressions give, one a line.
fn values(expressions: &[&str], expect: Expect) {
    let lines: Vec<String> = expressions
        .iter()
        .enumerate()
        .map(|(n, expression)| format!("out.set(\"ZZZ-{}\", \"\" + ({expression}));", n + 1))
        .collect();
    let script = format!(
        "fn map(msg) {{ let o = msg.resources(\"Observation\")[0]; let p = msg.resources(\"Patient\")[0]; let out = hl7(); out.append(\"ZZZ\"); {} out }}",
        lines.join("\n")
    );
    expect.assert_eq(&run_fhir(&script, BUNDLE));
}

#[test]
fn elements_are_read_by_name_by_path_and_across_references() {
    values(
        &[
            "msg.trigger + msg.control_id + msg.entries.len()",
            "p.name[0].family + p[\"gender\"] + p.active + p.multipleBirthInteger",
            "p.name[0].given[1] + p.name[0].given.len",
            "o.get(\"valueQuantity.value\") + o.get(\"value[x].unit\") + o.shape(\"value\")",
            "p.get(\"identifier.where(system='https://fhir.nhs.uk/Id/nhs-number').value\")",
            "p.text(\"identifier.where(type.coding.code='MR').value\")",
            "o.subject.resolve().get(\"name.family\") + o.device.resolve().get(\"deviceName.name\")",
            "o.get(\"extension(https://x.y/z).valueCode\")",
            "msg.resource.type + msg[\"PID-3\"].is_absent",
        ],
        expect![[r#"
            MSH|^~\&
            ZZZ|FHIR\S\transactionB12|O\F\Neillfemaletrue2|May2|7.10gQuantity|9991001018|7|O\F\NeillScale|q|transactiontrue
        "#]],
    );
}

#[test]
fn an_identifier_of_a_received_resource_is_a_key() {
    let script = r#"fn map(msg) {
    let out = bundle();
    let one = out.put("Patient", msg.resources("Patient")[0].identifier[0]);
    if one.id != id("Patient", "https://fhir.nhs.uk/Id/nhs-number", "9991001018") { fail("not under it"); }
    one.set("active", true);
    out
}"#;
    let given = run_fhir(script, BUNDLE);
    assert!(given.contains(r#""active":true"#), "{given}");
}

#[test]
fn what_is_not_there_is_nothing_however_deep_one_asks() {
    values(
        &[
            "p.birthDate == ()",
            "p.address[3].line[0] == ()",
            "p.contact.name.family == ()",
            "p.get(\"contact[0].name\").to(\"XPN\") == ()",
            "p.all(\"contact.telecom\").len()",
            "o.encounter.resolve().text(\"id\") + o.has(\"encounter\")",
            "p.name[0][\"nothing\"].x[2].y == ()",
        ],
        expect![[r#"
            MSH|^~\&
            ZZZ|true|true|true|true|0|false|true
        "#]],
    );
    // In a mapping of HL7 v2 it stays the mistake that it is.
    let told =
        run_with(&[("mappings/adt.rhai", "fn map(msg) { let x = (); x.name }")], ADT, &Limits::default());
    assert!(told.contains("there is nothing here"), "{told}");
    let told = run_with(&[("mappings/adt.rhai", "fn map(msg) { msg.resource }")], ADT, &Limits::default());
    assert!(told.contains("no FHIR"), "{told}");
}

#[test]
fn data_types_go_back_to_hl7() {
    let script = r#"fn map(msg) {
        let o = msg.resources("Observation")[0]; let p = msg.resources("Patient")[0];
        let out = hl7("2.5", "ORU^R01^ORU_R01");
        let pid = out.append("PID");
        pid.set("PID-3", p.all("identifier").map(|one| one.to("CX")));
        pid.set("PID-5", p.name[0].to("XPN"));
        pid.set(24, p.active);
        out.append("OBR").set("OBR-4", o.code.to("CE"));
        for unit in ["NM", "SN"] {
            let obx = out.append("OBX");
            obx.set("OBX-2", unit);
            obx.set("OBX-3", o.code.to("CWE"));
            obx.set("OBX-5", o.valueQuantity.to(unit));
            obx.set("OBX-6", o.valueQuantity.to("units"));
            obx.set("OBX-11", "F");
            obx.set("OBX-14", o.effectiveDateTime.to("TS"));
            obx.set("OBX-16", o.get("performer[0]").to("XCN"));
        }
        out
    }"#;
    let told = run_fhir(script, BUNDLE);
    let lines: Vec<&str> = told.lines().collect();
    let header: Vec<&str> = lines[0].split('|').collect();
    assert_eq!(
        (header[2], header[6], header[8], header[9].len(), header[10]),
        ("TIE", "20260115093001+0000", "ORU^R01^ORU_R01", 20, "T")
    );
    assert_eq!(
        lines[1..],
        [
            "PID|||9991001018^^^NHS^NH~7^^^&1.2&ISO^MR||O\\F\\Neill^Ann^May^^Dr^^L|||||||||||||||||||Y",
            "OBR||||HB^Hb^Win Path^^Haemoglobin",
            "OBX||NM|HB^Hb^Win Path^^^^^^Haemoglobin||7.10|g|||||F|||20260701090000.50+0100",
            "OBX||SN|HB^Hb^Win Path^^^^^^Haemoglobin||<^7.10|g|||||F|||20260701090000.50+0100",
        ],
        "{told}"
    );
    assert_eq!(run_fhir(script, BUNDLE), told, "the same message gives the same bytes, its control id too");
}

#[test]
fn a_message_of_ours_is_not_sent_without_what_its_version_requires() {
    for (script, told) in [
        (
            "let out = hl7(\"2.4\", \"ORU^R01\"); out.append(\"PID\").set(\"PID-3\", \"1\"); out",
            "lacks PID-5 (Patient Name), which version 2.4 requires",
        ),
        (
            "let out = hl7(\"2.4\", \"ORU^R01\"); out.append(\"NTE\"); let o = out.append(\"OBX\"); o.set(3, \"x\"); o.set(11, \"F\"); out.append(\"OBX\").set(3, \"x\"); out",
            "lacks OBX(2)-11",
        ),
        ("hl7(\"2.4x\", \"ORU^R01\")", "no version of HL7 v2"),
        ("hl7(\"2.4\", \"ORU|R01\")", "no message type"),
        ("let out = hl7(\"2.4\", \"ORU^R01\"); out.set(\"MSH-5\", msg.resource); out", "say the data type"),
        ("let out = hl7(\"2.4\", \"ORU^R01\"); out.set(\"MSH-5.1\", [\"a\"]); out", "takes a list"),
        (
            "let out = hl7(\"2.4\", \"ORU^R01\"); out.append(\"OBX\").set(\"PID-3\", 1); out",
            "in another segment",
        ),
        ("msg.resource.to(\"XY\")", "there is no data type `XY`"),
        ("msg.resource.get(\"name.famly\")", "of elements that FHIR has"),
    ] {
        let found = run_fhir(&format!("fn map(msg) {{ {script} }}"), BUNDLE);
        assert!(found.contains(told), "{script}: {found}");
    }
}

/// P9: nothing of the message stands in an error.
#[test]
fn p9_an_error_of_a_fhir_mapping_shows_nothing_of_the_message() {
    for script in [
        "msg.resource.name.nothing(1)",
        "let x = msg.resource.entry[0].resource.name[0].family; x.y",
        "throw msg.resource.id",
        "fail(msg.resource.entry[0].resource.gender)",
    ] {
        let found = run_fhir(
            &format!("fn map(msg) {{ {script} }}"),
            &BUNDLE.replace("female", "SECRET").replace("O|Neill", "SECRET"),
        );
        assert!(!found.contains("SECRET"), "{script}: {found}");
    }
}

/// A message with bytes beyond ASCII says its character set.
#[test]
fn utf_8_is_declared_where_it_is_needed() {
    let script = "fn map(msg) { let out = hl7(\"2.4\", \"ADT^A31^ADT_A05\"); out.append(\"NTE\").set(3, msg.resource.id); out }";
    let plain = run_fhir(script, r#"{"resourceType":"Basic","id":"abc"}"#);
    let other = run_fhir(script, r#"{"resourceType":"Basic","id":"äbc"}"#);
    assert!(!plain.contains("UNICODE") && other.contains("||||||UNICODE UTF-8\nNTE|||äbc"), "{plain}{other}");
    assert!(
        run_fhir(&script.replace("2.4", "2.3"), r#"{"resourceType":"Basic","id":"abc"}"#)
            .contains("|ADT^A31|")
    );
}

#[test]
fn elements_that_nothing_is_made_of_are_told() {
    let script = r#"
        const NOT_MAPPED = ignored([["Observation.extension", "Device.deviceName", "id", "of no use here"]]);
        fn map(msg) {
            let o = msg.resources("Observation")[0];
            let p = msg.resources("Patient")[0];
            o.text("status");
            let out = hl7();
            out.append("OBX");
            out.set("OBX-3", o.code.to("CWE"));
            out.set("OBX-5", o.get("valueQuantity.value"));
            if p.active { out.set("OBX-11", "F"); }
            if p.gender == "" { out.set("OBX-8", "A"); }
            out
        }
    "#;
    let files: Files = [(PathBuf::from("mappings/adt.rhai"), Arc::from(script))].into();
    let mappings = Mappings::compile(&files, &Limits::default()).unwrap();
    // A field has room for two codings. A third is lost, although its CodeableConcept was handed over whole.
    let third = r#"{"code":"1","system":"a"},{"code":"2","system":"b"},{"system":"urn:tie"#;
    let text = BUNDLE.replacen(r#"{"system":"urn:tie"#, third, 1);
    let incoming = Incoming::read(text.into(), encoding_rs::UTF_8).unwrap();
    let product = mappings.run("adt", &incoming, &Context { coverage: true, ..context() }).unwrap();
    expect![[r#"
        Bundle.type
        Bundle.identifier.value
        Bundle.entry.fullUrl
        Patient.gender
        Patient.multipleBirthInteger
        Patient.identifier.system
        Patient.identifier.value
        Patient.identifier.type.coding.code
        Patient.name.use
        Patient.name.family
        Patient.name.given
        Patient.name.prefix
        Observation.status
        Observation.code.coding.system
        Observation.code.coding.code
        Observation.code.coding.display
        Observation.subject.reference
        Observation.device.reference
        Observation.valueQuantity.comparator
        Observation.valueQuantity.unit
        Observation.effectiveDateTime"#]]
    .assert_eq(&unread(&product).join("\n"));
    let ignored = product.coverage.iter().filter(|one| matches!(one.fate, Fate::Ignored(_)));
    let ignored: Vec<String> = ignored.map(|one| one.spot.to_string()).collect();
    let extension = "Observation.extension(https://x.y/z).valueCode";
    assert_eq!(ignored, ["Observation.id", "Device.id", "Device.deviceName.name", extension]);
}

#[test]
fn a_field_of_a_copy_that_is_set_as_a_whole_keeps_no_old_repetition() {
    let check = |body: &str, expected: &str| {
        let script = format!("fn map(msg) {{ let out = msg.copy(); {body} out }}");
        let files: Files = [(PathBuf::from("mappings/adt.rhai"), Arc::from(script))].into();
        let mappings = Mappings::compile(&files, &Limits::default()).unwrap();
        let text = "MSH|^~\\&|PAS\rPID|1||1^^^NHS~2^^^RXX^MR~3^^^RXX^PI||A~B\r";
        let Mapped::Outputs(outputs) = mappings.run("adt", &message(text), &context()).unwrap().mapped else {
            panic!("no output")
        };
        let written = String::from_utf8_lossy(outputs[0].bytes()).into_owned();
        assert_eq!(written, text.replace("1||1^^^NHS~2^^^RXX^MR~3^^^RXX^PI||A~B", expected), "{body}");
    };
    check(r#"out.set("PID-3", msg.all("PID-3").filter(|x| x[5] == "MR"));"#, "1||2^^^RXX^MR||A~B");
    check(r#"out.set("PID-3", []);"#, "1||||A~B");
    check(r#"out.set("PID-3", ());"#, "1||||A~B");
    check(r#"out.set("PID-3", "\"\"");"#, "1||\"\"||A~B");
    check(r#"out.remove("PID-5");"#, "1||1^^^NHS~2^^^RXX^MR~3^^^RXX^PI||");
    check(r#"out.set("PID-3[2]", ());"#, "1||1^^^NHS~~3^^^RXX^PI||A~B");
    check(r#"out.set("PID-3.1", "7");"#, "1||7^^^NHS~2^^^RXX^MR~3^^^RXX^PI||A~B");
    check(r#"out.set("PID-8", []);"#, "1||1^^^NHS~2^^^RXX^MR~3^^^RXX^PI||A~B");
}
