//! What a person reads when a table is wrong.

use expect_test::{Expect, expect};
use serde::Deserialize;

use super::*;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "serde fills them, and nothing reads them but Debug")]
struct Example {
    address: String,
    #[serde(default)]
    wait: Period,
    #[serde(default)]
    size: ByteSize,
    #[serde(default)]
    tls: Option<Tls>,
    #[serde(default)]
    mode: Mode,
    #[serde(default)]
    peers: Vec<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "serde fills them, and nothing reads them but Debug")]
struct Tls {
    certificate: String,
    #[serde(default)]
    verify: bool,
}

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    #[default]
    Original,
    Enhanced,
}

#[allow(clippy::needless_pass_by_value)]
fn check(text: &str, expected: Expect) {
    let document = Document::new("tie.toml", text);
    let problems = document.tree().and_then(|tree| document.read::<Example>(tree, &["kind"]));
    let printed: Vec<String> = match problems {
        Ok(value) => vec![format!("{value:?}")],
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    };
    expected.assert_eq(&printed.join("\n"));
}

#[test]
fn a_sound_table_is_read() {
    check(
        "address = 'a'\nwait = '30s'\nsize = '16MB'\nmode = 'enhanced'\npeers = [1, 2]\n[tls]\ncertificate = 'c'",
        expect![[
            r#"Example { address: "a", wait: 30s, size: 16MB, tls: Some(Tls { certificate: "c", verify: false }), mode: Enhanced, peers: [1, 2] }"#
        ]],
    );
}

#[test]
fn every_unknown_key_and_wrong_value_is_told_at_once() {
    check(
        "adress = 'a'\nwait = 30\nsize = '16 parsecs'\nmode = 'enhansed'\npeers = [1, 'x', 3, 70000]\nkand = 'mllp'\nzzzzzzzzz = 1\n[tls]\nverify = 'yes'\ncertifcate = 'c'",
        expect![[r#"
            tie.toml:1:1: unknown key `adress` (did you mean `address`?)
            tie.toml:2:8: expected a length of time such as "500ms", "30s", "5m", "24h" or "7d", found integer `30`
            tie.toml:3:8: expected a size such as "64kB" or "16MB", found string "16 parsecs"
            tie.toml:4:8: unknown value `enhansed` (did you mean `enhanced`?)
            tie.toml:5:13: expected a whole number in range, found string "x"
            tie.toml:5:21: expected a whole number in range, found integer `70000`
            tie.toml:6:1: unknown key `kand` (did you mean `kind`?)
            tie.toml:7:1: unknown key `zzzzzzzzz` (known are `address`, `kind`, `mode`, `peers`, `size`, `tls`, `wait`)
            tie.toml:9:10: expected a boolean, found string "yes"
            tie.toml:10:1: unknown key `certifcate` (did you mean `certificate`?)
            tie.toml:8:1: the key `certificate` is missing
            tie.toml:1:1: the key `address` is missing"#]],
    );
}

#[test]
fn a_required_key_with_a_wrong_value_is_not_missing_too() {
    check("address = 5", expect!["tie.toml:1:11: expected a string, found integer `5`"]);
}

#[test]
fn tables_and_lists_are_called_so() {
    check(
        "address = 'a'\npeers = 1\ntls = 'certificate'",
        expect![[r#"
            tie.toml:2:9: expected a list, found integer `1`
            tie.toml:3:7: expected a table, found string "certificate""#]],
    );
}

#[test]
fn the_syntax_itself_is_checked_first_and_whole() {
    check(
        "address = 'a\nwait = = 3\n",
        expect![[r#"
            tie.toml:1:13: invalid literal string, expected `'`
            tie.toml:2:8: extra `=`, expected nothing
            tie.toml:2:10: unexpected key or value, expected newline, `#`"#]],
    );
    check("address = 'a'\naddress = 'b'\n", expect!["tie.toml:2:1: duplicate key"]);
}
