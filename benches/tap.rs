//! The tap, against Debian's `webhook` verifying the same signature under the same two secrets.

#[allow(dead_code, reason = "each bench uses a part of the rig")]
#[path = "rig/mod.rs"]
mod rig;

use std::{
    net::SocketAddr,
    process::{Command, ExitCode},
    sync::Arc,
};

use hookturn::{
    config::Door,
    evidence::{Desk, Facts, GatewayCounts, Limits, ProxyAnswers, Reason, Sighting, serve},
    secret::{Keyring, Kid, Secret, Standing},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const CONNECTIONS: u32 = 32;

fn main() -> ExitCode {
    if let Some(address) = std::env::args().skip_while(|argument| argument != "--serve").nth(1) {
        serve_tap(address.parse().expect("an address"));
        return ExitCode::SUCCESS;
    }
    let (Some(wrk), Some(webhook)) = (rig::program("wrk", "wrk"), rig::program("webhook", "webhook")) else {
        return ExitCode::SUCCESS;
    };
    let load = rig::Load::new(wrk);
    let address = rig::free_address();
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.arg("--serve").arg(address.to_string());
    let tap = rig::Peer::start(command, address, None);
    let (rounds, seconds) = if rig::long() { (9, 5.0) } else { (5, 2.0) };
    let mut all_hold = true;
    for (name, size) in rig::SIZES {
        let body = rig::body(size);
        let (right, wrong) = (rig::signed(rig::SECRETS[1], &body), rig::signed("whsec_stranger", &body));
        let ours = || load.run(&format!("http://{}/tap/billing", tap.address), &body, &right, CONNECTIONS, seconds).per_second;
        // A fresh one for each round: the commands that are still to be started would slow what comes next.
        let theirs = |signature: &str| {
            let peer = start_webhook(&webhook);
            let url = format!("http://{}/hooks/billing", peer.address);
            load.run(&url, &body, signature, CONNECTIONS, seconds).per_second
        };
        let (ratio, tap, other) = rig::in_turn(rounds, ours, || theirs(&right));
        println!("{name}: tap {tap:.0}/s, webhook {other:.0}/s (with the /bin/true that it has to start)");
        all_hold &= rig::verdict(&format!("{name}: tap / webhook"), ratio, "at least 3.00", ratio >= 3.0);
        // A signature under neither secret costs it the same two passes, and it starts nothing.
        let (ratio, tap, other) = rig::in_turn(rounds, ours, || theirs(&wrong));
        println!("{name}: tap {tap:.0}/s, webhook {other:.0}/s where it refuses and starts nothing: {ratio:.2}");
    }
    let (size, before) = (rig::body(1024), tap.memory());
    let signature = rig::signed(rig::SECRETS[0], &size);
    let (mut sent, target) = (0, if rig::long() { 1_000_000 } else { 50_000 });
    while sent < target {
        sent += load.run(&format!("http://{}/tap/billing", tap.address), &size, &signature, CONNECTIONS, 5.0).requests;
    }
    let after = tap.memory();
    println!("memory of the tap: {before} KiB, {sent} deliveries later {after} KiB");
    all_hold &= rig::verdict("memory, after / before", after as f64 / before as f64, "at most 1.25", after * 4 <= before * 5);
    rig::end(all_hold)
}

fn start_webhook(program: &std::path::Path) -> rig::Peer {
    let dir = tempfile::tempdir().expect("a directory");
    let rule = |secret: &str| {
        let parameter = serde_json::json!({"source": "header", "name": "X-Nexa-Signature"});
        serde_json::json!({"match": {"type": "payload-hmac-sha256", "secret": secret, "parameter": parameter}})
    };
    // Without soft failures the first secret that does not fit is an error, and the second is never tried.
    let hooks = serde_json::json!([{
        "id": "billing",
        "trigger-signature-soft-failures": true,
        "execute-command": "/bin/true",
        "trigger-rule": {"or": rig::SECRETS.map(rule)}
    }]);
    let file = dir.path().join("hooks.json");
    std::fs::write(&file, hooks.to_string()).expect("write");
    let address = rig::free_address();
    let mut command = Command::new(program);
    command.arg("-hooks").arg(&file).args(["-ip", "127.0.0.1", "-port", &address.port().to_string()]);
    rig::Peer::start(command, address, Some(dir))
}

/// The doors as the daemon has them: two accepted keys, and an inbox that somebody empties.
struct Front {
    keyring: Arc<Keyring>,
    inbox: mpsc::Sender<Sighting>,
}

impl Desk for Front {
    fn keyring(&self, _: &str) -> Option<Arc<Keyring>> {
        Some(self.keyring.clone())
    }
    fn report_token(&self, _: &str) -> Option<Secret> {
        None
    }
    fn tap_token(&self, _: &str) -> Option<Secret> {
        None
    }
    fn sighted(&self, sighting: Sighting) -> bool {
        self.inbox.try_send(sighting).is_ok()
    }
    fn unverified(&self, _: &str, _: Door, _: Reason, _: &Facts) {}
    fn gateway_counts(&self, _: &str, _: GatewayCounts) {}
}

fn serve_tap(address: SocketAddr) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async move {
        let keys = rig::SECRETS.iter().zip(["k_1", "k_2"]);
        let keys = keys
            .map(|(secret, kid)| (Kid::parse(kid).expect("kid"), Secret::parse(secret).expect("a secret"), Standing::Accepted));
        let (inbox, mut sightings) = mpsc::channel(4096);
        tokio::spawn(async move { while sightings.recv().await.is_some() {} });
        let desk = Arc::new(Front { keyring: Arc::new(Keyring::new(keys.collect())), inbox });
        let listener = tokio::net::TcpListener::bind(address).await.expect("bind");
        serve(listener, Limits::new(10 << 20), desk, ProxyAnswers::default(), CancellationToken::new()).await;
    });
}
