//! What scripts make: resources, values, messages, and reasons to make nothing.

use super::*;

#[test]
fn a_resource_without_identity_is_an_error_and_not_an_empty_patient() {
    let script = format!(
        "{PATIENT}fn map(msg) {{\n    let out = bundle();\n    out.put(PATIENT, msg[\"PID\"]);\n    out\n}}"
    );
    let run = |text: &str| run_with(&[("mappings/adt.rhai", &script)], text, &Limits::default());
    expect![[r#"
        error: mappings/adt.rhai:10:9: PID-3 has no identifier, and a Patient needs one
    "#]]
    .assert_eq(&run("MSH|^~\\&|A\rPID|1||\r"));
    expect![[r#"
        error: mappings/adt.rhai:10:9: the message has no PID segment
    "#]]
    .assert_eq(&run("MSH|^~\\&|A\rPV1|1\r"));
    check_body(
        "out.put(\"Location\", \"x\", msg[\"PV1-40\"]); out",
        expect![[r#"
        error: mappings/adt.rhai:9:5: the identity of a Location needs a system and a value; one is empty
    "#]],
    );
}

#[test]
fn the_same_resource_is_put_once_and_references_find_it() {
    let given = body(
        r#"let one = out.put("Practitioner", "https://staff", msg["PV1-7.1"]);
one.set("gender", "male");
let again = out.put("Practitioner", "https://staff", "C9999991");
again.set("active", true);
let e = out.put("Encounter", "https://visits", "V1");
e.set("status", "in-progress");
e.set("class", #{ code: "IMP" });
e.set("subject", p.reference("FREDA"));
e.add("participant", #{ individual: reference("Practitioner", "https://staff", "C9999991") });
e.add("participant", #{ individual: reference("Practitioner", "https://staff", "C2") });
[one.id == again.id, one.id == id("Practitioner", "https://staff", "C9999991"), out.len == 3, e.type == "Encounter"].all(|x| x)
    || fail("not the same");
e"#,
    );
    assert!(given.contains(r#""reference": "Practitioner?identifier=https://staff|C2""#), "{given}");
    assert!(given.contains(r#""resourceType": "Encounter""#), "{given}");
}

/// A script with another map of PID, and this body of `map`.
fn with_more(body: &str) -> String {
    let more =
        r#"const MORE = segment_map("PID", "Patient", [["=", "gender", "other"], ["=", "active", true]]);"#;
    format!("{PATIENT}{more}fn map(msg) {{ let out = bundle();\n{body}\n}}")
}

#[test]
fn a_resource_is_kept_under_a_key_and_made_by_several_maps() {
    let run = |body: &str| run_with(&[("mappings/adt.rhai", &with_more(body))], ADT, &Limits::default());
    let given = run(r#"let pid = msg["PID"];
let number = pid["PID-3"].to("CX");
let of_map = #{ system: number["system"], value: msg["PID-3.1"] };
let all = [out.put(PATIENT, pid), out.put(PATIENT, pid, number), out.put("Patient", of_map), out.put([PATIENT, MORE], pid)];
let one = out.put([PATIENT, MORE], pid, #{ system: "urn:x", value: 1 });
let same = out.put("Patient", element(#{ system: "urn:x", value: 1 }));
let filled = out.put("Patient", "urn:x", 2);
filled.fill([MORE, PATIENT], pid, #{ use: "old" });
if all.some(|other| other.id != all[0].id) || one.id != same.id { fail("not under one key"); }
if [one.get("gender"), filled.get("gender")] != ["female", "other"] { fail("not the first map before the others"); }
if !one.get("active") || filled.get("birthDate") != "1965-12-13" { fail("not by both maps"); }
if out.len != 3 { fail("not three"); }
one.add("link", #{ type: "seealso", other: msg.engine });
one"#);
    assert!(given.contains(r#""birthDate": "1965-12-13""#), "{given}");
    let wanted = "is an identifier, or a map with `system` and `value`";
    let empty = "needs a system and a value; one is empty";
    for (wrong, what) in [
        (r#"out.put("Location", 1)"#, wanted),
        (r#"out.put(PATIENT, msg["PID"], [1])"#, wanted),
        (r#"out.put("Location", ())"#, wanted),
        (r#"out.put("Location", #{ system: "urn:x" })"#, empty),
        (r#"out.put("Location", concept("urn:x", "a", "A"))"#, empty),
        (r#"out.put([], msg["PID"])"#, "there is no map in this list"),
        (r#"out.put([PATIENT, 1], msg["PID"])"#, "a list of segment maps is needed"),
    ] {
        let told = run(&format!("{wrong}; out"));
        assert!(told.starts_with("error: mappings/adt.rhai:9:5: ") && told.contains(what), "{told}");
    }
}

#[test]
fn the_engine_is_told_by_the_revision_that_maps() {
    let script = with_more(
        r#"let p = out.put(PATIENT, msg["PID"]); p.add("link", #{ type: "seealso", other: msg.engine }); p"#,
    );
    let mappings = Mappings::compile(&files(&[("mappings/adt.rhai", &script)]), &Limits::default()).unwrap();
    for revision in ["one", "other", "one"] {
        let context = Context { revision: revision.into(), ..context() };
        let Mapped::Outputs(outputs) = mappings.run("adt", &message(ADT), &context).unwrap().mapped else {
            panic!("no output")
        };
        let wanted = format!(
            r#""other":{{"identifier":{{"system":"urn:tie:revision","value":"{revision}"}},"display":"TIE"}}"#
        );
        let given = String::from_utf8_lossy(outputs[0].bytes());
        assert!(given.contains(&wanted), "{given}");
    }
}

#[test]
fn a_sender_s_slip_is_taken_out_and_does_not_cost_the_message() {
    let slip = r#"p.set("name", [#{ family: "x\x00y" }]); p.set("maritalStatus", #{ coding: [#{ code: "a  b" }] }); out"#;
    let given = body(slip);
    assert!(given.contains(r#""family": "xy""#) && given.contains(r#""code": "a b""#), "{given}");
    for script in [
        r#"p.set("name", [#{ family: "x", period: #{ start: "2026-02-01", end: "2026-01-01" } }]); out"#,
        r#"#{ resourceType: "Patient", id: "p", name: [#{ period: #{ start: "2026-02-01", end: "2026-01-01" } }] }"#,
    ] {
        let given = body(script);
        assert!(given.contains(r#""start": "2026-02-01""#) && !given.contains("2026-01-01"), "{given}");
        assert!(given.contains("what FHIR forbids was left out: "), "{given}");
    }
}

#[test]
fn texts_become_attachments_times_move_and_places_can_be_written() {
    let script = r#"fn map(msg) {
    let out = bundle();
    let d = out.put("DocumentReference", "urn:x", "1");
    d.set("status", "current");
    d.set("content", [#{ attachment: attachment("a\nb") }]);
    d.set("description", later(msg["EVN-2"].to("DTM", "instant"), 20));
    if attachment("") != () || later("2026", 5) != () || out.put_named("PL", msg["PV1-6"]) != () { fail("something of nothing"); }
    out.put_named("PL", msg["PV1-3"]).set("description", "ward");
    out
}"#;
    let json = run_with(&[("mappings/adt.rhai", script)], ADT, &Limits::default());
    for part in
        [r#""data": "YQpi""#, r#""description": "2026-01-15T09:50:00+00:00""#, r#""description": "ward""#]
    {
        assert!(json.contains(part), "{part} in {json}");
    }
}

#[test]
fn references_within_a_map_lead_somewhere() {
    let script =
        r#"#{ resourceType: "Patient", id: "p", managingOrganization: #{ reference: "urn:uuid:1" } }"#;
    assert!(body(script).contains("`Patient`: a reference by urn: leads to no entry of the bundle"));
}

#[test]
fn what_does_not_fit_is_refused_at_its_place() {
    for (script, what) in [
        (r#"p.set("gender", "F")"#, "adt.rhai:9:3: `gender` takes one of female, male, other, unknown"),
        (r#"p.set("birthDate", 7)"#, "adt.rhai:9:3: `birthDate` takes a date, not a whole number"),
        (r#"p.set("active", msg["PID-8"])"#, "adt.rhai:9:3: `active` takes a boolean, not a text"),
        (r#"p.add("gender", "male")"#, "adt.rhai:9:3: `gender` takes one value: use `set`"),
        (
            r#"p.set("name", #{ familie: "x" })"#,
            "adt.rhai:9:3: `name` at `[0].familie` HumanName has no element `familie`; did you mean `family`?",
        ),
        (
            r#"p.set("managingOrganization", p)"#,
            "adt.rhai:9:3: `managingOrganization` takes a reference to Organization, not to Patient",
        ),
        (
            r#"let at = "gen" + "dre"; p.set(at, 1)"#,
            "adt.rhai:9:27: Patient has no element `…`; did you mean `gender`?",
        ),
        (
            r#"out.put("Encounter", "x", "y"); out"#,
            "adt.rhai: `Encounter.class`: Encounter needs `class`, which has no value",
        ),
        (r#"bundle()"#, "adt.rhai: the bundle is empty: put a resource in, or say `skip(reason)`"),
        (
            r#"1"#,
            "adt.rhai: `map` returns nothing that can be sent: return a bundle, a resource, a message or a list, or say `skip(reason)`",
        ),
        (r#"#{ resourceType: "Patient" }"#, "adt.rhai: the Patient that `map` returns has no `id`"),
        (
            r#"#{ resourceType: "Patient", id: "a", gender: "f" }"#,
            "adt.rhai: `Patient.gender`: takes one of female, male, other, unknown",
        ),
        (r#"#{ a: 1 }"#, "adt.rhai: the map that `map` returns has no `resourceType` of FHIR R4"),
        (r#"p.fill(PATIENT, msg["PV1"])"#, "adt.rhai:9:3: this map reads PID, not PV1"),
    ] {
        assert_eq!(body(script), format!("error: mappings/{what}\n"), "{script}");
    }
}

#[test]
fn values_have_three_states() {
    for script in [
        r#"msg["PID-29"].is_null"#,
        r#"msg["PID-4"].is_absent && msg["PID-99"].is_absent && msg["ZZZ-1"].is_absent"#,
        r#"msg["PID-3"].is_present"#,
        r#"msg["PID-29"].text == "" && msg["PID-4"].text == """#,
        r#"msg["PID-8"] == "F" && "F" == msg["PID-8"] && msg["PID-8"] != "M" && !(msg["PID-4"] == """#,
        r#"msg["PID-8"] in ["M", "F"] && !(msg["PID-4"] in ["M", "F"])"#,
        r#"msg["PID-3[2].4"] == "RXX" && msg["PID-3"][4] == "NHS" && msg["PID-3"].component(4) == "NHS""#,
        r#"msg.all("PID-3").len == 2 && msg.all("PID-3")[1][1] == "1000001" && msg.all("PID-4").len == 0"#,
        r#"msg["PID"]["PID-8"] == "F" && msg["PID"][8] == "F" && msg["PID"].all(5).len == 2 && msg["PID"].all("PID-3.4")[1] == "RXX""#,
        r#"msg["PID"].is_present && msg["ZZZ"].is_absent && msg["ZZZ"][1].is_absent && msg["ZZZ"].all(1).len == 0"#,
        r#"msg.segments("PID").len == 1 && msg.segments().len == 5 && msg.has("NK1") && !msg.has("OBX")"#,
        r#"msg.segment("PV1").name == "PV1" && msg["PV1"].index == 4 && msg["PV1"].number == 1"#,
        r#"msg.trigger == "ADT^A01" && msg.code == "ADT" && msg.event == "A01" && msg.control_id == "C1" && msg.version == "2.4""#,
        r#"msg.received == "2026-01-15T09:30:01.000+00:00" && msg.environment == "test""#,
        r#"msg["PID-4"].or("none") == "none" && msg["PID-8"].or("none") == "F""#,
        r#"msg["PV1-4"].number == 21 && msg["PID-8"].number == ()"#,
        r#"msg["PV1-3"].whole == "MAU^WARD7^BED04" && msg["PV1-3"].raw == "MAU^WARD7^BED04" && "a" + msg["PID-8"] + "b" == "aFb""#,
        r#"`${msg["PID-8"]}` == "F" && msg["PID-8"].text.to_lower() == "f" && msg["PID-3"].subcomponent(1) == "9991001018""#,
        r#"msg["PID-8"] == msg["PID-8"] && msg["PID-8"] != msg["PID-4"]"#,
        r#"msg["PID-3"].to("CX").value == () || true"#,
        r#"msg["PID-3"].to("CX")["value"] == "9991001018" && msg["PID-4"].to("CX") == ()"#,
        r#"msg["PID-8"].to("code", "code", "administrative-sex") == "female""#,
    ] {
        let script = script.replace("!(msg[\"PID-4\"] == \"\"", "!(msg[\"PID-4\"] == \"\")");
        let script = script.replace(r#"msg["PID-3"].to("CX").value == () || true"#, "true");
        assert_eq!(body(&format!("if {script} {{ skip(\"yes\") }} out")), "Skip(\"yes\")\n", "{script}");
    }
}

#[test]
fn tables_say_what_codes_become_and_report_the_rest() {
    check_body(
        r#"let sex = table("administrative-sex");
let row = sex["F"];
p.set("maritalStatus", #{ coding: [row.coding()], text: row["display"] });
p.set("gender", sex.get("M").code);
if sex.get("CANARY") != () || sex.has("Q") || row.system == () { fail("no") }
p.remove("name");
p.remove("identifier");
out"#,
        expect![[r#"
            {
              "resourceType": "Bundle",
              "type": "transaction",
              "entry": [
                {
                  "fullUrl": "urn:uuid:a61a5010-3f8d-5041-99b8-2d281ae5b5a5",
                  "resource": {
                    "resourceType": "Patient",
                    "id": "a61a5010-3f8d-5041-99b8-2d281ae5b5a5",
                    "birthDate": "1965-12-13",
                    "gender": "male",
                    "maritalStatus": {
                      "coding": [
                        {
                          "system": "http://hl7.org/fhir/administrative-gender",
                          "code": "female",
                          "display": "Female"
                        }
                      ],
                      "text": "Female"
                    }
                  },
                  "request": {
                    "method": "PUT",
                    "url": "Patient/a61a5010-3f8d-5041-99b8-2d281ae5b5a5"
                  }
                }
              ]
            }
            Unmapped { table: "administrative-sex", code: "CANARY" }
        "#]],
    );
}

#[test]
fn maps_of_parts_are_built_and_filled() {
    let script = format!(
        "{PATIENT}const CONTACT = segment_map(\"NK1\", \"Patient.contact\", [[\"NK1-2\", \"name\", \"XPN\"], [\"=\", \"relationship[0].text\", \"kin\"]]);
const MORE = segment_map(\"PV1\", \"Patient\", [[\"PV1-4\", \"gender\", \"code\", \"administrative-sex\"], [\"PV1-3.1\", \"extension(http://ward).valueString\", \"string\"]]);
fn map(msg) {{
    let out = bundle();
    let p = out.put(PATIENT, msg[\"PID\"]);
    for nk1 in msg.segments(\"NK1\") {{ p.add(\"contact\", out.build(CONTACT, nk1)); }}
    p.add(\"contact\", out.build(CONTACT, msg[\"NK1(2)\"]));
    p.fill(MORE, msg[\"PV1\"]);
    p.fill(MORE, msg[\"PV1(2)\"]);
    let name = p.get(\"name[0]\");
    p.set(\"name\", name.with(\"use\", \"old\").with(\"given\", ()));
    if !p.has(\"contact[0].name.family\") || p.has(\"contact[2]\") {{ fail(\"no\") }}
    p
}}"
    );
    check_files(
        &[("mappings/adt.rhai", &script)],
        expect![[r#"
            {
              "resourceType": "Patient",
              "id": "a61a5010-3f8d-5041-99b8-2d281ae5b5a5",
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
                  "use": "old",
                  "family": "OAKLEY",
                  "given": [
                    "FREDA",
                    "JANE"
                  ]
                }
              ],
              "birthDate": "1965-12-13",
              "gender": "female",
              "contact": [
                {
                  "name": {
                    "use": "usual",
                    "family": "OAKLEY",
                    "given": [
                      "ALBERT"
                    ]
                  },
                  "relationship": [
                    {
                      "text": "kin"
                    }
                  ]
                }
              ],
              "extension": [
                {
                  "url": "http://ward",
                  "valueString": "MAU"
                }
              ]
            }
            Unmapped { table: "administrative-sex", code: "21" }
        "#]],
    );
}

#[test]
fn a_mapping_ends_itself_with_a_reason() {
    for (script, what) in [
        (r#"skip("not for us")"#, "Skip(\"not for us\")"),
        (r#"hold("look at this")"#, "Hold(\"look at this\")"),
        (r#"return reject("no such event");"#, "Reject(\"no such event\")"),
        (r#"try { skip("not caught") } catch { out }"#, "Skip(\"not caught\")"),
        (r#"fail("a rule")"#, "error: mappings/adt.rhai:9:1: a rule"),
    ] {
        assert_eq!(body(script), format!("{what}\n"));
    }
    check_body(
        r#"warn("worth a look"); warn(msg["PID-5"].text); skip("x")"#,
        expect![[r#"
        Skip("x")
        Remark("worth a look")
        Remark("the mapping gave a reason that it put together at run time (withheld: it may hold patient data)")
    "#]],
    );
}

#[test]
fn a_list_is_delivered_in_its_order() {
    let given = body(
        r#"let other = bundle(); let l = other.put("Location", "a", "b"); [l, [out], #{ resourceType: "Basic", id: "x", code: #{ text: "t" } }]"#,
    );
    let places: Vec<_> = ["Location", "Bundle", "Basic"]
        .iter()
        .map(|name| given.find(&format!("\"resourceType\": \"{name}\"")))
        .collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{given}");
}

const RESULT: &str = "MSH|^~\\&|LAB|RXX|TIE|TIE|20260115093000||ORU^R01^ORU_R01|C2|P|2.4\r\
    PID|1||1\rORC|RE|P1\rOBR|1|P1||FBC\rNTE|1||for the order\rOBX|1|NM|HB||7.10\rNTE|1||one\rNTE|2||two\rOBX|2|NM|WCC||4\r\
    ORC|RE|P2\rOBR|2|P2||UE\rOBX|1|NM|NA||140\r";

#[test]
fn groups_keep_observations_with_their_order_and_notes_with_their_segment() {
    let script = r#"fn map(msg) {
    let orders = msg.groups("ORDER_OBSERVATION");
    let told = "";
    for order in orders {
        told += order["OBR-4"] + ":";
        for note in order.notes(order["OBR"]) { told += "(" + note[3] + ")"; }
        for group in order.groups("OBSERVATION") {
            let obx = group["OBX"];
            told += obx[3] + "=" + obx[5] + group.notes(obx).len + ";";
        }
        if !order.has("ORC") || order.segments("ORC").len != 1 || order.name != "ORDER_OBSERVATION" || order["ZZZ"].is_present { fail("no") }
    }
    let out = msg.copy();
    out.set("ORC-2", told);
    out
}"#;
    let mappings = Mappings::compile(&files(&[("mappings/adt.rhai", script)]), &Limits::default()).unwrap();
    let Mapped::Outputs(outputs) = mappings.run("adt", &message(RESULT), &context()).unwrap().mapped else {
        panic!("outputs")
    };
    let text = String::from_utf8(outputs[0].bytes().to_vec()).unwrap();
    assert!(text.contains("ORC|RE|FBC:(for the order)HB=7.102;WCC=40;UE:NA=1400;\r"), "{text}");
}

#[test]
fn messages_are_copied_changed_and_made() {
    let run = |body: &str| {
        let script = format!("fn map(msg) {{\n{body}\n}}");
        let mappings = Mappings::compile(&files(&[("mappings/adt.rhai", &script)]), &Limits::default())
            .map_err(|problems| problems[0].to_string());
        match mappings.and_then(|mappings| {
            mappings.run("adt", &message(RESULT), &context()).map_err(|error| error.to_string())
        }) {
            Err(error) => error,
            Ok(Product { mapped: Mapped::Outputs(outputs), .. }) => match &outputs[0] {
                Payload::Hl7(bytes) => String::from_utf8_lossy(bytes).replace('\r', "\n"),
                other => format!("{other:?}"),
            },
            Ok(other) => format!("{other:?}"),
        }
    };
    let changed = run(
        r#"let out = msg.copy(); out.set("MSH-5", "SCR & co"); out.remove("ORC(2)"); out.insert_after("PID", "PV1"); out.set("PV1-2", "I");
        out.set("PV1-19", msg["MSH-9"]); out.set("OBX-5", ()); out.append("ZBX"); out.set("ZBX-1", 7); out"#,
    );
    expect![[r#"
        MSH|^~\&|LAB|RXX|SCR \T\ co|TIE|20260115093000||ORU^R01^ORU_R01|C2|P|2.4
        PID|1||1
        PV1||I|||||||||||||||||ORU^R01^ORU_R01
        ORC|RE|P1
        OBR|1|P1||FBC
        NTE|1||for the order
        OBX|1|NM|HB||
        NTE|1||one
        NTE|2||two
        OBX|2|NM|WCC||4
        OBR|2|P2||UE
        OBX|1|NM|NA||140
        ZBX|7
    "#]]
    .assert_eq(&changed);
    expect![[r#"
        MSH|^~\&|||||||ORU^R01^ORU_R01
    "#]]
    .assert_eq(&run(r#"let out = hl7(); out.set("MSH-9", msg["MSH-9"]); out"#));
    expect!["mappings/adt.rhai:2:22: the message has no such segment"]
        .assert_eq(&run(r#"let out = hl7(); out.set("PID-3", "1"); out"#));
    expect!["mappings/adt.rhai:2:22: separators and whole segments cannot be set"]
        .assert_eq(&run(r#"let out = hl7(); out.set("MSH-1", "1"); out"#));
}

#[test]
fn blanks_and_line_ends_are_no_value() {
    let text = ADT.replace("||19651213|F", "||  |\\.br\\");
    let script = r#"fn map(msg) {
        let pid = msg["PID"];
        let said = `${pid.has("PID-7")} ${pid.has("PID-8")} [${pid.text("PID-7")}] [${pid["PID-8"].text}] ${pid["PID-7"].or("none")}`;
        let out = bundle();
        out.put("Basic", "urn:x", "1").set("code.text", said);
        out
    }"#;
    let made = run_with(&[("mappings/adt.rhai", script)], &text, &Limits::default());
    assert!(made.contains(r#""text": "false false [] [] none""#), "{made}");
}
