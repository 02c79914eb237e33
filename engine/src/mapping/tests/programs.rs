//! A program means what Rhai means: each script is run both ways.

use super::*;

/// Bodies of `map`, each with what Rhai and the program must agree on: an output, a reason or an error with its place.
const SCRIPTS: [&str; 70] = [
    // Numbers, texts and comparisons.
    "say(1 + 2 * 3 - 4 / 2 % 3)",
    "say(\"a\" + \"b\" + 1 + 'c')",
    "say(`a${1 + 1}b${msg.event}${()}`)",
    "say([1 == 1, 1 != 2, 1 < 2, 2 <= 1, \"a\" < \"b\", () == (), \"a\" == (), 1 == \"1\", true != false, 'a' == 'a'])",
    "say([msg[\"PID-8\"] == \"F\", \"F\" == msg[\"PID-8\"], msg[\"PID-8\"] != \"F\", msg[\"PID-8\"] == (), msg[\"PID-8\"] == msg[\"PID-8\"]])",
    "say([msg[\"PID-8\"] in [\"M\", \"F\"], \"x\" in \"xyz\", 3 in [1, 2], \"a\" in #{ a: 1 }, 3 in 1..4])",
    "say(-(3) + (if !true { 1 } else { 2 }))",
    "say(1 << 3 | 1)",
    "say(() ?? msg[\"PID-99\"].to(\"ST\") ?? \"last\")",
    "say([1 == 1 && 2 == 3, false || true, true && msg.has(\"PID\")])",
    // Variables and blocks.
    "let a = 1; { let a = 2; a += 5; } a += 1; let a = a * 10; say(a)",
    "let a = if msg.has(\"PV1\") { \"yes\" } else if true { \"no\" } else { \"never\" }; say(a)",
    "let a = { let b = 2; b + 1 }; say(a)",
    "let a = switch msg.event { \"A01\" if false => 1, \"A01\" | \"A02\" => 2, _ => 3 }; say(a)",
    "let a = []; for n in [0, 1, 5, 9, \"x\", (), 'c', true] { a.push(switch n { 0 => \"none\", 1..4 => \"few\", 4..=9 => \"many\", 'c' => \"c\", true => \"so\", _ => \"?\" }); } say(a)",
    "let a = 0; while a < 5 { a += 1; if a == 2 { continue; } if a == 4 { break; } } say(a)",
    "let a = 0; let b = loop { a += 1; if a > 3 { break a * 2; } }; say(b)",
    "let a = 0; do { a += 1; } while a < 3; do { a += 1; } until a > 5; say(a)",
    "let a = []; for (x, i) in [7, 8] { a.push(x * 10 + i); } for n in 2..4 { a.push(n); } for n in 1..=2 { a.push(n); } for c in \"ab\" { a.push(c); } say(a)",
    "for n in [1, 2, 3] { if n == 2 { return say(n); } } say(0)",
    // Lists and maps.
    "let a = [1, [2, 3], #{ b: 4 }]; say([a[0], a[-1].b, a[1][-1], a.len, a.len(), a.is_empty()])",
    "let m = #{ a: #{ b: [1, 2] }, \"c d\": 3 }; m.a.b[1] = 9; m.e = 5; m[\"f\"] = 6; m.a.b.push(7); m.a.b[0] += 1; say([m.a.b, m[\"c d\"], m.e, m[\"f\"], m.len()])",
    "say(#{ a: 1 }[\"none\"])",
    "let m = #{ b: 1, c: [2] }; let n = m + #{ a: 0, c: 3 }; m += #{ d: m }; m += n; say([m, n, m.contains(\"d\"), m.contains(\"x\"), m.is_empty(), #{}.is_empty(), \"a\" in n])",
    "let a = []; let m = #{ t: \" x \" }; a.push(m); a.push([m, 1]); m.t.trim(); a[0].t.trim(); let b = [a]; b.push(a); let u = \"\u{a0} y\\n\"; u.trim(); say([a, b.len(), m, u])",
    "let a = []; for c in \"a1\" { a.push([c in [\"1\"], c == \"a\", \"a\" == c, c != \"a\", c < \"b\", [c].contains(\"1\"), c in \"ab\"]); } say(a)",
    "let a = [1]; a += [2, 3]; a += 4; a.insert(0, 0); let last = a.pop(); say([a, last, a.contains(2), a.index_of(3)])",
    "let t = \"ab\"; t += \"c\"; t += 1; t.trim(); say([t, t.len, t.to_upper(), t.sub_string(1), t[0], t[-1], t.starts_with(\"a\"), t.contains(\"bc\"), t.split(\"b\")])",
    "let a = [1, 2]; let b = a; b.push(3); say([a, b])",
    "let all = []; for n in [1, 2] { let own = [ZERO]; own.push(n); all.push(own); } say(all)",
    "let m = #{ p: \" x \", s: [msg], r: [\"b\"] }; m.p.trim(); m.r[0].replace(\"b\", \"c\"); let t = msg[\"PID-5\"].text.trim(); m.s[0][\"PID-5\"].text.trim(); msg[\"PID-5\"].text.trim(); say([m.p, m.r, t])",
    "say([max(nth(\"x\"), nth(\"x\") * 10), [nth(\"y\"), nth(\"y\")]])",
    // Fields by paths that the script says, of messages and segments and of what is neither.
    "let pid = msg[\"PID\"]; say([pid.has(\"PID-3\"), pid.has(\"PID-99\"), pid[\"PID-5\"], pid.text(\"PID-5.2\"), msg.has(\"PID\"), msg.has(\"ZZZ\"), msg[\"ZZZ\"].has(\"ZZZ-1\"), msg.text(\"PID-8\")])",
    "let pid = msg[\"PID\"]; say([pid.has(\"PID\"), pid[\"PID\"], msg[\"PV1\"][\"PV1-2\"], pid.has(\"PID-3[2]\")])",
    "let part = msg.cut(\"PID\", \"\")[0]; say([part.has(\"PID\"), part[\"PID\"][\"PID-3\"]])",
    "let m = #{ \"PID-3\": 1 }; let p = bundle().put(\"Patient\", \"urn:x\", \"1\"); p.set(\"active\", true); say([m[\"PID-3\"], p.has(\"active\")])",
    "let none = (); say(none?[\"PID-3\"])",
    "let none = (); say(none.has(\"PID-3\"))",
    "let none = (); say(none.text(\"PID-3\"))",
    "let pid = msg[\"PID\"]; say(pid.has(\"PV1-2\"))",
    "let pid = msg[\"PID\"]; say(pid.text(\"PV1-2\"))",
    "say(msg.has(\"pid\"))",
    "say(msg.segments().filter(|one| one.has(\"PID-3\")))",
    "let one = msg; { let one = msg[\"PID\"]; one.has(\"PID-3\"); } say([one.has(\"PV1-2\"), one[\"PV1-2\"], one.text(\"PV1-2\")])",
    "let a = 1; say(a.has(\"PID-3\"))",
    "let pid = msg.segment(\"PID\"); say([pid.has(\"PID-3\"), msg.segment(\"PID\").is_absent, msg.segment(\"ZZZ\").is_absent, msg[\"PID-5\"].is_absent, msg[\"PID-99\"].is_absent, pid[\"PID-3\"].is_absent, pid[\"PID-99\"].is_absent, msg[\"ZZZ\"].is_absent, msg[\"ZZZ-1\"].is_absent, pid[\"PID\"].is_absent])",
    "let pid = msg[\"PID\"]; say(pid.segment(\"PID\").is_absent)",
    // Closures.
    "say([1, 2, 3, 4].filter(|n| n % 2 == 0).map(|n| n * 10))",
    "let more = 5; say([1, 2].map(|n| n + more))",
    "say([[0, 1, 2].filter(|n| n != ZERO), [4, 5].map(|n, i| n + i + ZERO)])",
    "let sum = 0; let seen = [1, 2].map(|n| { sum += n; sum }); say([sum, seen])",
    "say([[1, 2].some(|n| n == 2), [1, 2].all(|n| n < 2), [1, 2].find(|n| n > 1), [1].find(|n| n > 1), [5, 6].map(|n, i| n * i)])",
    "say([1, 2, 3].map(|n| { if n == 2 { return 20; } n }))",
    "say(msg.all(\"PID-3\").map(|one| one[1].text).filter(|one| one != \"\"))",
    "say([3, 1, 2].map(|n| [n].map(|m| m + n)))",
    // Functions of the script.
    "say([twice(4), fact(6), nothing(), early(1), early(5)])",
    "let a = [1]; changed(a); say(a)",
    "say(msg.segments().filter(|one| one.name in [\"PID\", \"PV1\"]).map(|one| one.name + one[1]))",
    // Faults, with their places.
    "say(#{ a: 1 }.b)",
    "say([1, 2][7])",
    "let a = 1; say(a.none)",
    "let a = 1; say(a.text(\"PID-3\"))",
    "say(nothing() + 1)",
    "let a = 1; if a { say(1) } else { say(2) }",
    "throw \"x\"",
    "say(\n  twice(msg)\n)",
    "let a = 5; for n in a { say(n); } say(1)",
    "let a = #{}; a.b.c = 1; say(a)",
    "reject(\"because\")",
    "say(endless(1))",
];

