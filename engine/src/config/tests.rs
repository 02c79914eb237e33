//! `tie.toml` as people write it, rightly and wrongly.

use expect_test::{Expect, expect};
use serde::Deserialize;

use super::*;
use crate::{
    connector::{Destination, Role, Source},
    journal::postgres::SslMode,
    secret::SecretRef,
};

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "serde fills them: what is tested is what it refuses")]
struct Socket {
    listen: String,
    #[serde(default)]
    tls: Option<Tls>,
}

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "serde fills them: what is tested is what it refuses")]
struct Tls {
    certificate: String,
}

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "serde fills them: what is tested is what it refuses")]
struct Web {
    url: String,
    #[serde(default)]
    tls: Option<Trust>,
}

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename = "Tls")]
#[expect(dead_code, reason = "serde fills them: what is tested is what it refuses")]
struct Trust {
    authority: String,
}

fn plugins() -> Vec<Plugin> {
    let source = Role::<Box<dyn Source>> {
        example: "",
        schema: || schemars::schema_for!(Socket),
        build: |options| Err(options.parse::<Socket>().err().unwrap_or_default()),
    };
    let destination = Role::<Arc<dyn Destination>> {
        example: "",
        schema: || schemars::schema_for!(Web),
        build: |options| Err(options.parse::<Web>().err().unwrap_or_default()),
    };
    vec![
        Plugin {
            name: "mllp",
            about: "HL7 v2 over sockets.",
            source: Some(source),
            destination: None,
            answers: &[],
        },
        Plugin {
            name: "fhir",
            about: "FHIR over HTTP.",
            source: None,
            destination: Some(destination),
            answers: &[],
        },
    ]
}

fn parse(text: &str) -> Result<Config, Vec<Problem>> {
    Config::parse(Path::new("tie.toml"), text.into(), &plugins())
}

fn check(text: &str, expected: Expect) {
    let problems = parse(text).unwrap_err();
    let printed: Vec<String> = problems.iter().map(ToString::to_string).collect();
    expected.assert_eq(&printed.join("\n"));
}

const SMALL: &str = "environment = 'test'\n[journal]\npath = 'var/journal'\n";

#[test]
fn what_is_not_said_has_a_default() {
    let config = parse(&format!(
        "{SMALL}[listener.hospital]\nkind = 'mllp'\nlisten = ':2575'\n[destination.record]\nkind = 'fhir'\nurl = 'http://x'\n"
    ))
    .unwrap();
    assert_eq!(config.environment, Environment::Test);
    assert_eq!(config.zone.iana_name(), Some("Europe/London"));
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:8061");
    assert_eq!(config.journal.location, Location::Directory("var/journal".into()));
    let listener = &config.listeners[0];
    assert_eq!((listener.name.as_str(), listener.kind.as_str()), ("hospital", "mllp"));
    assert_eq!((listener.charset.name(), listener.unmatched), ("windows-1252", Unmatched::Error));
    assert_eq!(listener.duplicates, Some(Duration::from_secs(24 * 3600)));
    assert_eq!(*config.patients, Patients::default());
    assert_eq!(listener.options.parse::<Socket>().map(|socket| socket.listen).unwrap(), ":2575");
    let destination = &config.destinations[0];
    assert_eq!((destination.timeout.as_secs(), destination.concurrency), (30, 8));
    assert_eq!((destination.rate, destination.repeat, &destination.windows), (None, None, &None));
    assert_eq!((destination.pauses, destination.paused), (Pauses::default(), false));
}

