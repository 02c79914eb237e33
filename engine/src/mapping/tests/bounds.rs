//! Faults while a script runs: where, what is told of them, what is bounded.

use super::*;

#[test]
fn errors_name_the_innermost_place_in_its_own_file() {
    check_files(
        &[
            ("mappings/adt.rhai", "import \"lib/a\" as a;\nfn map(msg) {\n    a::one(msg)\n}"),
            (
                "mappings/lib/a.rhai",
                "import \"lib/b\" as b;\nfn one(msg) { two(msg) }\nfn two(msg) {\n    b::three(msg)\n}",
            ),
            (
                "mappings/lib/b.rhai",
                "fn three(msg) {\n\n    let x = 1;\n    x + four(msg)\n}\nfn four(msg) { let v = [1]; v[7] }",
            ),
        ],
        expect![[r#"
            error: mappings/lib/b.rhai:6:31: the index is outside of the list or text
        "#]],
    );
}

#[test]
fn a_reason_that_is_put_together_is_warned_of() {
    let script =
        "fn map(msg) {\n    if msg.has(\"PID\") { reject(`no ${msg[\"PID-3\"]}`); }\n    skip(\"fine\")\n}";
    let mappings = Mappings::compile(&files(&[("mappings/adt.rhai", script)]), &Limits::default()).unwrap();
    let warnings: Vec<_> = mappings.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "mappings/adt.rhai:2:25: the reason of `reject` will be withheld: it may hold patient data (write it out as one text)"
        ]
    );
}

/// The text of the first patient name in the message, and other values that must never be told.
const CANARIES: [&str; 5] = ["OAKLEY", "FREDA", "9991001018", "19651213", "WARD7"];

#[test]
fn no_error_and_no_reason_tells_a_value() {
    for script in [
        r#"throw msg["PID-5"].text"#,
        r#"throw #{ a: msg["PID-5"].text }"#,
        r#"throw msg["PID-5"]"#,
        r#"parse_int(msg["PID-5"].text)"#,
        r#"parse_int(msg["PID-3"].text + "x")"#,
        r#"let m = #{ a: 1 }; m[msg["PID-5"].text].b"#,
        r#"let m = #{ a: 1 }; m[msg["PID-5"].text] + 1"#,
        r#"let m = [1]; m[parse_int(msg["PID-3"].text)]"#,
        r#"msg["PID-5"].text - 1"#,
        r#"msg["PID-5"].text.nothing"#,
        r#"msg[msg["PID-5"].text]"#,
        r#"msg.segments(msg["PID-5"].text)"#,
        r#"p.set(msg["PID-5"].text, 1)"#,
        r#"p.set("gender", msg["PID-5"].text)"#,
        r#"p.set("birthDate", #{ a: msg["PID-5"].text })"#,
        r#"let m = #{}; m[msg["PID-5"].text] = 1; p.set("name", m)"#,
        r#"let m = #{}; m[msg["PID-5"].text] = 1; m.resourceType = "Patient"; m"#,
        r#"let m = #{}; m.resourceType = msg["PID-5"].text; m"#,
        r#"out.put(msg["PID-5"].text, "a", "b")"#,
        r#"table(msg["PID-5"].text)"#,
        r#"table("administrative-sex")["F"][msg["PID-5"].text]"#,
        r#"call(msg["PID-5"].text)"#,
        r#"msg["PID-5"].to(msg["PID-5"].text)"#,
        r#"skip(msg["PID-5"].text)"#,
        r#"reject(`bad ${msg["PID-5"].text}`)"#,
        r#"hold("x" + msg["PID-5"])"#,
        r#"fail(msg["PID-5"].text)"#,
        r#"warn(msg["PID-5"].text); 1"#,
        r#"let f = |x| x; f.call(msg["PID-5"].text, 1)"#,
        r#"for x in msg["PID-5"] { 1 }"#,
        r#"if msg["PID-5"] { 1 }"#,
        r#"switch msg["PID-5"].text { "a" => 1 }"#,
        r#"msg["PID-5"].text.pad(100000000, msg["PID-5"].text)"#,
        r#"print(msg["PID-5"].text)"#,
    ] {
        let said = body(script);
        for canary in CANARIES {
            assert!(!said.contains(canary), "{script}: {said}");
        }
        assert!(
            said.starts_with("error: ")
                || said.contains("withheld")
                || said.starts_with("mappings/adt.rhai:"),
            "{script}: {said}"
        );
    }
}

