//! What a later message that names one of several does to what an earlier one told of them: it finds its own, or stands
//! beside, and never takes the place of another.

use std::collections::BTreeMap;

use serde_json::Value;

use super::*;

const PID: &str = "PID|1||M1^^^RXX^MR||FERN^HANNAH||19580312|F";

/// The resources of a type by their ids, in the order of the message.
fn made(mapping: &str, trigger: &str, kind: &str, segments: &[&str]) -> Vec<(String, Value)> {
    let pid = if segments.iter().any(|segment| segment.starts_with("PID|")) { "" } else { PID };
    let text = format!(
        "MSH|^~\\&|LIMS|RXX|TIE|RXX|20260312100000||{trigger}|C1|P|2.5.1\r{pid}\r{}\r",
        segments.join("\r")
    )
    .replace("\r\r", "\r");
    let (text, told) =
        mapped_by(&shipped(), mapping, &Incoming::read(text.into(), encoding_rs::UTF_8).unwrap());
    assert_eq!(told, "json", "{text}");
    let bundle: Value = serde_json::from_str(&text).unwrap();
    let resources = bundle["entry"].as_array().unwrap().iter().map(|entry| entry["resource"].clone());
    let found = resources.filter(|resource| resource["resourceType"] == kind);
    found.map(|resource| (resource["id"].as_str().unwrap().to_owned(), resource)).collect()
}

fn ids(mapping: &str, trigger: &str, kind: &str, segments: &[&str]) -> Vec<String> {
    made(mapping, trigger, kind, segments).into_iter().map(|(id, _)| id).collect()
}

fn results(kind: &str, segments: &[&str]) -> Vec<String> {
    ids("oru", "ORU^R01", kind, segments)
}

#[test]
fn a_result_told_again_alone_takes_the_place_of_no_other() {
    let obr = "OBR|1|P1^EPR|F1^LAB|GTT^Tolerance|||20260311080000";
    for (first, second) in [
        (
            "OBX|1|NM|GLU^Glucose||5.2|mmol/L|||||F|||20260311080000",
            "OBX|2|NM|GLU^Glucose||9.9|mmol/L|||||F|||20260311090000",
        ),
        ("OBX|1|NM|3968-5^P^LN^T^Trough^L||8|mg/L|||||F", "OBX|2|NM|3968-5^P^LN^K^Peak^L||17|mg/L|||||F"),
        ("OBX|1|TX|CXR&GDT||Opacity||||||F", "OBX|2|TX|CXR&IMP||Pneumonia||||||F"),
    ] {
        let both = results("Observation", &[obr, first, second]);
        assert_eq!(both.len(), 2);
        assert_ne!(results("Observation", &[obr, second])[0], both[0], "{second}");
        assert_eq!(results("Observation", &[obr, first, second]), both);
    }
    let suffixes = ["OBX|1|TX|CXR&GDT||a||||||F", "OBX|2|TX|CXR&IMP||b||||||F"];
    let both = results("Observation", &[obr, suffixes[0], suffixes[1]]);
    assert_eq!(results("Observation", &[obr, suffixes[1]]), both[1..]);
}

#[test]
fn what_is_taken_back_is_found_whoever_stands_beside_it() {
    let obr = "OBR|1|P1^EPR|F1^LAB|MC^Culture|||20260311080000";
    for time in ["", "|||20260311080000"] {
        let of = |number: u8, code: &str, status: &str| {
            format!("OBX|{number}|CE|ORG^Organism||{code}^Bug^L||||||{status}{time}")
        };
        let told = [of(1, "EC", "F"), of(2, "KP", "F"), of(2, "KP", "W"), of(1, "EC", "D")];
        let [first, second, second_back, first_back] = &told;
        let both = results("Observation", &[obr, first, second]);
        assert_eq!(results("Observation", &[obr, first, second_back])[0], both[0]);
        assert_eq!(results("Observation", &[obr, first_back, second_back]), both);
    }
}

