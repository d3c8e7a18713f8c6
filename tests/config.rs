//! What people see when they configure hookturn: the files that work, and what is said of those that do not.
//!
//! Each file of `tests/config/bad` says in `#!` lines what is to be said of it, problem by problem, in the order of the file.

use std::{fs, path::Path, time::Duration};

use hookturn::{
    config::{Config, ConfigError, Credential, Door, Format, Keystore, Rule, SHIPPED},
    rotation::OnReject,
};
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};

const MINIMAL: &str = include_str!("../config/minimal.toml");

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("/etc/hookturn/hookturn.toml"), text)
}

fn good(text: &str) -> Config {
    parse(text).unwrap_or_else(|e| panic!("{}", rendered(&e)))
}

fn rendered(error: &ConfigError) -> String {
    let mut out = String::new();
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(120);
    handler.render_report(&mut out, error).expect("a report");
    out
}

/// One thing that is to be said.
#[derive(Debug, Default)]
struct Expected<'a> {
    says: &'a str,
    underlines: Option<&'a str>,
    helps: Vec<&'a str>,
}

fn expected(text: &str) -> Vec<Expected<'_>> {
    let mut all: Vec<Expected> = Vec::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("#! ")) {
        let (what, phrase) = line.split_once(": ").expect("`what: phrase`");
        match (what, all.last_mut()) {
            ("says", _) => all.push(Expected { says: phrase, ..Expected::default() }),
            ("underlines", Some(last)) => last.underlines = Some(phrase),
            ("helps", Some(last)) => last.helps.push(phrase),
            _ => panic!("{line}"),
        }
    }
    all
}

#[test]
fn every_bad_file_is_told_what_is_wrong_where_and_what_to_do() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/bad");
    let mut files: Vec<_> = fs::read_dir(directory).expect("the bad files").map(|e| e.expect("an entry").path()).collect();
    files.sort();
    assert!(files.len() >= 20, "the bad files were not found");
    for file in files {
        let text = fs::read_to_string(&file).expect("a file");
        let error = Config::load(&file).expect_err(&file.display().to_string());
        let (expected, report) = (expected(&text), rendered(&error));
        assert_eq!(error.problems().len(), expected.len(), "{report}");
        for (problem, expected) in error.problems().iter().zip(&expected) {
            assert!(problem.message.contains(expected.says), "{:?}\n{report}", expected.says);
            if let Some(underlined) = expected.underlines {
                assert_eq!(error.underlined(problem), Some(underlined), "{report}");
            }
            for help in &expected.helps {
                assert!(problem.help.as_deref().is_some_and(|h| h.contains(help)), "{help:?}\n{report}");
            }
            assert!(report.contains(problem.message.split(' ').next().unwrap_or_default()), "{report}");
        }
    }
}

#[test]
fn the_smallest_file_is_enough_and_means_the_defaults() {
    let config = good(MINIMAL);
    assert_eq!(config.dialnexa.base_url, "https://api.dialnexa.com/v1");
    assert_eq!(config.dialnexa.api_key, Credential::Systemd("dialnexa-api-key".into()));
    assert_eq!(config.store.path, Path::new("/var/lib/hookturn/hookturn.db"));
    assert_eq!(config.store.anchor, Path::new("/var/lib/hookturn/hookturn.db.anchor"));
    assert_eq!(config.store.sealing_key, Credential::Systemd("hookturn-sealing-key".into()));
    assert_eq!(config.listen.deliveries.map(|a| a.to_string()).as_deref(), Some("127.0.0.1:8780"));
    assert_eq!(config.listen.admin.as_deref(), Some(Path::new("/run/hookturn/admin.sock")));
    assert_eq!(config.listen.status.map(|a| a.to_string()).as_deref(), Some("127.0.0.1:8781"));
    assert_eq!(config.listen.max_body, 10 << 20);
    assert!(config.notify.is_none());

    let webhook = config.webhook("billing").expect("the webhook");
    assert_eq!(webhook.schedule.rule, Rule::Never);
    assert_eq!(webhook.schedule.timezone, chrono_tz::UTC);
    assert!(webhook.schedule.window.is_none());
    assert_eq!(webhook.schedule.jitter, Duration::ZERO);
    assert_eq!(webhook.patch_timeout, Duration::from_secs(10));
    let policy = webhook.policy;
    assert_eq!((policy.drain, policy.quarantine, policy.wait), (86_400_000, 900_000, 5_000));
    assert_eq!((policy.repeat_min, policy.repeat_max), (5_000, 21_600_000));
    assert_eq!((policy.min_deliveries, policy.min_span, policy.slots), (1, 0, None));
    assert_eq!((policy.on_reject, policy.unproven), (OnReject::SwitchBack, false));
    assert!(matches!(&webhook.keystore, Keystore::File { format: Format::Json, reload: None, .. }));
    assert_eq!(webhook.verify.sources, [Door::Report, Door::Keystore, Door::Tap]);
    assert_eq!(webhook.preflight.probe, ["http://127.0.0.1:9000/hook"]);
}

