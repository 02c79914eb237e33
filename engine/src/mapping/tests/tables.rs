//! What segment maps can say: items of their own, what is set besides, references, choices; and what goes with them.

use super::*;

#[test]
fn a_row_makes_items_sets_besides_and_refers() {
    check_files(
        &[(
            "mappings/adt.rhai",
            r#"
const KEPT_UNDER = preference([["PI"], ["", "MR"]]);
const ATTENDER = #{ type: [#{ text: "attender" }] };
const PATIENT = segment_map("PID", "Patient", [
    ["PID-3",  "identifier", "CX"],
    ["PID-3",  "identifier", "CX"],
    ["PID-5",  "name",       "XPN", #{ use: "old", text: "as sent" }],
    ["PID-30", "deceasedBoolean", "ID"],
    ["PID-7",  "deceasedDateTime", "DTM"],
]);
const STAY = segment_map("PV1", "Encounter", [
    ["PV1-7",  "participant[].individual", "XCN", ATTENDER],
]);
const HERE = segment_map("PV1", "Encounter", [
    ["PV1-3",  "location[].location", "PL"],
]);
const SENDER = segment_map("MSH", "Resource", [
    ["MSH-3",  "meta.source", "HD"],
]);
fn map(msg) {
    let out = bundle();
    let pid = msg.segment("PID");
    let p = out.put(PATIENT, pid, pid.preferred("PID-3", KEPT_UNDER));
    let e = out.put("Encounter", "urn:stay", nth("stay") + nth("stay"));
    e.fill(STAY, msg.segment("PV1"));
    e.fill(HERE, msg.segment("PV1"), #{ status: "active" });
    e.fill(SENDER, msg.segment("MSH"));
    e.complete(element(#{ meta: #{ source: "no", versionId: "1" }, status: "finished", class: #{ code: "IMP" }, subject: p }));
    [p, e]
}"#,
        )],
        expect![[r#"
            {
              "resourceType": "Patient",
              "id": "a5ee242a-422b-5961-b356-2daa67cf9b47",
              "identifier": [
                {
                  "system": "https://fhir.nhs.uk/Id/nhs-number",
                  "value": "9991001018"
                },
                {
                  "system": "urn:tie:authority:RXX:RXX",
                  "value": "1000001",
                  "assigner": {
                    "display": "RXX"
                  }
                }
              ],
              "name": [
                {
                  "use": "usual",
                  "family": "OAKLEY",
                  "given": [
                    "FREDA",
                    "JANE"
                  ],
                  "text": "as sent"
                },
                {
                  "use": "usual",
                  "family": "SCHMIDT",
                  "given": [
                    "FREDA"
                  ],
                  "text": "as sent"
                }
              ],
              "deceasedDateTime": "1965-12-13"
            }
            {
              "resourceType": "Encounter",
              "id": "0018f8b1-4da2-5f03-977e-b0554eca4c16",
              "participant": [
                {
                  "individual": {
                    "reference": "Practitioner/fc559dc0-02e0-5f02-b18a-7a6cbc0706f7",
                    "display": "DARWIN"
                  },
                  "type": [
                    {
                      "text": "attender"
                    }
                  ]
                }
              ],
              "location": [
                {
                  "location": {
                    "reference": "Location/b2758b85-b43c-52c0-828a-6a6df52d419a",
                    "display": "BED04"
                  },
                  "status": "active"
                }
              ],
              "meta": {
                "source": "urn:tie:authority:RXX:PAS",
                "versionId": "1"
              },
              "class": {
                "code": "IMP"
              },
              "status": "finished",
              "subject": {
                "reference": "Patient/a5ee242a-422b-5961-b356-2daa67cf9b47"
              }
            }
        "#]],
    );
}

#[test]
fn segments_are_cut_before_each_of_a_name() {
    let script = r#"
fn names(group) { let all = ""; for segment in group.segments() { all += segment.name + " "; } all }
fn map(msg) {
    let said = "";
    for order in msg.cut("OBR", "ORC") {
        said += "(" + names(order.before("OBX"));
        for result in order.cut("OBX") { said += "[" + names(result) + "]"; }
        said += ")";
    }
    #{ resourceType: "Basic", id: "x", code: #{ text: said } }
}"#;
    let message =
        "MSH|^~\\&|A|B\rOBX|0\rORC|1\rNTE|1\rOBR|1\rNTE|2\rOBX|1\rSPM|1\rNTE|3\rOBX|2\rORC|2\rOBR|2\rOBX|3\r";
    let told = run_with(&[("mappings/adt.rhai", script)], message, &Limits::default());
    assert!(told.contains("(ORC OBR NTE [OBX SPM NTE ][OBX ])(ORC OBR [OBX ])"), "{told}");
}

#[test]
fn two_different_nhs_numbers_are_refused() {
    let script = r#"
const KEPT_UNDER = preference([["MR"]]);
fn map(msg) { let found = msg["PID"].preferred("PID-3", KEPT_UNDER); bundle() }"#;
    let message = "MSH|^~\\&|A|B\rPID|||9991001018^^^NHS~9991001026^^^NHS\r";
    let told = run_with(&[("mappings/adt.rhai", script)], message, &Limits::default());
    assert_eq!(told, "Reject(\"PID-3 has two different NHS numbers\")\n");
}

#[test]
fn p4_a_number_without_authority_is_the_sender_s_own_where_a_mapping_says_so() {
    let kept = |header: &str, pid: &str| {
        let script = r#"
const KEPT = preference([["MR"], ["", "PT"], ["*"]]);
fn map(msg) { let found = msg["PID"].preferred("PID-3", KEPT); if found == () { reject("none") } out(found) }
fn out(found) { let out = bundle(); out.put("Patient", found["system"], found["value"]).set("identifier", [found]); out }"#;
        let message = format!("MSH|^~\\&|{header}\rPID|||{pid}\r");
        let types = ("mappings/tables/identifier-type.csv", "from,code\nAN,AN\nMR,MR\nPT,PT\n");
        let told = run_with(&[("mappings/adt.rhai", script), types], &message, &Limits::default());
        let line = |name: &str| {
            told.lines().find_map(|line| {
                Some(line.trim().strip_prefix(name)?.trim_matches([' ', '"', ',', ':']).to_owned())
            })
        };
        match (line("\"system\""), line("\"value\"")) {
            (Some(system), Some(value)) => format!("{system} {value}"),
            _ => told,
        }
    };
    assert_eq!(kept("PAS|RXX", "7"), "urn:tie:number:RXX:PAS 7");
    assert_eq!(kept("LAB|RXX", "7^^^^PT"), "urn:tie:number:RXX:LAB 7");
    assert_eq!(kept("|RXX", "7~8^^^^MR"), "urn:tie:number:RXX 8");
    assert_eq!(kept("PAS|RXX", "UNKNOWN^^^RXX^MR~000000~8^^^RYY^PT"), "urn:tie:authority:RXX:RYY 8");
    assert_eq!(kept("PAS|RXX", "8^^^RYY^HOUSE"), "urn:tie:authority:RXX:RYY 8");
    // Nobody has sent it; a type that says it is no patient's; a local word that does not stand first.
    for refused in [("|", "7"), ("PAS|RXX", "7^^^RXX^AN"), ("PAS|RXX", "7^^^RXX^AN~8^^^RXX^HOUSE")] {
        assert!(kept(refused.0, refused.1).starts_with("Reject(\"none\")\n"), "{refused:?}");
    }
}

#[test]
fn faults_of_what_is_set_besides_have_their_place() {
    check(
        r#"const X = segment_map("PID", "Patient", [
    ["PID-13", "telecom", "XTN", #{ used: "home" }],
    ["PID-13", "telecom", "XTN", #{ use: "hom" }],
    ["PID-7",  "birthDate", "date", #{ use: "home" }],
    ["PID-5",  "contact[]", "XPN"],
    ["PID-3",  "managingOrganization", "XCN"],
    ["PID-5",  "value[x]", "varies"],
]);
const Y = preference(["MR"]);
fn map(msg) { bundle() }"#,
        expect![[r#"
            mappings/adt.rhai:9:34: ContactPoint has no element `used`; did you mean `use`?
            mappings/adt.rhai:10:34: `use` takes one of home, mobile, old, temp, work
            mappings/adt.rhai:11:37: `birthDate` has no elements of its own to set besides
            mappings/adt.rhai:12:16: `contact` stands for the list already: leave out the `[]`
            mappings/adt.rhai:13:40: `XCN` refers to Practitioner, but `managingOrganization` takes Organization
            mappings/adt.rhai:14:16: a choice is filled by `["OBX-5", "value[x]", "varies"]` alone; elsewhere name one of its shapes
            mappings/adt.rhai:16:11: a preference is a list of lists of types: `[["MR", "MRN"], ["PI"]]`
        "#]],
    );
}