#[test]
fn a_prescription_is_one_however_many_doses_are_told_with_it() {
    let made = |trigger: &str, segments: &[&str]| ids("pharmacy", trigger, "MedicationRequest", segments);
    let (order, drug) = ("ORC|NW|RX1001^EPR|PH1^PHARM", "RXE|^BID|AMOX500^Amoxicillin 500 mg^L|1||CAP");
    let dose = |time: &str| format!("RXA|0|1|{time}||AMOX500^Amoxicillin 500 mg^L|1|CAP");
    let again = order.replace("NW", "RE");
    let written = made("RDE^O11", &[order, drug]);
    let (morning, evening) = (dose("202603110800"), dose("202603112000"));
    assert_eq!(made("RAS^O17", &[&again, drug, &morning, &again, &evening]), written);
    assert_eq!(made("RAS^O17", &[&again, drug, &morning, &again, drug, &evening])[0], written[0]);
    // What ends it finds it, although another drug takes its place under the same number.
    let other = "RXE|^BID|DOXY100^Doxycycline 100 mg^L|1||CAP";
    for second in [order, &again, &order.replace("NW", "XO")] {
        let told = [&order.replace("NW", "DC"), drug, second, other];
        let changed = self::made("pharmacy", "RDE^O11", "MedicationRequest", &told);
        assert!(changed.iter().any(|(_, one)| one["status"] == "active"));
        assert_eq!(status_of(&written[0], changed), "stopped", "beside {second}");
    }
}

#[test]
fn a_corrected_value_stands_in_the_place_of_the_one_that_it_corrects() {
    let obr = "OBR|1|P1^EPR|F1^LAB|UE^Electrolytes|||20260311080000";
    let sent = results("Observation", &[obr, "OBX|1|NM|K^Potassium||6.8|mmol/L|||||F"]);
    let both = made(
        "oru",
        "ORU^R01",
        "Observation",
        &[obr, "OBX|1|NM|K^Potassium||6.8|mmol/L|||||W", "OBX|2|NM|K^Potassium||4.3|mmol/L|||||C"],
    );
    let by_id: BTreeMap<_, _> = both.into_iter().collect();
    assert_eq!(by_id.len(), 2);
    assert_eq!(by_id[&sent[0]]["status"], "corrected");
}

#[test]
fn a_report_told_again_alone_takes_the_place_of_no_other() {
    let of = |number: u8, parent: &str, at: &str| {
        format!("OBR|{number}|P1^EPR|F1^LAB|SENS^Sensitivities|||{at}{}F{parent}", "|".repeat(18))
    };
    let [first, second] =
        [1, 2].map(|number| of(number, &format!("|ORG^{number}|||P1^F1"), "20260311080000"));
    let both =
        results("DiagnosticReport", &[&first, "OBX|1|ST|A^A||R||||||F", &second, "OBX|1|ST|A^A||S||||||F"]);
    assert_eq!(results("DiagnosticReport", &[&second, "OBX|1|ST|A^A||S||||||F"]), both[1..]);

    let [first, second] = ["20260311080000", "20260311082000"].map(|at| of(1, "", at));
    let both =
        results("DiagnosticReport", &[&first, "OBX|1|ST|A^A||R||||||F", &second, "OBX|1|ST|A^A||S||||||F"]);
    let alone = results("DiagnosticReport", &[&second, "OBX|1|ST|A^A||S||||||F"]);
    assert!(both[0] != both[1] && alone[0] != both[0]);
}

#[test]
fn an_analyser_that_begins_anew_each_day_moves_no_result_to_another_patient() {
    let on = |pid: &str, placer: &str, day: &str| {
        let obr = format!("OBR|1|{placer}|27|CHEM^Chemistry|||{day}093000");
        results("DiagnosticReport", &[pid, &obr, "OBX|1|NM|ALT^ALT||31|U/L|||||F"])
    };
    let one = on("PID|1||M1^^^RXX^MR||FERN^HANNAH", "12340001", "20260311");
    let other = on("PID|1||M2^^^RXX^MR||MOSS^PETER", "12340099", "20260312");
    assert_ne!(one, other);
    assert_eq!(one, on("PID|1||M1^^^RXX^MR||FERN^HANNAH", "12340001", "20260311"));
}

