//! `tie map`: what it prints, and how it ends.

use super::*;

#[test]
fn map_prints_what_a_test_expects() {
    let home = Home::new();
    let ended = home.tie(&["map", "small", "testdata/a.hl7"]);
    ended.shows(0, &[]);
    home.write("testdata/a.json", &ended.out);
    home.tie(&["test"]).shows(0, &[]);
    assert_eq!(ended.out, "{\n  \"active\": true,\n  \"id\": \"p1\",\n  \"resourceType\": \"Patient\"\n}\n");
}

#[test]
fn map_tells_how_each_message_ended() {
    let home = Home::new();
    let batch = [MESSAGE, &MESSAGE.replace("|1|P", "|S|P"), &MESSAGE.replace("|1|P", "|R|P")].concat();
    home.write("batch.hl7", &batch);
    let ended = home.tie(&["map", "small", "--json", "batch.hl7"]);
    assert_eq!(ended.code, 1, "a rejected message is not well");
    let lines: Vec<Value> = ended.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> =
        lines.iter().map(|line| (line["result"].as_str().unwrap(), line["reason"].clone())).collect();
    assert_eq!(
        told,
        [("mapped", Value::Null), ("skip", json!("not wanted")), ("reject", json!("no identifier"))]
    );
    assert_eq!(lines[0]["outputs"][0]["resourceType"], "Patient");
    assert_eq!((&lines[0]["trigger"], &lines[0]["control_id"]), (&json!("ADT^A01"), &json!("1")));
    home.tie_with(&["map", "small", "-"], &MESSAGE.replace("|1|P", "|S|P")).shows(0, &["skip: not wanted"]);
    home.tie_with(&["map", "small", "-"], "hello").shows(1, &["parse: "]);
}

#[test]
fn map_may_leave_the_mapping_to_the_routes() {
    let home = Home::new();
    let ended = home.tie(&["map", "auto", "--json", "testdata/a.hl7"]);
    let line: Value = serde_json::from_str(ended.out.trim()).unwrap();
    assert_eq!((&line["mapping"], &line["result"]), (&json!("small"), &json!("mapped")));
    home.tie_with(&["map", "auto", "-"], "hello").shows(1, &["parse: "]);

    home.write("mappings/other.rhai", "fn map(msg) { skip(\"not for us\") }");
    let other = ROUTE.replacen("small", "other", 1);
    home.write("routes/other.toml", &other);
    let told = |home: &Home| {
        let ended = home.tie(&["map", "auto", "--json", "testdata/a.hl7"]);
        let lines =
            ended.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["mapping"].clone());
        lines.collect::<Vec<_>>()
    };
    assert_eq!(told(&home), ["small", "other"], "of each route that takes it");
    home.tie(&["map", "auto", "testdata/a.hl7"])
        .shows(0, &["by the mapping small:", "by the mapping other:", "not for us"]);
    home.write("routes/other.toml", &other.replacen("map =", "accept = { otherwise = true }\nmap =", 1));
    assert_eq!(told(&home), ["small"], "another route takes it");
    fs::remove_file(home.0.path().join("routes/other.toml")).unwrap();

    home.write("routes/adt.toml", &ROUTE.replacen("map =", "accept = { trigger = 'SIU' }\nmap =", 1));
    home.tie(&["map", "auto", "testdata/a.hl7"]).shows(1, &["unrouted: no route takes it"]);
}

#[test]
fn map_needs_no_instance_but_a_mapping_and_a_file() {
    let home = Home::new();
    fs::remove_file(home.0.path().join("tie.toml")).unwrap();
    home.tie(&["map", "small", "testdata/a.hl7"]).shows(0, &["Patient"]);
    home.tie(&["map", "smal", "testdata/a.hl7"]).shows(2, &["there is no mapping `smal`; known are small"]);
    home.tie(&["map", "small", "nothing.hl7"]).shows(3, &["nothing.hl7: No such file"]);
    home.tie(&["map", "small", "--coverage", "testdata/a.hl7"]).shows(0, &["not read: MSH-7"]);
    home.write("mappings/small.rhai", "fn map(msg) {\n  let = 1;\n}");
    home.tie(&["map", "small", "testdata/a.hl7"]).shows(1, &["mappings/small.rhai:2:7"]);
}