#[test]
fn the_shipped_file_says_exactly_the_defaults() {
    let shipped = good(SHIPPED);
    assert!(shipped.webhooks.is_empty());
    let webhook = MINIMAL.split_once("[[webhook]]").expect("the webhook").1;
    let both = good(&format!("{SHIPPED}\n[[webhook]]{webhook}"));
    assert_eq!(format!("{both:?}"), format!("{:?}", good(MINIMAL)), "what it shows is what it leaves out");
}

#[test]
fn every_option_that_the_shipped_file_only_mentions_is_one() {
    // `#` and a key, or a table, of which nothing but the value is shown.
    let is_option = |line: &str| line.starts_with('[') || line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
    let uncommented = |line: &str| {
        let bare = line.trim_start_matches('#').trim_start();
        if line.starts_with('#') && is_option(bare) { bare.to_owned() } else { line.to_owned() }
    };
    let mut text: Vec<String> = SHIPPED.lines().map(uncommented).collect();
    // Alternatives exclude each other: `schedule` stays, and each kind of keystore keeps its own keys.
    text.retain(|line| !["every = \"never\"", "post = ", "replicas = "].iter().any(|other| line.starts_with(other)));
    let config = good(&text.join("\n"));
    assert!(config.notify.is_some() && config.dialnexa.ca_file.is_some());
    let webhook = config.webhook("billing").expect("the sample webhook");
    assert_eq!(webhook.schedule.to_string(), "every 30d, Mon-Thu 09:00-16:00, Europe/Paris, jitter 2h");
    assert!(matches!(&webhook.keystore, Keystore::File { reload: Some(reload), .. } if reload.argv[0] == "systemctl"));
    assert_eq!(webhook.verify.report_token, Some(Credential::File("/etc/hookturn/billing.token".into())));
    assert_eq!(webhook.verify.tap_token, Some(Credential::File("/etc/hookturn/tap.token".into())));
}

#[test]
fn defaults_lie_below_each_webhook_key_by_key() {
    let config = good(
        r#"
        [defaults]
        every = "30d"
        drain = "2h"
        patch = { repeat_min = "1s" }
        keystore = { kind = "file", format = "env", reload = ["./reload", "it"] }
        preflight = { unproven = "accept" }

        [[webhook]]
        name = "a"
        id = "1"
        schedule = "0 10 * * 2"
        patch = { repeat_max = "1h" }
        keystore = { path = "keys/../a.env" }

        [[webhook]]
        name = "b"
        id = "2"
        every = "never"
        drain = "1h"
        keystore = { kind = "exec", command = ["put"], slots = 3 }
        "#,
    );
    let (a, b) = (config.webhook("a").expect("a"), config.webhook("b").expect("b"));
    assert!(matches!(&a.schedule.rule, Rule::Cron(cron) if cron.as_str() == "0 10 * * 2"));
    assert_eq!((a.policy.drain, a.policy.repeat_min, a.policy.repeat_max), (7_200_000, 1_000, 3_600_000));
    assert_eq!(a.policy.slots, Some(2));
    assert!(a.policy.unproven);
    assert_eq!(a.keystore.to_string(), "file /etc/hookturn/a.env");
    assert!(matches!(&a.keystore, Keystore::File { reload: Some(reload), .. }
        if reload.argv == ["/etc/hookturn/reload", "it"] && reload.timeout == Duration::from_secs(10)));
    assert_eq!((&b.schedule.rule, b.policy.drain, b.policy.slots), (&Rule::Never, 3_600_000, Some(3)));
    assert!(matches!(&b.keystore, Keystore::Exec { command, .. } if command.argv == ["put"]));
}