#[test]
fn each_measurement_outside_of_an_order_is_one_of_its_own() {
    let on = |day: &str| {
        let obx = format!("OBX|1|NM|WT^Weight||70|kg|||||F|||{day}090000");
        ids("adt", "ADT^A08", "Observation", &["EVN|A08", PID, "PV1|1|I|W1||||||||||||||||V1^^^RXX^VN", &obx])
    };
    assert_eq!(on("20260311"), on("20260311"));
    assert_ne!(on("20260311"), on("20260312"));
}

#[test]
fn what_was_given_and_dispensed_is_told_apart_by_drug_and_time() {
    let given = |segments: &[&str]| ids("pharmacy", "RAS^O17", "MedicationAdministration", segments);
    let [orc, a, b] =
        ["ORC|RE|X1^EPR", "RXA|0|1|20260311100000||A^Drug A|1|mg", "RXA|0|1|20260311100000||B^Drug B|2|mg"];
    assert_eq!(given(&[orc, b]), given(&[orc, a, b])[1..]);

    let filled = |at: &str| {
        let rxd = format!("RXD|1|A^Drug A|{at}|21|CAP||RXN1");
        ids("pharmacy", "RDS^O13", "MedicationDispense", &[orc, &rxd])
    };
    assert_ne!(filled("20260311"), filled("20260411"));
}

#[test]
fn a_drug_that_is_counted_in_its_order_is_found_again() {
    let asked = |segments: &[&str]| ids("pharmacy", "RDE^O11", "MedicationRequest", segments);
    let drugs = ["ORC|NW|123||123_01", "RXE||W^W|2||TAB", "ORC|NW|123||123_02", "RXE||O^O|1||CAP"];
    assert_eq!(asked(&["ORC|DC|123||123_02", drugs[3]]), asked(&drugs)[1..]);

    let drugs = ["ORC|NW|X1^EPR", "RXE||W^W|2||TAB", "ORC|NW|X1^EPR", "RXE||O^O|1||CAP"];
    let both = asked(&drugs);
    assert!(!both.contains(&asked(&["ORC|DC|X1^EPR", drugs[3]])[0]));
}

#[test]
fn a_vaccine_told_again_alone_takes_the_place_of_no_other() {
    let given = |segments: &[&str]| ids("vaccination", "VXU^V04", "Immunization", segments);
    let [orc, a, b] = ["ORC|RE||F1^GP", "RXA|0|1|20260311||10^IPV^CVX|1", "RXA|0|1|20260311||20^DTaP^CVX|1"];
    let both = given(&[orc, a, b]);
    assert!(both[0] != both[1] && !both.contains(&given(&[orc, b])[0]));
}

/// Of what is made, how what was told first stands now.
fn status_of(first: &str, made: Vec<(String, Value)>) -> Value {
    let by_id: BTreeMap<_, _> = made.into_iter().collect();
    by_id.get(first).map_or(Value::Null, |one| one["status"].clone())
}

#[test]
fn what_was_told_alone_is_found_when_it_is_taken_back_beside_another() {
    let obr = "OBR|1|P1^EPR|F1^LAB|UE^Electrolytes|||20260311080000";
    let result = |number: u8, words: &str, value: &str, status: &str, time: &str| {
        format!("OBX|{number}|NM|K^{words}||{value}|mmol/L|||||{status}|||{time}")
    };
    let wrong = |status: &str| result(1, "Potassium", "6.9", status, "20260311080000");
    let sent = results("Observation", &[obr, &wrong("F")]);
    for right in [
        result(2, "Potassium", "4.1", "C", "20260311110000"),
        result(2, "Potassium, venous", "4.1", "C", "20260311080000"),
    ] {
        for back in ["W", "D", "d"] {
            let all = made("oru", "ORU^R01", "Observation", &[obr, &wrong(back), &right]);
            assert!(all.iter().any(|(id, one)| *id != sent[0] && one["status"] == "corrected"));
            assert_eq!(status_of(&sent[0], all), "entered-in-error", "{back} beside {right}");
        }
    }
    // It is told once by its report.
    let all =
        made("oru", "ORU^R01", "DiagnosticReport", &[obr, &wrong("W"), &result(2, "K", "4", "C", "2026")]);
    assert_eq!(all[0].1["result"].as_array().unwrap().len(), 2);
}

