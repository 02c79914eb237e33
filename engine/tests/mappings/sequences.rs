//! Messages one after the other: what is the same thing has one id, what is not has two; and what a mapping cannot take along
//! is remarked.

use tie_engine::fhir::types::Finding;

use super::*;

/// The ids of the resources of a type, and what is remarked.
fn ids_and_remarks(file: &str, resource_type: &str) -> (Vec<String>, Vec<String>) {
    of_text(fs::read_to_string(root().join("testdata").join(file)).unwrap(), resource_type)
}

fn of_text(text: String, resource_type: &str) -> (Vec<String>, Vec<String>) {
    let message = Incoming::read(text.into(), encoding_rs::UTF_8).unwrap();
    let name = &routes().taking(&message).next().unwrap().map;
    let product = shipped().run(name, &message, &context()).unwrap();
    let Mapped::Outputs(outputs) = product.mapped else { panic!("{:?}", product.mapped) };
    let found: serde_json::Value = serde_json::from_slice(outputs[0].bytes()).unwrap();
    let resources = found["entry"].as_array().unwrap().iter().map(|entry| &entry["resource"]);
    let ids = resources.filter(|one| one["resourceType"] == resource_type);
    let remarks = product.findings.iter().map(words).collect();
    (ids.map(|one| one["id"].as_str().unwrap().to_owned()).collect(), remarks)
}

fn words(finding: &Finding) -> String {
    match finding {
        Finding::Unmapped { table, .. } => format!("no row in {table}"),
        Finding::Remark(text) => text.to_string(),
        Finding::Doubtful(text) => (*text).to_owned(),
    }
}

/// A message of `testdata` with other words in it.
fn with(file: &str, changes: &[(&str, &str)]) -> String {
    let mut text = fs::read_to_string(root().join("testdata").join(file)).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{from} is not in {file}");
        text = text.replace(from, to);
    }
    text
}

#[test]
fn h2_a_patient_is_one_in_whichever_order_his_numbers_come() {
    const TURNED: (&str, &str) =
        ("22245^^^BAYVIEW^MR~11178^^^HILLSIDE^MR", "11178^^^HILLSIDE^MR~22245^^^BAYVIEW^MR");
    let file = "adt/a08-numbers-of-two-hospitals.hl7";
    let turned = with(file, &[TURNED]);
    let known = ids_and_remarks(file, "Patient").0;
    assert_eq!(known.len(), 1);
    assert_eq!(of_text(turned, "Patient").0, known);
    // Nor does it matter who of a group of hospitals sends their list, where all name the authorities alike.
    let named = (TURNED.0, "22245^^^BAYVIEW&1.2.840.2&ISO^MR~11178^^^HILLSIDE&1.2.840.1&ISO^MR");
    let of_group = of_text(with(file, &[named]), "Patient").0;
    for facility in ["|BAYVIEW|ROUTE", "|REGION|ROUTE"] {
        let sent = with(file, &[named, ("|HILLSIDE|ROUTE", facility)]);
        assert_eq!(of_text(sent, "Patient").0, of_group);
    }
}

#[test]
fn h2_a_word_in_the_place_of_a_number_joins_nobody() {
    for (file, resource_type) in [
        ("adt/a01-words-for-numbers.hl7", "Encounter"),
        ("mdm/t02-file-name-without-number.hl7", "DocumentReference"),
    ] {
        let (one, remarks) = ids_and_remarks(file, resource_type);
        let other = with(file, &[("40017^", "40018^"), ("ASH^THOMAS", "ELM^PETER")]);
        assert_ne!(one, of_text(other, resource_type).0, "{file}");
        assert!(remarks.iter().any(|remark| remark.contains("is kept under this message")), "{remarks:?}");
    }
}

#[test]
fn h2_a_word_that_nobody_has_assigned_is_no_patient() {
    let ended = |number: &str| {
        let text = format!(
            "MSH|^~\\&|PAS|WARD|C|D|2026||ADT^A01|X1|P|2.4\rPID|1||{number}||DOE^JOHN\rPV1|1|I{}V1\r",
            "|".repeat(17)
        );
        mapped_by(&shipped(), "adt", &Incoming::read(text.into(), encoding_rs::UTF_8).unwrap()).1
    };
    for (number, becomes) in [
        ("TRAUMA", "expect"),
        ("TRAUMA^^^WARD^MR", "json"),
        ("TRAUMA^^^^MR~4711^^^^FAM", "expect"),
        ("TRAUMA1", "json"),
        ("TRAUMA~4711", "json"),
    ] {
        assert_eq!(ended(number), becomes, "{number}");
    }
}