const FUNCTIONS: &str = "
const ZERO = 0;
fn say(what) { let out = bundle(); let p = out.put(\"Basic\", \"urn:x\", \"1\"); p.set(\"code.text\", `${what}`); out }
fn twice(n) { n * 2 }
fn fact(n) { if n < 2 { 1 } else { n * fact(n - 1) } }
fn nothing() { }
fn early(n) { if n > 3 { return \"early\"; } \"late\" }
fn changed(list) { list.push(2); }
fn endless(n) { endless(n + 1) }
";

fn compiled(body: &str) -> Result<Mappings, String> {
    let script = format!("fn map(msg) {{ {body} }}{FUNCTIONS}");
    Mappings::compile(&files(&[("mappings/adt.rhai", &script)]), &Limits::default())
        .map_err(|problems| format!("{body}\n  {problems:?}\n"))
}

#[test]
fn a_program_means_what_rhai_means() {
    let message = message(ADT);
    let mut unlike = Vec::new();
    for body in SCRIPTS {
        let mappings = match compiled(body) {
            Ok(mappings) => mappings,
            Err(what) => {
                unlike.push(what);
                continue;
            }
        };
        if mappings.run_by_rhai().count() > 0 {
            unlike.push(format!("{body} has no program\n"));
        }
        let counting = Context { coverage: true, ..context() };
        let program = mappings.run("adt", &message, &counting);
        let rhai = mappings.by_rhai().run("adt", &message, &counting);
        if program != rhai {
            unlike.push(format!("{body}\n  program {program:?}\n  Rhai    {rhai:?}\n"));
        }
    }
    assert!(unlike.is_empty(), "{}", unlike.concat());
}

#[test]
fn what_has_no_program_is_run_by_rhai() {
    for body in [
        "try { twice(msg) } catch { return say(\"caught\"); }",
        "let f = |n| n + 1; say(f.call(1))",
        "say([3, 1, 2].reduce(|sum, n| if sum == () { n } else { sum + n }))",
    ] {
        let mappings = compiled(body).unwrap();
        assert_eq!(mappings.run_by_rhai().collect::<Vec<_>>(), ["adt"], "{body}");
        assert_eq!(mappings.warnings().len(), 1, "{body}: {:?}", mappings.warnings());
        let product = mappings.run("adt", &message(ADT), &context()).unwrap();
        assert!(matches!(product.mapped, Mapped::Outputs(_)), "{body}: {product:?}");
    }
}

#[test]
fn of_a_script_with_a_mistake_the_mistake_alone_is_told() {
    let problems = compiled("say(twcie(1))").unwrap_err();
    assert!(problems.contains("no function `twcie`") && !problems.contains("takes longer"), "{problems}");
}

#[test]
fn what_is_nested_as_deep_as_it_may_be_has_room_on_the_stack() {
    let nested = format!("{}endless_deep(n + 1){}", "[".repeat(14), "]".repeat(14));
    let script = format!("fn map(msg) {{ endless_deep(1) }} fn endless_deep(n) {{ {nested} }}");
    let mappings = Mappings::compile(&files(&[("mappings/adt.rhai", &script)]), &Limits::default()).unwrap();
    assert_eq!(mappings.run_by_rhai().count(), 0);
    let error = mappings.run("adt", &message(ADT), &context()).unwrap_err();
    assert_eq!(error.what, "functions call each other deeper than they may");
}