/// What stands under a number and code alone may be another's, whom nobody has taken back.
#[test]
fn what_is_taken_back_takes_no_other_along() {
    let obr = "OBR|1|P1^EPR|F1^LAB|GLU^Glucose|||20260311080000";
    let at = |number: u8, value: &str, status: &str, hour: &str| {
        format!("OBX|{number}|NM|GLU^Glucose||{value}|mmol/L|||||{status}|||20260311{hour}00")
    };
    let alone = results("Observation", &[obr, &at(1, "5.0", "F", "08")]);
    let (wrong, right) = (at(1, "99", "W", "09"), at(2, "7.0", "F", "10"));
    for told in [vec![obr, &wrong, &right], vec![obr, &wrong, &wrong, &right]] {
        assert_eq!(status_of(&alone[0], made("oru", "ORU^R01", "Observation", &told)), Value::Null);
    }
    // Of two alike the second is taken back where it stood.
    let of = |status: &str| format!("OBX|2|NM|GLU^Glucose||6.9|mmol/L|||||{status}");
    let first = "OBX|1|NM|GLU^Glucose||4.1|mmol/L|||||F";
    let both = results("Observation", &[obr, first, &of("F")]);
    let told = made("oru", "ORU^R01", "Observation", &[obr, first, &of("W")]);
    assert_eq!(status_of(&both[1], told), "entered-in-error");
    // A correction has its place.
    let second = |value: &str, status: &str| format!("OBX|2|NM|GLU^Glucose||{value}|mmol/L|||||{status}");
    let told = made("oru", "ORU^R01", "Observation", &[obr, first, &second("6.9", "W"), &second("5.0", "C")]);
    assert_eq!((told.len(), status_of(&both[1], told)), (3, "corrected".into()));
    // What is right has the place of the one that it comes for, in whichever order they stand, and is found there later.
    for right in ["F", "A", "C"] {
        let told = made(
            "oru",
            "ORU^R01",
            "Observation",
            &[obr, &of("W"), &first.replace("||F", &format!("||{right}"))],
        );
        assert_ne!(status_of(&both[0], told), "entered-in-error", "{right}");
    }

    let report = |number: u8, status: &str, at: &str| {
        format!("OBR|{number}|P1^EPR|F1^LAB|MC^Culture|||{at}{}{status}", "|".repeat(18))
    };
    let obx = "OBX|1|ST|ORG^Organism||E. coli||||||F";
    let alone = results("DiagnosticReport", &[&report(1, "P", "20260311080000"), obx]);
    let told = [&*report(1, "P", "20260311080000"), obx, &*report(2, "X", "20260311110000")];
    assert_eq!(status_of(&alone[0], made("oru", "ORU^R01", "DiagnosticReport", &told)), Value::Null);

    let given =
        |code: &str, action: &str| format!("RXA|0|1|20260311||{code}^X^CVX|1{}{action}", "|".repeat(15));
    let immunizations = |segments: &[&str]| made("vaccination", "VXU^V04", "Immunization", segments);
    let orc = "ORC|RE||F1^GP";
    let alone = immunizations(&[orc, &given("10", "A")])[0].0.clone();
    assert_eq!(
        status_of(&alone, immunizations(&[orc, &given("20", "D"), orc, &given("03", "A")])),
        Value::Null
    );
}