#[test]
fn everything_can_be_said() {
    let config = parse(
        "environment = 'live'\nzone = 'Europe/Dublin'\njournal.path = 'j'\n\
         [admin]\nlisten = '127.0.0.1:1'\nhosts = ['tie.example']\n\
         [limits]\noutput = '2MB'\nmapping_time = '500ms'\nmapping_operations = 10\n\
         [listener.h]\nkind = 'mllp'\ncharset = 'iso-8859-1'\nunmatched = 'reject'\nlisten = 'x'\n\
         duplicates = '36h'\n[listener.i]\nkind = 'mllp'\nlisten = 'y'\nduplicates = 'off'\n\
         [patient]\nidentifiers = ['MR', 'NHS']\ntest_numbers = []\n\
         [destination.d]\nkind = 'fhir'\nurl = 'x'\ntimeout = '5s'\nconcurrency = 1\nrate = '600/m'\n\
         repeat = 'hold'\npaused = true\ncircuit = { longest = '2m' }\n\
         windows = [{ days = ['sat', 'sun'], from = '22:00', to = '06:00' }, { from = '12:00', to = '13:00' }]\n",
    )
    .unwrap();
    let destination = &config.destinations[0];
    assert_eq!(destination.rate.map(|rate| rate.to_string()).as_deref(), Some("600/m"));
    assert_eq!((destination.repeat, destination.paused), (Some(Repeat::Hold), true));
    let longest = Duration::from_secs(120);
    assert_eq!(destination.pauses, Pauses { longest, ..Pauses::default() });
    let windows = destination.windows.as_ref().unwrap();
    let inside = |now: &str| windows.inside(now.parse().unwrap()).is_some();
    assert!(inside("2026-07-05T04:00:00Z") && !inside("2026-07-05T05:30:00Z"), "in the zone of the instance");
    assert!(inside("2026-07-07T11:30:00Z"), "every day");
    assert_eq!(config.listeners[0].duplicates, Some(Duration::from_secs(36 * 3600)));
    assert_eq!(config.listeners[1].duplicates, None);
    assert_eq!(config.patients.identifiers, ["MR", "NHS"]);
    assert!(config.patients.test_numbers.is_empty());
    assert_eq!(config.environment.word(), "live");
    assert_eq!(config.limits.mapping_time, Duration::from_millis(500));
    assert_eq!(config.listeners[0].unmatched, Unmatched::Reject);
    assert_eq!(config.destinations[0].concurrency, 1);
}

