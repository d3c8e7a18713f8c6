//! The program as a person and a monitor meet it: arguments, exit codes, files; then the control socket; then everything.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

#[path = "cli/control.rs"]
mod control;
#[path = "cli/whole.rs"]
mod whole;

/// The program, with nothing of the environment that would change what it does.
fn hookturn_command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookturn"));
    command.args(args);
    for variable in ["HOOKTURN_CONFIG", "CREDENTIALS_DIRECTORY", "RUST_LOG", "NOTIFY_SOCKET", "WATCHDOG_USEC"] {
        command.env_remove(variable);
    }
    command
}

fn hookturn(args: &[&str]) -> Output {
    hookturn_command(args).output().expect("the program runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A configuration in `dir` with one webhook, `billing`, and files for its credentials.
fn configured(dir: &Path) -> String {
    let file = dir.join("hookturn.toml");
    let text = format!(
        "[dialnexa]\nbase_url = \"http://127.0.0.1:9/v1\"\napi_key = {{ file = \"api-key\" }}\n\
         [store]\nurl = \"sqlite:{0}/store/hookturn.db\"\nsealing_key = {{ file = \"sealing-key\" }}\n\
         [listen]\nadmin = \"unix:{0}/run/admin.sock\"\ndeliveries = \"127.0.0.1:0\"\nstatus = \"off\"\n\
         [[webhook]]\nname = \"billing\"\nid = \"whk_1\"\nkeystore = {{ kind = \"file\", path = \"keys/secrets.json\" }}\n\
         preflight = {{ probe = [\"http://127.0.0.1:9/hook\"] }}\n",
        dir.display()
    );
    fs::write(&file, text).expect("configuration");
    fs::create_dir(dir.join("keys")).expect("directory");
    fs::write(dir.join("api-key"), "dnx_test_key\n").expect("key");
    fs::set_permissions(dir.join("api-key"), fs::Permissions::from_mode(0o600)).expect("chmod");
    file.display().to_string()
}

#[test]
fn a_wrong_usage_exits_64_and_help_0() {
    for args in [&["rotate"][..], &["status", "--nope"], &["rotate-now"], &["rotate-now", "x", "--timeout", "soon"], &[]] {
        assert_eq!(hookturn(args).status.code(), Some(64), "{args:?}");
    }
    let both = hookturn(&["adopt", "billing", "--unknown", "--from-keystore"]);
    assert_eq!(both.status.code(), Some(64));
    for args in [&["--help"][..], &["--version"], &["rotate-now", "--help"]] {
        let output = hookturn(args);
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{args:?}");
    }
}

#[test]
fn help_lists_every_command() {
    let help = stdout(&hookturn(&["--help"]));
    for command in [
        "run",
        "rotate-now",
        "status",
        "explain",
        "history",
        "plan",
        "check",
        "adopt",
        "pause",
        "resume",
        "abort",
        "rollback",
        "supersede",
        "init",
        "keygen",
        "webhook",
        "drill",
        "completions",
    ] {
        assert!(help.lines().any(|line| line.trim_start().starts_with(&format!("{command} "))), "{command} not in\n{help}");
    }
    assert!(help.contains("Exit codes"), "{help}");
}

#[test]
fn a_wrong_configuration_exits_78_and_names_the_place() {
    let dir = tempfile::tempdir().expect("directory");
    let file = configured(dir.path());
    let text = fs::read_to_string(&file).expect("read").replace("[[webhook]]\n", "[[webhook]]\nevry = \"30d\"\n");
    let line = text.lines().position(|line| line.starts_with("evry")).expect("line") + 1;
    fs::write(&file, text).expect("write");
    for command in [&["check"][..], &["status"], &["run"], &["rotate-now", "billing"]] {
        let output = hookturn(&[&["-c", &file], command].concat());
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(78), "{command:?}: {told}");
        assert!(told.contains(&format!("{file}:{line}:1")) && told.contains("`every`"), "{told}");
    }
    let missing = hookturn(&["-c", "/nowhere/hookturn.toml", "status"]);
    assert_eq!(missing.status.code(), Some(78));
    assert!(stderr(&missing).contains("hookturn init"), "{}", stderr(&missing));
}

#[test]
fn a_webhook_that_is_not_configured_is_a_wrong_usage_that_names_those_that_are() {
    let dir = tempfile::tempdir().expect("directory");
    let file = configured(dir.path());
    let output = hookturn(&["-c", &file, "rotate-now", "biling"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("it has billing"), "{}", stderr(&output));
}

#[test]
fn a_missing_credential_prints_the_line_that_would_have_it() {
    let dir = tempfile::tempdir().expect("directory");
    let file = configured(dir.path());
    let text = fs::read_to_string(&file).expect("read");
    fs::write(&file, text.replace("{ file = \"api-key\" }", "{ credential = \"dialnexa-api-key\" }")).expect("write");
    let output = hookturn(&["-c", &file, "rotate-now", "billing"]);
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(78), "{told}");
    let load = format!("-p LoadCredential=dialnexa-api-key:{}/dialnexa-api-key", dir.path().display());
    assert!(told.contains("systemd-run --pipe --wait") && told.contains(&load) && told.contains("rotate-now billing"), "{told}");
    assert!(!dir.path().join("store").exists(), "nothing was touched");
}

#[test]
fn keygen_makes_keys_that_differ_and_never_overwrites_one() {
    let (one, other) = (stdout(&hookturn(&["keygen"])), stdout(&hookturn(&["keygen"])));
    assert_eq!(one.trim_end().len(), 44);
    assert_ne!(one, other);
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("key");
    let file = path.display().to_string();
    assert_eq!(hookturn(&["keygen", &file]).status.code(), Some(0));
    let first = fs::read_to_string(&path).expect("key");
    assert_eq!(fs::metadata(&path).expect("meta").permissions().mode() & 0o777, 0o600);
    let again = hookturn(&["keygen", &file]);
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("never overwritten"));
    assert_eq!(fs::read_to_string(&path).expect("key"), first);
}