#[test]
fn no_number_of_the_time_is_taken_for_what_a_sender_says() {
    let obr = "OBR|1|P1^EPR|F1^LAB|MC^Culture|||20260311080000";
    let organism =
        |number: u8, sub: &str, name: &str| format!("OBX|{number}|ST|ORG^Organism|{sub}|{name}||||||F");
    let [one, two, third] =
        [organism(1, "", "E. coli"), organism(2, "", "S. aureus"), organism(3, "2", "Candida")];
    let all = results("Observation", &[obr, &one, &two, &third]);
    assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
    assert_eq!(results("Observation", &[obr, &third]), all[2..]);

    let escaped = "OBX|3|ST|ORG\\R\\2^Organism||Candida||||||F";
    let all = results("Observation", &[obr, &one, &two, escaped]);
    assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
    assert_eq!(results("Observation", &[obr, escaped]), all[2..]);

    let order = |number: &str, drug: &str| [format!("ORC|NW|{number}"), format!("RXE||{drug}|1||TAB")];
    let all = [order("RX1", "A^Amoxicillin"), order("RX1", "A^Amoxicillin"), order("RX1/2", "P^Paracetamol")];
    let all = all.concat();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    assert_eq!(ids("pharmacy", "RDE^O11", "MedicationRequest", &all).len(), 3);
}

#[test]
fn the_numbers_of_two_laboratories_have_nothing_to_do_with_each_other() {
    let of = |laboratory: &str, at: &str| {
        [
            format!("OBR|1|P1^EPR|100123^{laboratory}|UE^Urea|||{at}"),
            "OBX|1|NM|K^Potassium||4.0|mmol/L|||||F".to_owned(),
        ]
    };
    let [a, b] = [of("LABA", "20260311090000"), of("LABB", "20260311093000")];
    for kind in ["DiagnosticReport", "Observation"] {
        let both = results(kind, &[&a[0], &a[1], &b[0], &b[1]]);
        assert_eq!(both, [results(kind, &[&a[0], &a[1]]), results(kind, &[&b[0], &b[1]])].concat());
    }
}

#[test]
fn what_ends_several_drugs_of_one_number_reaches_each_of_them() {
    let asked = |trigger: &str, segments: &[&str]| made("pharmacy", trigger, "MedicationRequest", segments);
    let [a, b] = ["RXE||A^Amoxicillin|1||TAB", "RXE||P^Paracetamol|1||TAB"];
    let orc = |control: &str, status: &str| format!("ORC|{control}|RX1^EPR|PH1||{status}");
    let new = orc("NW", "");
    let sent = asked("RDE^O11", &[&new, a, &new, b]);
    for (control, status, becomes) in
        [("CA", "", "cancelled"), ("DC", "", "stopped"), ("HD", "", "on-hold"), ("SC", "CM", "completed")]
    {
        let orc = orc(control, status);
        let ended = asked("RDE^O11", &[&orc, a, &orc, b]);
        for (id, _) in &sent {
            assert_eq!(status_of(id, ended.clone()), becomes, "{control}");
        }
    }
    let third = "RXE||I^Ibuprofen|1||TAB";
    let ended = asked("RDE^O11", &[&orc("CA", ""), a, &orc("CA", ""), b, &new, third]);
    assert!(sent.iter().all(|(id, _)| status_of(id, ended.clone()) == "cancelled"));
    // Told alone before, and now in one order with another.
    let alone = asked("RDE^O11", &[&new, a]).remove(0).0;
    let stop = orc("DC", "");
    for ended in [vec![&*stop, a, b, &stop, third], vec![&stop, a, b, &new, third]] {
        assert_eq!(status_of(&alone, asked("RDE^O11", &ended)), "stopped");
    }
    // What goes on alone has the number: it does not end with the others.
    let goes_on = asked("RDE^O11", &[&stop, a, b, &new, a]);
    assert_eq!(status_of(&alone, goes_on), "active");
    assert_eq!(status_of(&alone, asked("RDE^O11", &[&stop, a, b])), Value::Null);
    // Where orders are counted nothing stands under the number alone.
    let counted = |control: &str, place: u8| format!("ORC|{control}|RX1^EPR|PH1|RX1_{place}");
    assert_eq!(asked("RDE^O11", &[&counted("DC", 1), a, &counted("RE", 2), b]).len(), 2);
    let one_ends = asked("RDE^O11", &[&orc("SC", "CM"), a, &orc("SC", "IP"), b]);
    assert_eq!(status_of(&sent[0].0, one_ends.clone()), "completed");
    assert_eq!(status_of(&sent[1].0, one_ends), "active");
}