#[test]
fn the_journal_is_in_a_directory_or_in_a_database() {
    let config = parse("environment = 'test'\n[journal.postgres]\nhost = 'db'\n").unwrap();
    let Location::Postgres(settings) = config.journal.location else {
        panic!("{:?}", config.journal.location)
    };
    assert_eq!((settings.host.as_str(), settings.port), ("db", 5432));
    assert_eq!((settings.database.as_str(), settings.user.as_str(), settings.password), ("tie", "tie", None));
    assert_eq!(settings.sslmode, SslMode::VerifyFull, "an unprotected connection must be asked for");
    let config = parse(
        "environment = 'test'\n[journal]\npostgres = { host = '/run/postgresql', port = 5433, database = 'd', \
         user = 'u', password = { env = 'P' }, sslmode = 'verify-ca', ca = 'db.pem' }\n",
    )
    .unwrap();
    let Location::Postgres(settings) = config.journal.location.below(Path::new("/etc/tie")) else {
        panic!("a directory")
    };
    assert_eq!(settings.password, Some(SecretRef::Env("P".to_owned())));
    assert_eq!((settings.sslmode, settings.ca), (SslMode::VerifyCa, Some("/etc/tie/db.pem".into())));
    check(
        "environment = 'test'\n[journal]\n",
        expect!["tie.toml:2:1: the journal is either in a directory (`path`) or in a database (`postgres`)"],
    );
    check(
        "environment = 'test'\n[journal]\npath = 'j'\npostgres = { host = 'db' }\n",
        expect!["tie.toml:2:1: the journal is either in a directory (`path`) or in a database (`postgres`)"],
    );
    check(
        "environment = 'test'\n[journal]\nreserve = '1MB'\npostgres = { host = 'db' }\n",
        expect!["tie.toml:2:1: `reserve` is for a directory: the disk of a database is not seen from here"],
    );
    check(
        "environment = 'test'\n[journal]\npostgres = { hots = 'db', password = 'secret', sslmode = 'prefer' }\n",
        expect![[r#"
            tie.toml:3:14: unknown key `hots` (did you mean `host`?)
            tie.toml:3:38: unknown value `secret` (known are `env`, `file`)
            tie.toml:3:58: unknown value `prefer` (known are `disable`, `require`, `verify-ca`, `verify-full`)
            tie.toml:3:12: the key `host` is missing"#]],
    );
}

#[test]
fn every_slip_of_the_pen_is_told_with_its_place() {
    check(
        "enviroment = 'test'\nzone = 'Europe/Lundon'\n[jurnal]\npath = 'j'\n[admin]\nlisten = 'everywhere'\n[limits]\noutput = 5\nmessage = '1MB'\n[listner.x]\nkind = 'mllp'\n",
        expect![[r#"
            tie.toml:1:1: unknown key `enviroment` (did you mean `environment`?)
            tie.toml:3:2: unknown key `jurnal` (did you mean `journal`?)
            tie.toml:6:10: invalid socket address syntax
            tie.toml:8:10: expected a size such as "64kB" or "16MB", found integer `5`
            tie.toml:9:1: unknown key `message` (known are `destination`, `listener`, `mapping_operations`, `mapping_time`, `output`, `unstored`)
            tie.toml:10:2: unknown key `listner` (did you mean `listener`?)
            tie.toml:1:1: the key `environment` is missing"#]],
    );
    check(
        &format!("environment = 'testing'\nzone = 'Europe/Lundon'\n{}", "[journal]\npath = 1\n"),
        expect![[r#"
            tie.toml:1:15: unknown value `testing` (known are `live`, `test`, `training`)
            tie.toml:4:8: expected path string, found integer `1`"#]],
    );
    check(
        "zone = 'Europe/Lundon'\nenvironment = 'test'\njournal.path = 'x'\n",
        expect!["tie.toml:1:8: unknown time zone `Europe/Lundon` (did you mean `Europe/London`?)"],
    );
}

#[test]
fn windows_and_patients_are_checked() {
    check(
        &format!(
            "{SMALL}[patient]\nidentifiers = []\ntest_numbers = ['9x9']\n\
             [listener.a]\nkind = 'mllp'\nduplicates = '5s'\n[listener.b]\nkind = 'mllp'\nduplicates = 'never'\n"
        ),
        expect![[r#"
            tie.toml:9:14: `5s` is no window for repeats (a length of time from "1m" to "31d", or "off")
            tie.toml:12:14: `never` is no window for repeats (a length of time from "1m" to "31d", or "off")
            tie.toml:5:15: `identifiers` must name types such as `NHS` and `MR`, in capital letters
            tie.toml:6:16: `test_numbers` must be digits, such as "999""#]],
    );
}

#[test]
fn a_name_that_no_index_holds_is_refused() {
    let (most, more) = ("n".repeat(100), "n".repeat(101));
    check(
        &format!("{SMALL}[destination.{most}]\nkind = 'fhir'\n[destination.{more}]\nkind = 'fhir'\n"),
        expect!["tie.toml:6:14: the name of the destination has 101 bytes: 100 at most"],
    );
}

#[test]
fn listeners_and_destinations_are_checked() {
    check(
        &format!(
            "{SMALL}\
             [listener.Hospital]\nkind = 'mlp'\n\
             [listener.b]\nkind = 'fhir'\ncharset = 'latin-9000'\n\
             [listener.c]\nunmatched = 'ignore'\n\
             [destination.d]\nkind = 'ftp'\ntimeout = '0s'\nconcurrency = 0\n\
             [destination]\ne = 5\n"
        ),
        expect![[r#"
            tie.toml:4:11: `Hospital` is no name for a listener (lower-case letters, digits, `-` and `_`)
            tie.toml:5:8: unknown kind of listener `mlp` (did you mean `mllp`?)
            tie.toml:7:8: `fhir` cannot be a listener
            tie.toml:8:11: unknown character set `latin-9000`
            tie.toml:10:13: unknown value `ignore` (known are `accept`, `error`, `reject`)
            tie.toml:9:1: the key `kind` is missing
            tie.toml:12:8: unknown kind of destination `ftp` (known are fhir)
            tie.toml:11:1: `timeout` must be longer than nothing
            tie.toml:11:1: `concurrency` must be from 1 to 1024
            tie.toml:16:5: expected a table [destination.e]"#]],
    );
    check(
        &format!("listener = 5\n{SMALL}"),
        expect!["tie.toml:1:12: expected tables such as [listener.name]"],
    );
}

#[test]
fn what_a_destination_is_given_is_checked() {
    check(
        &format!(
            "{SMALL}\
             [destination.d]\nkind = 'fhir'\nurl = 'x'\nrate = '50'\n\
             [destination.e]\nkind = 'fhir'\nurl = 'x'\ncircuit = {{ first = '1m' }}\n\
             windows = [{{ from = '2:00', to = '04:00' }}]\n\
             [destination.f]\nkind = 'fhir'\nurl = 'x'\nwindows = [{{ days = ['sunday'], from = '02:00', to = '04:00' }}]\n"
        ),
        expect![[r#"
            tie.toml:7:8: expected a rate such as "50/s", "600/m" or "1000/h", found string "50"
            tie.toml:12:12: `2:00` is no time of the day such as 02:30
            tie.toml:11:11: `circuit` needs pauses longer than nothing, and `first` not longer than `longest`
            tie.toml:16:22: unknown value `sunday` (known are `fri`, `mon`, `sat`, `sun`, `thu`, `tue`, `wed`)"#]],
    );
}

#[test]
fn a_connector_tells_its_own_faults_with_their_places_and_knows_the_engines_keys() {
    let config = parse(&format!(
        "{SMALL}[listener.a]\nkind = 'mllp'\nlisten = 5\nunmached = 'error'\ntls.certifcate = 'x'\n\n[listener.b]\nkind = 'mllp'\n"
    ))
    .unwrap();
    let plugins = plugins();
    let build = plugins[0].source.as_ref().map(|role| role.build).unwrap();
    let mut printed = String::new();
    for listener in &config.listeners {
        for problem in build(&listener.options).err().unwrap() {
            printed += &format!("{problem}\n");
        }
    }
    printed += &config.listeners[1].options.problem("the port is taken").to_string();
    printed += &format!("\n{}", config.listeners[0].options.problem_at("listen", "no port"));
    expect![[r#"
        tie.toml:6:10: expected a string, found integer `5`
        tie.toml:7:1: unknown key `unmached` (did you mean `unmatched`?)
        tie.toml:8:5: unknown key `certifcate` (did you mean `certificate`?)
        tie.toml:8:1: the key `certificate` is missing
        tie.toml:10:1: the key `listen` is missing
        tie.toml:10:1: the port is taken
        tie.toml:6:10: no port"#]]
    .assert_eq(&printed);
}

#[test]
fn an_example_is_options_too() {
    let options = Options::from_example("[listener.hospital]\nkind = 'mllp'\nlisten = ':2575'\n").unwrap();
    assert_eq!(
        (options.name.as_str(), options.parse::<Socket>().unwrap().listen.as_str()),
        ("hospital", ":2575")
    );
    assert!(Options::from_example("x = 1").is_err());
}

#[test]
fn the_schema_keeps_the_definitions_of_connectors_apart() {
    let schema = schema(&plugins());
    let listener = &schema["properties"]["listener"]["additionalProperties"]["oneOf"][0];
    assert_eq!(listener["properties"]["kind"]["const"], "mllp");
    assert!(listener["properties"]["listen"].is_object() && listener["properties"]["unmatched"].is_object());
    let text = schema.to_string();
    assert!(
        text.contains("\"#/$defs/listener.mllp.Tls\"") && text.contains("\"#/$defs/destination.fhir.Tls\""),
        "{text}"
    );
    assert_eq!(schema["$defs"]["listener.mllp.Tls"]["required"][0], "certificate");
    assert_eq!(schema["$defs"]["destination.fhir.Tls"]["required"][0], "authority");
    for reference in text.split("\"$ref\":\"#/$defs/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schema["$defs"].get(name).is_some(), "{name} is defined");
    }
}

#[test]
fn an_edit_elsewhere_is_no_change_of_a_listener() {
    let config = |text: &str| parse(&format!("{SMALL}{text}")).unwrap().listeners.remove(0);
    let first = config("[listener.a]\nkind = 'mllp'\nlisten = ':1'\n");
    assert_eq!(
        first,
        config("\n# a remark\n[listener.a]\nlisten = \":1\"\nkind = 'mllp'\n[listener.b]\nkind = 'mllp'\n")
    );
    assert_ne!(first, config("[listener.a]\nkind = 'mllp'\nlisten = ':2'\n"));
    assert_ne!(first, config("[listener.a]\nkind = 'mllp'\nlisten = ':1'\nunmatched = 'accept'\n"));
}

#[test]
fn the_admin_address_is_found_in_a_broken_file() {
    assert_eq!(admin_address("[admin]\nlisten = '127.0.0.1:9'\nhots = 5\n[jurnal]\n").port(), 9);
    assert_eq!(admin_address("[admin]\nlisten = 'x'").port(), 8061);
    assert_eq!(admin_address("").port(), 8061);
}
