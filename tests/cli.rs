//! The program as a person and a monitor meet it: arguments, exit codes, and the control socket.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use hookturn::{
    admin::{http::serve_status, remote::Remote, socket},
    daemon::{AdoptedSecret, Failure, Office, Reply, Request, Status, Story},
};
use tokio_util::sync::CancellationToken;

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

/// Answers as told, and remembers what it was asked.
#[derive(Default)]
struct FakeOffice {
    statuses: Mutex<Vec<Status>>,
    asked: Mutex<Vec<String>>,
}

#[async_trait]
impl Office for FakeOffice {
    async fn status(&self) -> Result<Vec<Status>, Failure> {
        Ok(self.statuses.lock().expect("statuses").clone())
    }

    async fn perform(&self, webhook: &str, request: Request, actor: &str) -> Result<Reply, Failure> {
        let what = match request {
            Request::Adopt { secret: AdoptedSecret::Given(secret) } => format!("adopt {} characters", secret.len()),
            Request::Rotate { compromised, unconfirmed } => format!("rotate {compromised} {unconfirmed}"),
            Request::Abort => return Err(Failure { exit: 1, text: "it was sent already".into() }),
            _ => "other".into(),
        };
        self.asked.lock().expect("asked").push(format!("{webhook}: {what} by {actor}"));
        Ok(Reply { text: "done as asked".into(), rotation: Some(4), joined: false })
    }

    async fn story(&self, _webhook: &str, _limit: u32) -> Result<Story, Failure> {
        Ok(Story::default())
    }
}

/// A daemon's control socket where the configuration in `dir` says, for as long as the token lives.
fn daemon(dir: &Path, office: Arc<FakeOffice>) -> CancellationToken {
    let listener = socket::bind(&dir.join("run/admin.sock")).expect("bind");
    let shutdown = CancellationToken::new();
    tokio::spawn(socket::serve(listener, office, shutdown.clone()));
    shutdown
}

fn in_phase(phase: &str, completed: u64) -> Status {
    Status { name: "billing".into(), phase: phase.into(), adopted: true, rotation: 4, completed, ..Status::default() }
}