#[test]
fn completions_survive_a_reader_that_goes_away() {
    assert!(stdout(&hookturn(&["completions", "bash"])).contains("rotate-now"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_hookturn"))
        .args(["completions", "zsh"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the program runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("end");
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()));
}

#[test]
fn init_writes_a_configuration_that_check_takes_and_never_writes_over_it() {
    let dir = tempfile::tempdir().expect("directory");
    let at = dir.path().display().to_string();
    let keys = format!("{at}/keys/secrets.json");
    let store = format!("{at}/store/hookturn.db");
    fs::create_dir(dir.path().join("keys")).expect("directory");
    fs::write(dir.path().join("dialnexa-api-key"), "dnx_test_key").expect("key");
    let args = [
        "init",
        "--dir",
        &at,
        "--webhook-id",
        "whk_1",
        "--name",
        "billing",
        "--keystore",
        &keys,
        "--store",
        &store,
        "--offline",
        "--yes",
    ];
    let output = hookturn(&args);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let file = format!("{at}/hookturn.toml");
    let written = fs::read_to_string(&file).expect("written");
    assert!(!written.contains("dnx_test_key"));
    hookturn::config::Config::load(Path::new(&file)).expect("a sound configuration");
    let checked = stdout(&hookturn(&["-c", &file, "check", "--offline"]));
    assert!(checked.contains("store.sealing_key: file") && !checked.contains("not 32 bytes"), "{checked}");

    let again = hookturn(&args);
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("never overwritten"));
    assert_eq!(fs::read_to_string(&file).expect("read"), written);
}

#[test]
fn check_names_each_problem_and_reports_the_configuration_before_the_network() {
    let dir = tempfile::tempdir().expect("directory");
    let file = configured(dir.path());
    let output = hookturn(&["-c", &file, "check"]);
    let told = stdout(&output);
    assert_eq!(output.status.code(), Some(78), "{told}");
    assert!(told.contains("PROBLEM  store.sealing_key: file") && told.contains("no such file"), "{told}");
    assert!(told.contains("unreachable"), "{told}");

    assert_eq!(hookturn(&["keygen", &dir.path().join("sealing-key").display().to_string()]).status.code(), Some(0));
    let output = hookturn(&["-c", &file, "check", "--json"]);
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("json");
    let problems: Vec<_> = told["findings"].as_array().expect("list").iter().filter(|line| line["kind"] == "PROBLEM").collect();
    assert_eq!(output.status.code(), Some(69), "{problems:?}");
}

/// [`hookturn`], while this process has a server to run.
async fn commanded(file: &str, args: &[&str]) -> Output {
    let args: Vec<String> = ["-c", file].iter().chain(args).map(|arg| (*arg).to_owned()).collect();
    let run = move || hookturn(&args.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(run).await.expect("command")
}
