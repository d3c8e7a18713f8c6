//! Canaries in the place of every credential and secret, the real program through good and bad days, and a hunt for them in
//! everything that it printed, wrote, sent or handed on. The consumer's keystore and `eject` are the only places for a secret.

#[path = "leaks/echo.rs"]
mod echo;
#[path = "leaks/hunt.rs"]
mod hunt;
mod world;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use base64::Engine;
use hookturn::sandbox::provider::{Fault, Injection, Mask, Operation};
use hunt::Hunt;
use tokio::{io::AsyncWriteExt, process::Child};
use world::World;

const API_KEY: &str = "key_canary:Zq8/Wv+Apikey4Lmn?Tr7=Xd2~Yu5";
const ADOPTED: &str = "Adopted/Canary+5hJk=Qw9?Rt2~Bv6";
const FOREIGN: &str = "Foreign/Canary+8sDf=Gh3?Jk1~Lz4";
const REPORT_TOKEN: &str = "report/Canary+2pOi=Uy7?Tr5~Ew3";
const TAP_TOKEN: &str = "tap/Canary+6mNb=Vc4?Xz8~As1Qk";
/// In front of what an exec keystore and a reload program leave for the test; they are given secrets, so these files are not searched.
const GIVEN: &str = "given-";

fn sealing_key() -> String {
    base64::engine::general_purpose::STANDARD.encode(*b"SealingCanary-0123456789-abcdef!")
}

/// A world whose every credential is a canary.
async fn planted(tune: impl FnOnce(&mut hookturn::sandbox::SandboxOptions)) -> (World, Hunt) {
    let world = World::start(|options| {
        let keys = options.dir.join("keys");
        fs::create_dir_all(&keys).expect("a directory");
        fs::write(options.dir.join("api-key"), API_KEY).expect("written");
        fs::write(options.dir.join("report-token"), REPORT_TOKEN).expect("written");
        fs::write(options.dir.join("tap-token"), TAP_TOKEN).expect("written");
        fs::write(options.dir.join("sealing-key"), sealing_key()).expect("written");
        fs::write(keys.join("secrets.json"), keystore(ADOPTED)).expect("written");
        options.mirror = true;
        // Everything is logged: what each delivery adds is the same.
        options.per_second = 4.0;
        options.settings.mask = Mask::Shown;
        options.repeat_min = Duration::from_millis(100);
        tune(options);
    })
    .await;
    let mut hunt = Hunt::default();
    for (name, value) in [
        ("the API key", API_KEY),
        ("the adopted secret", ADOPTED),
        ("the foreign secret", FOREIGN),
        ("the report token", REPORT_TOKEN),
        ("the tap token", TAP_TOKEN),
        ("the sealing key", &sealing_key()),
        ("the sealing key's bytes", "SealingCanary-0123456789-abcdef!"),
    ] {
        hunt.canary(name, value);
    }
    (world, hunt)
}

