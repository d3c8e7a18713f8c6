//! The bare work of one rotation, in the order in which each part has to wait for the one before it. What is on record must be
//! on the disk before what it announces is done, and the probes of one replica follow each other so that a firewall that is
//! upset by the random key cannot spoil the answers to the others.

use std::{
    cell::Cell,
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::counterpart::{Counterpart, WEBHOOK};

pub const NEEDS: &str = "2 GET, 1 PATCH, 10 probes, 1 report; 8 commits, 3 anchors, 2 keystore files";

/// One page with its header: the least that a commit can add to a write-ahead log.
const COMMIT_BYTES: usize = 4096 + 24;
const ANCHOR_BYTES: usize = 4096;
const KEYSTORE_BYTES: usize = 900;

pub struct Floor {
    counterpart: SocketAddr,
    log: File,
    anchor: File,
    dir: PathBuf,
    commits: Cell<u64>,
}

impl Floor {
    pub fn new(dir: &Path, counterpart: &Counterpart) -> Floor {
        let dir = dir.join("floor");
        fs::create_dir(&dir).expect("a directory");
        let open = |name: &str, bytes: usize| {
            let mut options = OpenOptions::new();
            let file = options.create(true).truncate(false).read(true).write(true).open(dir.join(name)).expect("a file");
            file.write_all_at(&vec![0; bytes], 0).expect("room");
            file.sync_all().expect("synced");
            file
        };
        let (log, anchor) = (open("log", COMMIT_BYTES * 256), open("anchor", ANCHOR_BYTES));
        Floor { counterpart: counterpart.address, log, anchor, dir, commits: Cell::new(0) }
    }

    pub async fn once(&self) -> Duration {
        tokio::task::block_in_place(|| {
            let began = Instant::now();
            self.get();
            self.commit(); // the new secret and what is to be done with it
            self.anchor();
            self.keystore();
            self.commit(); // the digests of the probes
            self.probes(3);
            self.commit(); // the intent
            self.anchor();
            self.send(&request(
                "PATCH",
                &format!("/v1/user-webhooks/{WEBHOOK}"),
                r#"{"secret":"whsec_0123456789012345678901234567890123456789012"}"#,
            ));
            self.send(&super::counterpart::report("k", b"delivery"));
            self.commit(); // its answer and the evidence: they may come together
            self.commit(); // the digests of the probes before the retire
            std::thread::scope(|scope| {
                let counterpart = self.counterpart;
                scope.spawn(move || exchange(counterpart, &get()));
                self.probes(3);
            });
            self.commit(); // the retire
            self.anchor();
            self.keystore();
            self.commit(); // the digests of the last probes
            self.probes(4);
            self.commit(); // it is complete
            began.elapsed()
        })
    }

    fn get(&self) {
        self.send(&get());
    }

    fn probes(&self, count: usize) {
        for _ in 0..count {
            self.send(&request("POST", "/hook", r#"{"hookturn-probe":"0123456789abcdef0123456789abcdef""#));
        }
    }

    fn send(&self, request: &str) {
        exchange(self.counterpart, request);
    }

    /// Into a log that has its size already, as SQLite's has after its first round.
    fn commit(&self) {
        let number = self.commits.replace(self.commits.get() + 1);
        self.log.write_all_at(&[1; COMMIT_BYTES], (number % 256) * COMMIT_BYTES as u64).expect("written");
        self.log.sync_data().expect("synced");
    }

    fn anchor(&self) {
        self.anchor.write_all_at(&[1; ANCHOR_BYTES], 0).expect("written");
        self.anchor.sync_data().expect("synced");
    }

    fn keystore(&self) {
        let (new, place) = (self.dir.join("new"), self.dir.join("secrets.json"));
        let mut file = File::create(&new).expect("a file");
        file.write_all(&[1; KEYSTORE_BYTES]).expect("written");
        file.sync_all().expect("synced");
        fs::rename(&new, &place).expect("renamed");
        File::open(&self.dir).expect("the directory").sync_all().expect("synced");
        fs::read(&place).expect("read back");
    }
}

fn get() -> String {
    request("GET", &format!("/v1/user-webhooks/{WEBHOOK}"), "")
}

pub fn request(method: &str, target: &str, body: &str) -> String {
    let length = body.len();
    format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

/// One request over a connection of its own.
pub fn exchange(to: SocketAddr, request: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).expect("connected");
    stream.set_nodelay(true).expect("a socket");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("answered");
    answer
}