#[test]
fn a_fault_in_the_script_tells_its_kind() {
    for (script, what) in [
        (
            r#"throw "x""#,
            "9:1: the script threw an error (what it threw is withheld: it may hold patient data)",
        ),
        (r#"let x = "a" - 1; x"#, "9:13: `-` does not take (text, whole number)"),
        (r#"let x = #{ a: 1 }; x.b"#, "9:22: there is no such property `b`"),
        (r#"[1][3]"#, "9:5: the index is outside of the list or text"),
        (r#"parse_int("x")"#, "9:1: the calculation fails: a number is too large, or a text is no number"),
        (r#"if msg["PID-5"] { 1 }"#, "9:7: a truth value is needed here, not a field"),
        (r#"let n = 7; for x in n { 1 }"#, "9:21: `for` cannot go over this"),
        (r#"let other = 1; other_one()"#, "9:16: there is no function `other_one`"),
    ] {
        let said = body(script);
        assert!(said.ends_with(&format!("mappings/adt.rhai:{what}\n")), "{script}: {said}");
    }
}

#[test]
fn everything_is_bounded() {
    let limits = Limits {
        operations: 100_000,
        text_bytes: 10_000,
        items: 1000,
        output_bytes: 2000,
        ..Limits::default()
    };
    let run = |body: &str| {
        let script = format!("fn deep(n) {{ deep(n + 1) }}\nfn map(msg) {{\n{body}\n}}");
        run_with(&[("mappings/adt.rhai", &script)], ADT, &limits)
    };
    let error = |what: &str| format!("error: mappings/adt.rhai:{what}\n");
    assert_eq!(run("loop { }"), error(" the mapping takes more steps than it may"));
    assert_eq!(run("deep(1)"), error(" functions call each other deeper than they may"));
    assert_eq!(
        run("let x = \"xxxxxxxxxx\"; loop { x += x; }"),
        error(" a text, list or map is larger than it may be")
    );
    assert_eq!(
        run("let x = [1, 2, 3]; loop { x += x; }"),
        error(" a text, list or map is larger than it may be")
    );
    assert_eq!(
        run("let x = \"\"; x.pad(10000000, \"x\"); x"),
        error(" a text, list or map is larger than it may be")
    );
    assert_eq!(
        run(
            "let out = bundle(); for i in range(0, 20) { out.put(\"Location\", \"x\", i).set(\"name\", \"abcdefghijkl\"); } out"
        ),
        "error: mappings/adt.rhai: the output is larger than it may be\n"
    );
}

#[test]
fn a_mapping_that_takes_too_long_is_ended() {
    let limits = Limits { operations: u64::MAX, time: Duration::from_millis(20), ..Limits::default() };
    let scripts = [("mappings/adt.rhai", "fn map(msg) { loop { try { let x = 1; } catch { } } }")];
    let said = run_with(&scripts, ADT, &limits);
    assert!(said.ends_with("the mapping ran longer than it may\n"), "{said}");
}

#[test]
fn a_panic_inside_ends_the_message_and_not_the_engine() {
    let script = "fn map(msg) { if msg[\"PID-8\"] == \"F\" { test_panic() } skip(\"fine\") }";
    let mappings = Mappings::compile(&files(&[("mappings/adt.rhai", script)]), &Limits::default()).unwrap();
    let error = mappings.run("adt", &message(ADT), &context()).unwrap_err();
    assert_eq!(error.to_string(), "the mapping failed inside the engine (a panic: please report it)");
    let next = mappings.run("adt", &message(&ADT.replace("|F|", "|M|")), &context()).unwrap();
    assert_eq!(next.mapped, Mapped::Skip("fine".into()));
}

#[test]
fn fields_that_were_not_read_are_told() {
    // To ask for a segment is not to read it.
    let script = format!(
        "{PATIENT}fn map(msg) {{ let out = bundle(); out.put(PATIENT, msg[\"PID\"]); msg.has(\"EVN\"); msg.has(\"EVN(1)\"); msg[\"PV1\"][2]; msg.all(\"PV1-7\"); for s in msg.segments(\"NK1\") {{ s[\"NK1-2\"]; }} out }}"
    );
    let mappings = Mappings::compile(&files(&[("mappings/adt.rhai", &script)]), &Limits::default()).unwrap();
    let run = |coverage| mappings.run("adt", &message(ADT), &Context { coverage, ..context() }).unwrap();
    assert_eq!(unread(&run(true)), ["MSH-7", "EVN-2", "PID-30", "PV1-3", "PV1-4"]);
    assert!(run(false).coverage.is_empty());
}

#[test]
fn fields_left_out_on_purpose_are_told_with_their_reason() {
    let library =
        r#"const NOT_MAPPED = ignored([["PV1-3", "PV1-4", "the bed is of no use here"]]); fn f() {}"#;
    let script = r#"
        import "lib/visit" as visit;
        const HERE = ignored([["EVN", "said by MSH already"]]);
        fn map(msg) { msg["MSH-7"]; msg["PV1-2"]; msg["PV1-7"]; skip("enough") }
    "#;
    let scripts = [("mappings/lib/visit.rhai", library), ("mappings/adt.rhai", script)];
    let mappings = Mappings::compile(&files(&scripts), &Limits::default()).unwrap();
    let product = mappings.run("adt", &message(ADT), &Context { coverage: true, ..context() }).unwrap();
    assert_eq!(unread(&product), ["PID-3", "PID-5", "PID-7", "PID-8", "PID-30", "NK1-2"]);
    let reasons: Vec<_> = product
        .coverage
        .iter()
        .filter_map(|one| match &one.fate {
            Fate::Ignored(reason) => Some(format!("{}: {reason}", one.spot)),
            Fate::Read | Fate::Unread => None,
        })
        .collect();
    let expected = [
        "EVN-2: said by MSH already",
        "PV1-3: the bed is of no use here",
        "PV1-4: the bed is of no use here",
    ];
    assert_eq!(reasons, expected);
}

#[test]
fn one_revision_is_shared_by_all_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    let script =
        format!("{PATIENT}fn map(msg) {{ let out = bundle(); out.put(PATIENT, msg[\"PID\"]); out }}");
    let mappings = Mappings::compile(&files(&[("mappings/adt.rhai", &script)]), &Limits::default()).unwrap();
    shared(&mappings);
    assert_eq!(mappings.names().collect::<Vec<_>>(), ["adt"]);
    let given: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| mappings.run("adt", &message(ADT), &context()).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(given.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(
        mappings.run("nope", &message(ADT), &context()).unwrap_err().to_string(),
        "there is no mapping `nope`"
    );
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(64))]
    #[test]
    fn the_same_message_gives_the_same_bytes_in_every_revision_of_the_same_text(
        fields in proptest::collection::vec("[A-Za-z0-9^~&\"é]{0,12}", 12),
    ) {
        let text = format!("MSH|^~\\&|A|B|C|D|||ADT^A01|1|P|2.4\rPID|{}\rPV1|1|I\r", fields.join("|"));
        let script = format!(
            "{PATIENT}fn map(msg) {{ let out = bundle(); let p = out.put(PATIENT, msg[\"PID\"]); \
             for v in msg.all(\"PID-5\") {{ p.add(\"name\", #{{ text: v, use: \"old\", given: [v[2]] }}); }} out }}"
        );
        let compiled = || Mappings::compile(&files(&[("mappings/adt.rhai", &script)]), &Limits::default()).unwrap();
        let (one, other) = (compiled(), compiled());
        proptest::prop_assert_eq!(
            one.run("adt", &message(&text), &context()),
            other.run("adt", &message(&text), &context())
        );
    }
}