#[test]
fn a_diagnosis_of_a_stay_is_one_whichever_feed_tells_it() {
    let one = ids_and_remarks("adt/a31-names-a-stay.hl7", "Condition").0;
    assert_eq!(one.len(), 1);
    assert_eq!(one, ids_and_remarks("dft/p03-diagnosis-and-credit.hl7", "Condition").0);
}

#[test]
fn what_a_mapping_cannot_take_along_is_remarked() {
    for (file, remark) in [
        ("adt/a40-by-another-kind-of-number.hl7", "MRG-1 has a number of another authority or kind"),
        ("siu/s13-moved-services-stay.hl7", "the services (AIS) are at another time"),
        ("mdm/t10-replacement.hl7", "the document that is replaced (TXA-13)"),
        ("dft/p03-diagnosis-and-credit.hl7", "FT1-6 says that it is a credit"),
    ] {
        let remarks = ids_and_remarks(file, "Patient").1;
        assert!(remarks.iter().any(|one| one.starts_with(remark)), "{file}: {remarks:?}");
    }
    for file in ["adt/a40-merge.hl7", "adt/a40-abroad-by-national-number.hl7", "siu/s12-two-services.hl7"] {
        let remarks = ids_and_remarks(file, "Patient").1;
        assert!(
            !remarks.iter().any(|one| one.starts_with("MRG-1") || one.contains("(AIS)")),
            "{file}: {remarks:?}"
        );
    }
}

#[test]
fn a_short_number_without_the_day_that_makes_it_one_is_remarked() {
    let file = "oru/analyser-with-short-numbers.hl7";
    let remarked =
        |(_, remarks): (_, Vec<String>)| remarks.iter().any(|one| one.starts_with("OBR-3 is a short number"));
    assert!(!remarked(ids_and_remarks(file, "DiagnosticReport")));
    assert!(remarked(of_text(with(file, &[("^AN|||20260311093000", "^AN|||")]), "DiagnosticReport")));
}

#[test]
fn a_merge_by_a_number_that_the_patient_is_not_kept_under_is_remarked() {
    let pid = "33345^^^BAYVIEW^MR~22178^^^HILLSIDE^MR";
    let of = |trigger: &str, more: &str| {
        format!(
            "MSH|^~\\&|PAS|HILLSIDE|TIE|RXX|20260312100000||{trigger}|C1|P|2.4|||||GBR\rEVN||2026\rPID|1||{pid}||FERN^HANNAH\r{more}"
        )
    };
    let (ids, remarks) = of_text(of("ADT^A40^ADT_A39", "MRG|4711^^^BAYVIEW^MR\r"), "Patient");
    assert!(
        remarks.iter().any(|one| one.starts_with("MRG-1 has a number of another authority or kind")),
        "{remarks:?}"
    );
    // Authorities that no table knows are known by their sender's name: his own comes first, whatever the others are called.
    let alone = of("ADT^A31", "").replace("33345^^^BAYVIEW^MR~", "");
    assert_eq!(of_text(alone, "Patient").0[..1], ids[..1]);
}

#[test]
fn a_stay_of_today_has_begun_whatever_the_clocks_say() {
    let of = |sent: &str, start: &str| {
        format!(
            "MSH|^~\\&|PAS|RXX|TIE|RXX|{sent}||ADT^A08|C1|P|2.4|||||GBR\rEVN||2026\rPID|1||1^^^RXX^MR\rPV1|1|I|W1||||||||||||||||V1^^^RXX^VN{}{start}\r",
            "|".repeat(25)
        )
    };
    let status = |sent: &str, start: &str| {
        let message = Incoming::read(of(sent, start).into(), encoding_rs::UTF_8).unwrap();
        let (text, told) = mapped_by(&shipped(), "adt", &message);
        assert_eq!(told, "json", "{text}");
        let bundle: serde_json::Value = serde_json::from_str(&text).unwrap();
        let mut all = bundle["entry"].as_array().unwrap().iter().map(|entry| entry["resource"].clone());
        all.find(|one| one["resourceType"] == "Encounter").unwrap()["status"].as_str().unwrap().to_owned()
    };
    assert_eq!(status("202603111030", "20260311103025"), "in-progress");
    assert_eq!(status("20260711093000Z", "20260711103000"), "in-progress");
    assert_eq!(status("20260711093000+0000", "20260711103000+0100"), "in-progress");
    assert_eq!(status("202603111030", "20260312080000"), "planned");
}
