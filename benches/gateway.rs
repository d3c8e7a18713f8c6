//! The gateway, against nginx as a plain reverse proxy, in front of one and the same consumer.

#[allow(dead_code, reason = "each bench uses a part of the rig")]
#[path = "rig/mod.rs"]
mod rig;

use std::{
    net::SocketAddr,
    process::{Command, ExitCode},
};

const CONNECTIONS: u32 = 32;
/// Nobody queues, and nobody runs beside whoever's turn it is: what is left is the time that a proxy adds.
const CALM: u32 = 1;

fn main() -> ExitCode {
    let (Some(wrk), Some(nginx)) = (rig::program("wrk", "wrk"), rig::program("nginx", "nginx-light")) else {
        return ExitCode::SUCCESS;
    };
    let load = rig::Load::new(wrk);
    // An nginx that answers at once is as good a consumer as any, and faster than most.
    let consumer = rig::free_address();
    let answering = format!("  server {{\n    listen {consumer};\n    location / {{ return 200 'ok'; }}\n  }}\n");
    let _consumer = rig::nginx(&nginx, consumer, &answering);
    let proxy = rig::free_address();
    let passing = format!(
        "  upstream consumer {{ server {consumer}; keepalive 64; }}\n  server {{\n    listen {proxy};\n    location / {{\n\
         proxy_pass http://consumer;\n      proxy_http_version 1.1;\n      proxy_set_header Connection '';\n    }}\n  }}\n"
    );
    let proxy = rig::nginx(&nginx, proxy, &passing);
    let gateway = start_gateway(consumer);
    let (rounds, seconds) = if rig::long() { (9, 5.0) } else { (5, 2.0) };
    let mut all_hold = true;
    for (name, size) in rig::SIZES {
        let body = rig::body(size);
        let signature = rig::signed(rig::SECRETS[1], &body);
        let at = |address: SocketAddr, connections| {
            load.run(&format!("http://{address}/hook/billing"), &body, &signature, connections, seconds)
        };
        let (ratio, ours, theirs) =
            rig::in_turn(rounds, || at(gateway.address, CONNECTIONS).per_second, || at(proxy.address, CONNECTIONS).per_second);
        println!("{name}: gateway {ours:.0}/s, nginx {theirs:.0}/s");
        all_hold &= rig::verdict(&format!("{name}: gateway / nginx"), ratio, "at least 0.70", ratio >= 0.7);
        let calm: Vec<_> =
            (0..rounds).map(|_| (at(gateway.address, CALM), at(proxy.address, CALM), at(consumer, CALM))).collect();
        let median = |of: &dyn Fn(&(rig::Found, rig::Found, rig::Found)) -> f64| rig::median(calm.iter().map(of).collect());
        println!(
            "{name}: added latency, median {:.0} us (nginx: {:.0} us)",
            median(&|(ours, _, direct)| ours.median_us - direct.median_us),
            median(&|(_, nginx, direct)| nginx.median_us - direct.median_us),
        );
        // A difference of two tails says nothing where the machine's own hiccups are the longest of all.
        println!(
            "{name}: p99.9 through the gateway {:.0} us, through nginx {:.0} us, of the consumer alone {:.0} us",
            median(&|(ours, ..)| ours.p999_us),
            median(&|(_, nginx, _)| nginx.p999_us),
            median(&|(.., direct)| direct.p999_us),
        );
    }
    let (body, before) = (rig::body(1024), gateway.memory());
    let signature = rig::signed(rig::SECRETS[0], &body);
    let (mut sent, target) = (0, if rig::long() { 1_000_000 } else { 50_000 });
    while sent < target {
        sent += load.run(&format!("http://{}/hook/billing", gateway.address), &body, &signature, CONNECTIONS, 5.0).requests;
    }
    let after = gateway.memory();
    println!("memory of the gateway: {before} KiB, {sent} deliveries later {after} KiB");
    all_hold &= rig::verdict("memory, after / before", after as f64 / before as f64, "at most 1.25", after * 4 <= before * 5);
    rig::end(all_hold)
}

/// The real program. No daemon listens, so it keeps what it would tell, up to its bound.
fn start_gateway(consumer: SocketAddr) -> rig::Peer {
    let dir = tempfile::tempdir().expect("a directory");
    let (address, daemon) = (rig::free_address(), rig::free_address());
    let keys = rig::SECRETS.iter().zip(["k_1", "k_2"]).zip(["current", "pending"]);
    let keys: Vec<_> =
        keys.map(|((secret, kid), state)| serde_json::json!({"kid": kid, "state": state, "secret": secret})).collect();
    let keystore = serde_json::json!({"version": 1, "generation": 1, "keys": keys});
    std::fs::write(dir.path().join("secrets.json"), keystore.to_string()).expect("write");
    let text = format!(
        "[listen]\ndeliveries = \"{daemon}\"\ngateway = \"{address}\"\n[[webhook]]\nname = \"billing\"\nid = \"whk_1\"\n\
         keystore = {{ kind = \"file\", path = \"secrets.json\" }}\npreflight = {{ status = true }}\n\
         gateway = {{ upstream = \"http://{consumer}/\" }}\n"
    );
    let config = dir.path().join("hookturn.toml");
    std::fs::write(&config, text).expect("write");
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookturn"));
    command.arg("-c").arg(config).arg("receive");
    rig::Peer::start(command, address, Some(dir))
}
