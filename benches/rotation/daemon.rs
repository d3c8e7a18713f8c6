//! Whole rotations by the daemon, in this process.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use hookturn::{
    config::Config,
    daemon::{AdoptedSecret, Daemon, Options, Request, Status},
    secret::SealingKey,
};

use super::counterpart::{Counterpart, WEBHOOK};

/// A rotation waits for that of the one before it. Long enough that its half is plenty for the PATCH, and that its tenth, after
/// which what has passed of it is put on record, does not come round within a rotation.
const QUARANTINE: Duration = Duration::from_secs(2);

pub struct Rotations {
    daemon: Daemon,
}

impl Rotations {
    pub async fn start(dir: &Path, counterpart: &Counterpart) -> Rotations {
        let (path, text) = configuration(&dir.join("daemon"), counterpart);
        let config = Config::parse(&path, &text).expect("a configuration");
        let options = Options { purpose: "bench".to_owned(), only: None, doors: true, schedule: false, read_only: false };
        let daemon = Daemon::start(config, options).await.expect("a daemon");
        counterpart.report_to(daemon.doors());
        let rotations = Rotations { daemon };
        let adopted = Request::Adopt { secret: AdoptedSecret::Given("whsec_bench".to_owned()) };
        rotations.ask(adopted).await;
        while !counterpart.keystore.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        rotations
    }

    /// From the request to its completion, and when each phase began.
    pub async fn once(&self) -> (Duration, Vec<(String, i64)>) {
        tokio::time::sleep(QUARANTINE + Duration::from_millis(100)).await;
        let began = Instant::now();
        let number = self.ask(Request::Rotate { compromised: false, unconfirmed: true }).await;
        loop {
            let status = self.status().await;
            if status.completed == number.unwrap_or_default() {
                return (began.elapsed(), status.timeline);
            }
            assert!(began.elapsed() < Duration::from_secs(30), "it does not end: {status:#?}");
            // This task has a thread of its own, and the runtime's timers are too coarse.
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    pub async fn stop(self) {
        self.daemon.stop().await;
    }

    async fn ask(&self, request: Request) -> Option<u64> {
        self.daemon.office().perform("billing", request, "bench").await.expect("done").rotation
    }

    async fn status(&self) -> Status {
        self.daemon.office().status().await.expect("a status").remove(0)
    }
}

/// One webhook, one replica, and no wait.
pub fn configuration(dir: &Path, counterpart: &Counterpart) -> (PathBuf, String) {
    fs::create_dir_all(dir).expect("a directory");
    fs::write(dir.join("sealing-key"), &*SealingKey::generate().expect("a key").encode()).expect("written");
    fs::write(dir.join("api-key"), "dnx_live_bench").expect("written");
    let text = format!(
        "[dialnexa]\nbase_url = \"http://{address}/v1\"\napi_key = {{ file = \"api-key\" }}\n\
         [store]\nurl = \"sqlite:hookturn.db\"\nsealing_key = {{ file = \"sealing-key\" }}\n\
         [listen]\ndeliveries = \"127.0.0.1:0\"\nadmin = \"unix:admin.sock\"\nstatus = \"off\"\n\
         [[webhook]]\nname = \"billing\"\nid = \"{WEBHOOK}\"\nquarantine = \"{}ms\"\ndrain = \"0s\"\n\
         keystore = {{ kind = \"file\", path = {:?} }}\n\
         preflight = {{ wait = \"0s\", probe = [\"http://{address}/hook\"] }}\n",
        QUARANTINE.as_millis(),
        counterpart.keystore.display().to_string(),
        address = counterpart.address,
    );
    let path = dir.join("hookturn.toml");
    fs::write(&path, &text).expect("written");
    (path, text)
}

/// How the time is spread, from the phases' beginnings (milliseconds, so only roughly).
pub fn slowest(timelines: &[Vec<(String, i64)>]) -> String {
    let mut spent: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for timeline in timelines {
        for pair in timeline.windows(2) {
            spent.entry(&pair[0].0).or_default().push(pair[1].1 - pair[0].1);
        }
    }
    let middle = |times: &mut Vec<i64>| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    let words: Vec<String> = spent.iter_mut().map(|(phase, times)| format!("{phase} {} ms", middle(times))).collect();
    words.join(", ")
}