fn keystore(secret: &str) -> String {
    let key = format!(r#"{{"kid":"k_first","state":"current","secret":"{secret}","secret_encoding":"utf8"}}"#);
    format!(r#"{{"version":1,"generation":1,"keys":[{key}]}}"#)
}

/// What the configuration says gets a token for the tap, and programs.
fn configure(world: &World, change: impl FnOnce(String) -> String) {
    let text = fs::read_to_string(&world.config).expect("a configuration");
    let tap_token = world.sandbox.dir().join("tap-token");
    let text = text.replace("verify = { ", &format!("verify = {{ tap_token = {{ file = {tap_token:?} }}, "));
    let notify =
        program(world, "notify", "cat >> \"$DIR/notified\"; cat /proc/$$/cmdline /proc/$$/environ >> \"$DIR/notify-process\"");
    fs::write(&world.config, change(format!("{text}[notify]\nexec = [{notify:?}]\n"))).expect("written");
}

/// A shell script; `$DIR` is the world's directory.
fn program(world: &World, name: &str, script: &str) -> PathBuf {
    let path = world.dir.path().join(name);
    fs::write(&path, format!("#!/bin/sh\nDIR={:?}\n{script}\n", world.dir.path())).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    path
}

/// A daemon that says everything it can.
fn talkative(world: &World, format: &str) -> Child {
    let log = fs::OpenOptions::new().create(true).append(true).open(world.dir.path().join("daemon.log")).expect("a log");
    let mut command = world.command(&["--log-format", format, "run"]);
    command.env("RUST_LOG", "trace").env("RUST_BACKTRACE", "full").stdout(log.try_clone().expect("a log")).stderr(log);
    command.spawn().expect("a daemon")
}

/// A command that says everything it can, with `stdin`.
async fn ask(world: &World, hunt: &mut Hunt, arguments: &[&str], stdin: &str) -> Output {
    let mut command = world.command(arguments);
    command.env("RUST_LOG", "trace").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program runs");
    let mut input = child.stdin.take().expect("stdin");
    let _ = input.write_all(stdin.as_bytes()).await;
    drop(input);
    let output = child.wait_with_output().await.expect("an end");
    hunt.printed(&format!("hookturn {}", arguments.join(" ")), &output);
    output
}

/// Every way to look, on a good day as on a bad one.
async fn look_everywhere(world: &World, hunt: &mut Hunt) {
    for arguments in [
        &["status"][..],
        &["status", "--json"],
        &["status", "--check"],
        &["explain", "billing"],
        &["explain", "billing", "--json"],
        &["history", "billing"],
        &["history", "billing", "--json"],
        &["plan", "billing"],
        &["check"],
        &["check", "--probe", "billing"],
        &["webhook", "list"],
        &["webhook", "show", "billing", "--json"],
    ] {
        ask(world, hunt, arguments, "").await;
    }
    for path in ["/", "/metrics", "/healthz", "/readyz", "/nowhere"] {
        let answer = echo::get(world.sandbox.status, path).await;
        hunt.place(&format!("the status server's {path}"), &answer);
    }
    for path in ["/report/billing", "/tap/billing", "/report/nobody"] {
        let answer = echo::post(world.sandbox.deliveries, path, &format!("{{\"kid\":\"{FOREIGN}\""), REPORT_TOKEN).await;
        hunt.place(&format!("the door's answer to {path}"), &answer);
    }
}

/// The secrets that hookturn made itself are canaries too: the keystore has them.
fn made(world: &World, hunt: &mut Hunt) {
    let content = fs::read(&world.sandbox.keystore).expect("a keystore");
    let content: serde_json::Value = serde_json::from_slice(&content).expect("JSON");
    for key in content["keys"].as_array().expect("keys") {
        hunt.canary(&format!("the secret of {}", key["kid"]), key["secret"].as_str().expect("a secret"));
    }
}

/// Everything in the world's directory but the places where a secret belongs.
fn search(world: &World, mut hunt: Hunt) {
    let keystore = world.sandbox.keystore.clone();
    let own = world.sandbox.dir().to_owned();
    let belongs = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        path == keystore
            || name.starts_with(GIVEN)
            || (path.parent() == Some(&own)
                && ["api-key", "report-token", "tap-token", "sealing-key", "initial-secret"].contains(&name.as_str()))
    };
    let files = hunt.files(world.dir.path(), &belongs);
    for wanted in ["hookturn.db", "hookturn.db.anchor", "daemon.log"] {
        assert!(files.iter().any(|file| file.ends_with(wanted)), "{wanted} was not searched: {files:?}");
    }
    hunt.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_leaks_on_good_days() {
    let (world, mut hunt) = planted(|_| {}).await;
    configure(&world, |text| text);
    let mut daemon = talkative(&world, "human");
    world.ready().await;
    look_everywhere(&world, &mut hunt).await;
    // A typing error, then the right one.
    let typo = ask(&world, &mut hunt, &["adopt", "billing"], &ADOPTED.replace('9', "8")).await;
    assert_eq!(typo.status.code(), Some(1));
    hunt.canary("the mistyped secret", &ADOPTED.replace('9', "8"));
    assert!(ask(&world, &mut hunt, &["adopt", "billing", "--json"], ADOPTED).await.status.success());
    world.until("confirmed", Duration::from_secs(30), |status| status["confirmed"] == true).await;
    for _ in 0..2 {
        let done = ask(&world, &mut hunt, &["rotate-now", "billing", "--until", "verified", "--timeout", "60s"], "").await;
        assert!(done.status.success(), "{}\n{}", world::said(&done), world.log());
        made(&world, &mut hunt);
        look_everywhere(&world, &mut hunt).await;
        let done =
            ask(&world, &mut hunt, &["rotate-now", "billing", "--until", "retired", "--json", "--timeout", "60s"], "").await;
        assert!(done.status.success(), "{}", world::said(&done));
        made(&world, &mut hunt);
    }
    // The one command that hands a secret out; its words are not searched, all that it leaves behind is.
    let ejected = world.run(&["eject", "billing"]).await;
    let current = fs::read_to_string(&world.sandbox.keystore).expect("a keystore");
    let handed = String::from_utf8_lossy(&ejected.stdout).trim().rsplit(' ').next().unwrap_or_default().to_owned();
    assert!(handed.starts_with("whsec_") && current.contains(&handed), "{}", world::said(&ejected));
    look_everywhere(&world, &mut hunt).await;
    hunt.process("the daemon", daemon.id().expect("it runs"));
    // The write-ahead log is searched as it is after a kill, too.
    daemon.kill().await.expect("killed");
    search(&world, hunt);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_leaks_when_everything_goes_wrong() {
    let (world, mut hunt) = planted(|_| {}).await;
    // What it is given it repeats, in its trouble.
    let reload = program(
        &world,
        "reload",
        &format!(
            "cat /proc/$$/cmdline /proc/$$/environ >> \"$DIR/reload-process\"\n\
             tr -d '\\n ' < {:?} | sed 's/.*\"secret\":\"//' >&2\n[ -e \"$DIR/well\" ]",
            world.sandbox.keystore
        ),
    );
    let path = format!("{:?} }}", world.sandbox.keystore.display().to_string());
    configure(&world, |text| text.replace(&path, &format!("{:?}, reload = [{reload:?}] }}", world.sandbox.keystore)));
    let config = fs::read_to_string(&world.config).expect("a configuration");
    assert!(config.contains("reload = "), "{config}");
    let mut daemon = talkative(&world, "json");
    world.ready().await;
    assert!(ask(&world, &mut hunt, &["adopt", "billing"], ADOPTED).await.status.success());
    // The reload fails with the keystore in its mouth.
    let held = ask(&world, &mut hunt, &["rotate-now", "billing", "--unconfirmed", "--timeout", "2s"], "").await;
    assert_ne!(held.status.code(), Some(0));
    made(&world, &mut hunt);
    let told = world.status().await;
    assert!(told.to_string().contains("redacted"), "the program's words were not even told: {told:#}");
    look_everywhere(&world, &mut hunt).await;
    fs::write(world.dir.path().join("well"), "").expect("written");
    // DialNexa answers with nonsense, with errors, and then refuses the key. No delivery ends it before that.
    let handle = world.sandbox.handle();
    handle.traffic_on(&world.sandbox.webhook_id, false);
    for fault in [Fault::Garbage, Fault::ErrorAfterApply, Fault::SecretTruncated { bytes: 20 }, Fault::Unauthorized] {
        handle.inject(Injection::once(fault).on(Operation::Patch));
    }
    world.until("a hold", Duration::from_secs(60), |status| status["phase"] == "hold").await;
    look_everywhere(&world, &mut hunt).await;
    ask(&world, &mut hunt, &["resume", "billing"], "").await;
    // A stranger's secret by hand, then half a file.
    let content = fs::read_to_string(&world.sandbox.keystore).expect("a keystore");
    let mut foreign: serde_json::Value = serde_json::from_str(&content).expect("JSON");
    foreign["generation"] = (foreign["generation"].as_u64().unwrap_or(1) + 7).into();
    let stranger = serde_json::json!({"kid": "k_stranger", "state": "current", "secret": FOREIGN, "secret_encoding": "utf8"});
    foreign["keys"].as_array_mut().expect("keys").push(stranger);
    fs::write(&world.sandbox.keystore, foreign.to_string()).expect("written");
    look_everywhere(&world, &mut hunt).await;
    ask(&world, &mut hunt, &["rollback", "billing"], "").await;
    fs::write(&world.sandbox.keystore, &content[..content.len() * 2 / 3]).expect("written");
    daemon.kill().await.expect("killed");
    let mut daemon = talkative(&world, "human");
    world.ready().await;
    look_everywhere(&world, &mut hunt).await;
    fs::write(&world.sandbox.keystore, &content).expect("written");
    // Wrong credentials.
    daemon.kill().await.expect("killed");
    let own = world.sandbox.dir();
    fs::write(own.join("sealing-key"), base64::engine::general_purpose::STANDARD.encode([7u8; 32])).expect("written");
    let wrong = ask(&world, &mut hunt, &["run"], "").await;
    assert_eq!(wrong.status.code(), Some(1), "{}", world::said(&wrong));
    fs::write(own.join("sealing-key"), format!("{}{FOREIGN}", sealing_key())).expect("written");
    ask(&world, &mut hunt, &["run"], "").await;
    fs::write(own.join("api-key"), format!("{API_KEY}\n{FOREIGN}")).expect("written");
    ask(&world, &mut hunt, &["webhook", "list"], "").await;
    search(&world, hunt);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_leaks_through_what_others_repeat() {
    let (world, mut hunt) = planted(|_| {}).await;
    let parrot = echo::Parrot::start(&world.sandbox.webhook_id).await;
    // A keystore program that repeats on stderr what it was given, and leaves it for the test.
    let put = program(
        &world,
        "put",
        "IN=$(cat)\ncat /proc/$$/cmdline /proc/$$/environ >> \"$DIR/put-process\"\n\
         case $IN in *read*) cat \"$DIR/given-answer\" 2>/dev/null; exit 0;; esac\n\
         printf '%s\\n' \"$IN\" >> \"$DIR/given-writes\"\n\
         [ -e \"$DIR/well\" ] || { printf '%s\\n' \"$IN\" >&2; exit 4; }\n\
         printf '%s' \"$IN\" | sed -E 's/.*\"generation\":([0-9]+),.*/\\1/' > \"$DIR/given-generation\"\n\
         KIDS=$(printf '%s' \"$IN\" | grep -o '\"kid\":\"[^\"]*\"' | sed 's/\"kid\"://' | paste -sd,)\n\
         printf '{\"generation\":%s,\"kids\":[%s]}' \"$(cat \"$DIR/given-generation\")\" \"$KIDS\" | tee \"$DIR/given-answer\"",
    );
    configure(&world, |text| {
        let keystore = format!("keystore = {{ kind = \"exec\", command = [{put:?}] }}");
        let lines = text.lines().map(|line| match line {
            line if line.starts_with("keystore = ") => keystore.clone(),
            line if line.starts_with("base_url = ") => format!("base_url = \"http://{}/v1\"", parrot.address),
            line if line.starts_with("preflight = ") => "preflight = { unproven = \"accept\", wait = \"0s\" }".to_owned(),
            line => line.to_owned(),
        });
        lines.collect::<Vec<_>>().join("\n")
    });
    let mut daemon = talkative(&world, "human");
    world.ready().await;
    assert!(ask(&world, &mut hunt, &["adopt", "billing"], ADOPTED).await.status.success());
    world.until("trouble", Duration::from_secs(30), |status| status["keystore_trouble"].is_string()).await;
    look_everywhere(&world, &mut hunt).await;
    fs::write(world.dir.path().join("well"), "").expect("written");
    let held = ask(&world, &mut hunt, &["rotate-now", "billing", "--unconfirmed", "--timeout", "60s"], "").await;
    assert_eq!(held.status.code(), Some(1), "{}\n{}", world::said(&held), world.log());
    assert!(parrot.sent() >= 6, "the parrot has said too little: {}", parrot.sent());
    let given = fs::read_to_string(world.dir.path().join("given-writes")).expect("writes");
    for line in given.lines() {
        let request: serde_json::Value = serde_json::from_str(line).expect("JSON");
        for key in request["keys"].as_array().expect("keys") {
            hunt.canary(&format!("the secret of {}", key["kid"]), key["secret"].as_str().expect("a secret"));
        }
    }
    look_everywhere(&world, &mut hunt).await;
    daemon.kill().await.expect("killed");
    search(&world, hunt);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_leaks_from_a_configuration_that_holds_a_secret_by_mistake() {
    let (world, mut hunt) = planted(|_| {}).await;
    let text = fs::read_to_string(&world.config).expect("a configuration");
    let api_key = text.lines().find(|line| line.starts_with("api_key")).expect("a key").to_owned();
    let token = text.lines().find(|line| line.starts_with("verify")).expect("a token").to_owned();
    for (line, wrong) in [
        (&api_key, format!("api_key = \"{API_KEY}\"")),
        (&api_key, format!("api_key = {{ value = \"{API_KEY}\" }}")),
        (&api_key, format!("api_key = {{ file = \"api-key\", secret = \"{API_KEY}\" }}")),
        (&api_key, format!("api_key = \"{API_KEY}")),
        (&api_key, format!("{api_key}\nsecret = \"{ADOPTED}\"")),
        (&token, format!("verify = {{ report_token = \"{REPORT_TOKEN}\" }}")),
        (&token, format!("{token}\n[[webhook]]\nname = \"other\"\nsecret = \"\"\"{ADOPTED}\"\"\"")),
        (&token, format!("{token}\ncurrent_secret = ['{ADOPTED}', '{FOREIGN}']")),
    ] {
        fs::write(&world.config, text.replace(line.as_str(), &wrong)).expect("written");
        for arguments in [&["check"][..], &["run"], &["status", "--json"]] {
            let said = ask(&world, &mut hunt, arguments, "").await;
            assert_eq!(said.status.code(), Some(78), "{wrong}: {}", world::said(&said));
        }
        fs::remove_file(&world.config).expect("removed");
    }
    hunt.end();
}
