//! What the benches share: peers that they start themselves, a bounded load on loopback, and pairs of runs in turn.
//!
//! A machine that others use too is faster in one second than in the next. So the two sides of a ratio are measured in turn,
//! each pair gives a ratio of its own, and the median of those is what counts.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use hookturn::secret::{Secret, signature};
use rustix::process::{Pid, Signal, kill_process};

/// The two secrets that are accepted, as they stand in keystores and configurations.
pub const SECRETS: [&str; 2] = ["whsec_5be2a7c90d1f4e83aa01", "whsec_91c04d7be5a2f638bb02"];
/// How much one event may weigh.
pub const SIZES: [(&str, usize); 2] = [("1 KiB", 1024), ("64 KiB", 64 * 1024)];

/// `HOOKTURN_BENCH=long`: ten times as long, a million deliveries.
pub fn long() -> bool {
    std::env::var("HOOKTURN_BENCH").is_ok_and(|mode| mode == "long")
}

/// A JSON event of exactly this size.
pub fn body(size: usize) -> Vec<u8> {
    let (head, tail) = (br#"{"event":"call.completed","transcript":""#, br#""}"#);
    let fill = size - head.len() - tail.len();
    [&head[..], &b"the quick brown fox ".iter().copied().cycle().take(fill).collect::<Vec<u8>>(), &tail[..]].concat()
}

pub fn signed(secret: &str, body: &[u8]) -> String {
    signature::sign(&Secret::parse(secret).expect("a secret"), body)
}

/// A peer or a server of ours, ended with the bench.
pub struct Peer {
    child: Child,
    pub address: SocketAddr,
    _dir: Option<tempfile::TempDir>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // An nginx that is killed would leave its workers behind.
        if let Some(id) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(id, Signal::TERM);
        }
        let began = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if began.elapsed() > Duration::from_secs(5) {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Peer {
    pub fn start(mut command: Command, address: SocketAddr, dir: Option<tempfile::TempDir>) -> Peer {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a process");
        let peer = Peer { child, address, _dir: dir };
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(began.elapsed() < Duration::from_secs(30), "nothing listens on {address}");
            std::thread::sleep(Duration::from_millis(20));
        }
        peer
    }

    /// The memory that it holds, in KiB.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
    }
}

pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

/// The program, or a line that says what cannot be measured without it.
pub fn program(name: &str, package: &str) -> Option<PathBuf> {
    let mut places: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    places.push("/usr/sbin".into());
    let found = places.into_iter().map(|place| place.join(name)).find(|path| path.is_file());
    if found.is_none() {
        println!("skipped: {name} is not on this machine (apt-get install {package})");
    }
    found
}

/// An nginx with these `http` lines.
pub fn nginx(program: &Path, address: SocketAddr, http: &str) -> Peer {
    let dir = tempfile::tempdir().expect("a directory");
    let at = dir.path().display();
    let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("  {name}_temp_path {at}/{name};\n"))
        .collect();
    let text = format!(
        "daemon off;\nworker_processes auto;\nuser root;\npid {at}/pid;\nerror_log {at}/error.log crit;\n\
         events {{ worker_connections 1024; }}\nhttp {{\n  access_log off;\n  keepalive_requests 1000000000;\n\
         client_max_body_size 16m;\n  client_body_buffer_size 1m;\n{temp}{http}\n}}\n"
    );
    let file = dir.path().join("nginx.conf");
    std::fs::write(&file, text).expect("write");
    let mut command = Command::new(program);
    command.arg("-p").arg(dir.path()).arg("-c").arg(&file);
    Peer::start(command, address, Some(dir))
}

/// What a load found.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    pub per_second: f64,
    pub median_us: f64,
    pub p999_us: f64,
    pub requests: u64,
}

/// One load: the same delivery again and again, on kept connections.
pub struct Load {
    wrk: PathBuf,
    dir: tempfile::TempDir,
}

impl Load {
    pub fn new(wrk: PathBuf) -> Load {
        Load { wrk, dir: tempfile::tempdir().expect("a directory") }
    }

    /// Every answer must be a 2xx.
    pub fn run(&self, url: &str, body: &[u8], signature: &str, connections: u32, seconds: f64) -> Found {
        let found = self.run_any(url, body, signature, connections, seconds);
        assert_eq!(found.1, 0, "{url}: answers that were none, or no 2xx");
        found.0
    }

    /// What was found, and how many answers were none or no 2xx.
    pub fn run_any(&self, url: &str, body: &[u8], signature: &str, connections: u32, seconds: f64) -> (Found, u64) {
        let (file, script) = (self.dir.path().join("body"), self.dir.path().join("load.lua"));
        std::fs::write(&file, body).expect("write");
        let text = format!(
            "local f = io.open('{}', 'rb')\nlocal body = f:read('*a')\nf:close()\nwrk.method = 'POST'\nwrk.body = body\n\
             wrk.headers['Content-Type'] = 'application/json'\nwrk.headers['X-Nexa-Signature'] = '{signature}'\n\
             function done(summary, latency, requests)\n  local e = summary.errors\n\
               io.write(string.format('FOUND %d %d %f %f %d\\n', summary.requests, summary.duration, latency:percentile(50), \
             latency:percentile(99.9), e.connect + e.read + e.write + e.status + e.timeout))\nend\n",
            file.display()
        );
        std::fs::write(&script, text).expect("write");
        // wrk takes whole seconds.
        let duration = format!("{}s", seconds.ceil());
        let (connections, threads) = (connections.to_string(), connections.min(2).to_string());
        let output = Command::new(&self.wrk)
            .args(["-t", &threads, "-c", &connections, "-d", &duration, "-s"])
            .arg(&script)
            .arg(url)
            .output()
            .expect("wrk runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().find_map(|line| line.strip_prefix("FOUND ")).unwrap_or_else(|| panic!("wrk said: {text}"));
        let numbers: Vec<f64> = line.split(' ').map(|number| number.parse().expect("a number")).collect();
        let found = Found {
            per_second: numbers[0] / (numbers[1] / 1e6),
            median_us: numbers[2],
            p999_us: numbers[3],
            requests: numbers[0] as u64,
        };
        (found, numbers[4] as u64)
    }
}

/// Runs both in turn and gives the median of the ratios `ours / theirs`, and of each side.
pub fn in_turn(rounds: usize, mut ours: impl FnMut() -> f64, mut theirs: impl FnMut() -> f64) -> (f64, f64, f64) {
    let (mut ratios, mut one, mut other) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        // Who begins changes too.
        let (a, b) = if round % 2 == 0 {
            let a = ours();
            (a, theirs())
        } else {
            let b = theirs();
            (ours(), b)
        };
        ratios.push(a / b);
        one.push(a);
        other.push(b);
    }
    (median(ratios), median(one), median(other))
}

pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// Prints a ratio beside what it must be.
pub fn verdict(what: &str, ratio: f64, bound: &str, holds: bool) -> bool {
    println!("{what}: {ratio:.2} (must be {bound}): {}", if holds { "holds" } else { "DOES NOT HOLD" });
    holds
}

pub fn end(all_hold: bool) -> ExitCode {
    ExitCode::from(u8::from(!all_hold))
}
