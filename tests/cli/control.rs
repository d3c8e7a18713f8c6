//! Commands and a daemon on two ends of the control socket, and what a monitor asks the status server.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use hookturn::{
    admin::{http::serve_status, remote::Remote, socket},
    daemon::{AdoptedSecret, Failure, Office, Reply, Request, Status, Story},
};
use tokio_util::sync::CancellationToken;

use super::{commanded, configured, hookturn_command, stderr, stdout};

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