async fn commanded(file: &str, args: &[&str]) -> Output {
    let args: Vec<String> = ["-c", file].iter().chain(args).map(|arg| (*arg).to_owned()).collect();
    let run = move || hookturn(&args.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(run).await.expect("command")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_through_the_socket_arrives_with_the_name_of_who_asked() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("run/admin.sock");
    assert!(Remote::connect(&path).await.expect("no error").is_none(), "nobody listens yet");
    let office = Arc::new(FakeOffice::default());
    *office.statuses.lock().expect("statuses") = vec![in_phase("drain", 3)];
    let shutdown = daemon(dir.path(), office.clone());
    assert_eq!(fs::metadata(&path).expect("socket").permissions().mode() & 0o777, 0o660);
    assert!(socket::bind(&path).is_err(), "a live socket is not replaced");

    let remote = Remote::connect(&path).await.expect("no error").expect("a daemon");
    assert_eq!(remote.status().await.expect("status"), vec![in_phase("drain", 3)]);
    assert_eq!(remote.story("billing", 5).await.expect("story"), Story::default());
    let reply = remote.perform("billing", Request::Rotate { compromised: true, unconfirmed: false }, "ignored").await;
    assert_eq!(reply.expect("reply").rotation, Some(4));
    let given = Request::Adopt { secret: AdoptedSecret::Given("whsec_x".into()) };
    remote.perform("billing", given, "ignored").await.expect("reply");
    let refused = remote.perform("billing", Request::Abort, "ignored").await.expect_err("refused");
    assert_eq!(refused, Failure { exit: 1, text: "it was sent already".into() });
    assert_eq!(remote.perform("../x", Request::Pause, "ignored").await.expect_err("no name").exit, 64);

    let me = rustix::process::getuid().as_raw();
    let asked = office.asked.lock().expect("asked").clone();
    let by = format!("by operator uid={me}");
    assert_eq!(asked, [format!("billing: rotate true false {by}"), format!("billing: adopt 7 characters {by}")]);
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_nobody_listens_on_is_replaced_and_another_file_is_not() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("admin.sock");
    drop(socket::bind(&path).expect("bind"));
    assert!(Remote::connect(&path).await.expect("no error").is_none());
    drop(socket::bind(&path).expect("bind again"));
    fs::remove_file(&path).expect("remove");
    fs::write(&path, "precious").expect("write");
    assert_eq!(socket::bind(&path).expect_err("not a socket").kind(), std::io::ErrorKind::AddrInUse);
    assert_eq!(fs::read_to_string(&path).expect("kept"), "precious");
}

#[tokio::test(flavor = "multi_thread")]
async fn rotate_now_ends_with_the_exit_code_of_what_was_reached() {
    let dir = tempfile::tempdir().expect("directory");
    let file = configured(dir.path());
    let office = Arc::new(FakeOffice::default());
    let shutdown = daemon(dir.path(), office.clone());
    let held = Status {
        hold: Some("api-key-refused".into()),
        detail: Some("DialNexa answers 401".into()),
        ways_out: vec!["hookturn resume billing".into()],
        ..in_phase("hold", 3)
    };
    let waiting =
        Status { diagnosis: Some("no-traffic".into()), detail: Some("no delivery has come".into()), ..in_phase("patch", 3) };
    let cases: [(Status, &[&str], i32, &str); 6] = [
        (in_phase("drain", 3), &[], 0, "goes on in the daemon"),
        (in_phase("idle", 4), &["--until", "retired"], 0, "complete"),
        (held, &[], 1, "hookturn resume billing"),
        (in_phase("idle", 3), &[], 1, "ended without being completed"),
        (waiting, &["--timeout", "1s"], 3, "no-traffic: no delivery has come"),
        (in_phase("drain", 3), &["--json"], 0, "\"reached\":true"),
    ];
    for (status, more, exit, text) in cases {
        *office.statuses.lock().expect("statuses") = vec![status];
        let output = commanded(&file, &[&["rotate-now", "billing"], more].concat()).await;
        let told = stdout(&output);
        assert_eq!(output.status.code(), Some(exit), "{told}{}", stderr(&output));
        assert!(told.contains(text), "{text} not in {told}");
    }
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_hears_of_what_needs_a_person_before_what_waits_long() {
    let dir = tempfile::tempdir().expect("directory");
    let file = configured(dir.path());
    let office = Arc::new(FakeOffice::default());
    let shutdown = daemon(dir.path(), office.clone());
    let held = Status { hold: Some("restored".into()), ..in_phase("hold", 3) };
    let long = Status { overdue: true, ..in_phase("patch", 3) };
    for (statuses, exit) in [(vec![in_phase("idle", 4)], 0), (vec![long.clone()], 3), (vec![long, held], 1)] {
        *office.statuses.lock().expect("statuses") = statuses;
        assert_eq!(commanded(&file, &["status", "--check"]).await.status.code(), Some(exit));
        assert_eq!(commanded(&file, &["status"]).await.status.code(), Some(0));
    }
    let json = commanded(&file, &["status", "--json"]).await;
    let statuses: Vec<Status> = serde_json::from_slice(&json.stdout).expect("json");
    assert_eq!(statuses, *office.statuses.lock().expect("statuses"));
    let refused = commanded(&file, &["abort", "billing"]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("it was sent already"));
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_server_answers_monitors_and_people() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let office = Arc::new(FakeOffice::default());
    *office.statuses.lock().expect("statuses") =
        vec![Status { keystore_trouble: Some("<b>no space</b>".into()), ..in_phase("push", 3) }];
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let shutdown = CancellationToken::new();
    tokio::spawn(serve_status(listener, office, shutdown.clone()));
    let get = |path: &str| {
        let address = format!("{address}");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let mut stream = tokio::net::TcpStream::connect(address).await.expect("connect");
            stream.write_all(request.as_bytes()).await.expect("send");
            let mut text = String::new();
            stream.read_to_string(&mut text).await.expect("read");
            text
        }
    };
    assert!(get("/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(get("/readyz").await.starts_with("HTTP/1.1 503"));
    assert!(get("/metrics").await.contains("hookturn_phase{webhook=\"billing\",phase=\"push\"} 1"));
    let page = get("/").await;
    assert!(page.contains("&lt;b&gt;no space") && page.contains("default-src 'none'"), "{page}");
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_stops_watching_is_told_that_the_rotation_goes_on() {
    let dir = tempfile::tempdir().expect("directory");
    let file = configured(dir.path());
    let office = Arc::new(FakeOffice::default());
    *office.statuses.lock().expect("statuses") = vec![in_phase("patch", 3)];
    let shutdown = daemon(dir.path(), office.clone());
    let mut child = hookturn_command(&["-c", &file, "rotate-now", "billing"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the program runs");
    while office.asked.lock().expect("asked").is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("signal");
    let code = tokio::task::block_in_place(|| child.wait()).expect("end").code();
    let told = stderr(&child.wait_with_output().expect("output"));
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains("goes on in the daemon"), "{told}");
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_not_updated_while_a_rotation_is_under_way() {
    let dir = tempfile::tempdir().expect("directory");
    let file = configured(dir.path());
    let office = Arc::new(FakeOffice::default());
    let shutdown = daemon(dir.path(), office.clone());
    *office.statuses.lock().expect("statuses") = vec![in_phase("drain", 3)];
    let refused = commanded(&file, &["webhook", "update", "billing", "--deactivate"]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("rotation 4 is under way"), "{}", stderr(&refused));
    assert_eq!(commanded(&file, &["webhook", "update", "billing"]).await.status.code(), Some(64), "nothing to change");
    *office.statuses.lock().expect("statuses") = vec![in_phase("idle", 4)];
    let unreachable = commanded(&file, &["webhook", "update", "billing", "--deactivate"]).await;
    assert_eq!(unreachable.status.code(), Some(69), "{}", stderr(&unreachable));
    shutdown.cancel();
}