#[test]
fn status_files_of_replicas_are_an_acceptance_proof() {
    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join("hookturn.toml");
    let webhook = "[[webhook]]\nname = \"a\"\nid = \"1\"\nkeystore = { kind = \"file\", path = \"a.json\" }\n";
    fs::write(&file, webhook).expect("write");
    assert!(Config::load(&file).is_err(), "nothing could prove it");

    fs::create_dir(directory.path().join("a.json.status")).expect("directory");
    assert!(Config::load(&file).is_err(), "no replica has reported yet");
    fs::write(directory.path().join("a.json.status/one.json"), "{}").expect("write");
    assert!(Config::load(&file).is_ok());

    let promised = good(&format!("{webhook}preflight = {{ status = true }}"));
    assert!(promised.webhooks[0].preflight.status);
}

#[test]
fn the_identity_is_that_of_what_must_not_move() {
    let identity = |text: &str| {
        let config = good(text);
        config.identity(&config.webhooks[0])
    };
    let original = identity(MINIMAL);
    assert_eq!(original, identity(&MINIMAL.replace("name = \"billing\"", "name = \"other\"\ndrain = \"1h\"")));
    assert_ne!(original, identity(&MINIMAL.replace("whk_", "whk-")));
    assert_ne!(original, identity(&MINIMAL.replace("secrets.json", "other.json")));
    assert_ne!(original, identity(&MINIMAL.replace("[dialnexa]", "[dialnexa]\nbase_url = \"https://x.example\"")));
}

#[test]
fn a_secret_written_into_the_file_is_refused_and_not_repeated() {
    for text in [
        "[dialnexa]\napi_key = \"dnx_live_canary\"\n",
        "[dialnexa]\napi_key = dnx_live_canary\n",
        "[[webhook]]\nsecret = \"whsec_canary\"\n",
        "[[webhook]]\nverify = { report_token = \"tok-canary\" }\n",
        "[dialnexa]\nbase_url = \"https://me:pw-canary@api.dialnexa.com\"\n",
    ] {
        let error = parse(text).expect_err(text);
        for shown in [rendered(&error), error.lines().collect(), format!("{error:?}")] {
            assert!(!shown.contains("canary"), "{shown}");
        }
    }
}

#[test]
fn an_error_reads_well_on_a_terminal_and_in_a_log() {
    let error = parse(&format!("{MINIMAL}schedul = \"0 10 * * 2\"\n")).expect_err("an unknown key");
    let report = rendered(&error);
    for part in ["unknown key `schedul`", "hookturn.toml:9:1", "not known here", "help: did you mean `schedule`?"] {
        assert!(report.contains(part), "{part}\n{report}");
    }
    assert_eq!(error.to_string(), "/etc/hookturn/hookturn.toml:9:1: unknown key `schedul`");

    let two = parse("[store]\nurl = 3\n[listen]\nstatus = \"x\"\n").expect_err("two");
    assert_eq!(two.related().map(Iterator::count), Some(2));
    assert_eq!(two.to_string(), "/etc/hookturn/hookturn.toml: 2 things to correct");
    assert!(two.lines().next().is_some_and(|line| line.starts_with("/etc/hookturn/hookturn.toml:2:7: expected a text")));

    let absent = Config::load(Path::new("/nowhere/hookturn.toml")).expect_err("no file");
    assert!(absent.to_string().contains("/nowhere/hookturn.toml: the configuration cannot be read"), "{absent}");
}
