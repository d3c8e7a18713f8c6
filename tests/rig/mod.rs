//! One webhook with its real daemon, on a store of its own, in the sandbox: to be killed, damaged and started again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command as Blocking, Stdio},
    time::{Duration, Instant},
};

use hookturn::{
    admin::remote::Remote,
    daemon::{AdoptedSecret, Office, Request, Status},
    sandbox::{Sandbox, SandboxOptions, consumer::Behaviour},
};
use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};

/// Much more than anything takes: machines are slow at times.
pub const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(60);

pub struct Rig {
    pub sandbox: Sandbox,
    pub dir: tempfile::TempDir,
    pub config: PathBuf,
    pub daemon: Option<Child>,
    lives: u32,
    /// For every daemon from now on.
    pub environment: Vec<(&'static str, PathBuf)>,
}

/// Where in a rotation something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// After the first rotation.
    Idle,
    /// The keystore holds the target, and the replicas have not seen it yet.
    Push,
    /// DialNexa has answered 200, and no delivery has come since.
    Patch,
    Drain,
    /// The keystore holds the target only, and the replicas have not seen that yet.
    Retire,
}

impl Moment {
    pub const ALL: [Moment; 5] = [Moment::Idle, Moment::Push, Moment::Patch, Moment::Drain, Moment::Retire];
}

impl Rig {
    pub async fn new() -> Rig {
        let dir = tempfile::tempdir().expect("a directory");
        let mut options = SandboxOptions::new(dir.path().join("sandbox"));
        options.quarantine = Duration::from_millis(1_500);
        options.drain = Duration::from_millis(2_500);
        options.wait = Duration::from_millis(100);
        options.refresh = Duration::from_millis(100);
        // Machines are slow at times, and no fault of the network is meant here.
        options.patch_timeout = Duration::from_secs(10);
        options.repeat_min = Duration::from_millis(300);
        options.repeat_max = Duration::from_secs(2);
        options.per_second = 10.0;
        options.replicas = 1;
        options.status_every = None;
        let sandbox = Sandbox::start(options).await.expect("a sandbox");
        let config = sandbox.write_config(dir.path()).expect("a configuration");
        let text = fs::read_to_string(&config).expect("the configuration");
        // A directory that nothing else lies in.
        fs::write(&config, text.replace("/hookturn.db", "/state/hookturn.db")).expect("write");
        Rig { sandbox, dir, config, daemon: None, lives: 0, environment: Vec::new() }
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join(format!("daemon-{}.log", self.lives))
    }

    /// What the newest daemon has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// A daemon begins to live.
    pub fn begin(&mut self) {
        self.lives += 1;
        let log = fs::File::create(self.log_path()).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_hookturn"));
        command.arg("-c").arg(&self.config).args(["--log", "info", "run"]);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        self.daemon = Some(command.spawn().expect("a daemon"));
    }

    /// As a power cut or the kernel does it.
    pub async fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().await.expect("killed");
        }
    }

    pub fn signal(&self, signal: Signal) {
        let id = self.daemon.as_ref().and_then(Child::id).expect("a daemon that lives");
        let id = Pid::from_raw(i32::try_from(id).expect("an id")).expect("an id");
        rustix::process::kill_process(id, signal).expect("signalled");
    }

    /// The exit code of a daemon that has ended by itself. One whose port another test was using begins again.
    pub fn exited(&mut self) -> Option<i32> {
        let status = self.daemon.as_mut()?.try_wait().expect("a status")?;
        if self.log().contains("Address already in use") {
            self.begin();
            return None;
        }
        Some(status.code().unwrap_or(-1))
    }

    async fn office(&self) -> Option<Remote> {
        Remote::connect(&self.dir.path().join("admin.sock")).await.ok()?
    }

    pub async fn status(&self) -> Option<Status> {
        self.office().await?.status().await.ok()?.into_iter().next()
    }

    /// Asks the daemon that runs.
    pub async fn ask(&self, request: Request) -> Result<(), String> {
        let office = self.office().await.ok_or("no daemon")?;
        office.perform("billing", request, "test").await.map(drop).map_err(|failure| failure.text)
    }

    pub async fn rotate(&self) {
        self.ask(Request::Rotate { compromised: false, unconfirmed: true }).await.expect("a rotation begins");
    }

    pub async fn until(&mut self, what: &str, reached: impl Fn(&Rig, &Status) -> bool) -> Status {
        let began = Instant::now();
        loop {
            let status = self.status().await;
            if let Some(status) = &status
                && reached(self, status)
            {
                return status.clone();
            }
            let ended = self.exited();
            let late = began.elapsed() > PATIENCE;
            assert!(ended.is_none() && !late, "{what} was not reached (exit {ended:?}): {status:#?}\n{}", self.log());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Adopts the secret that DialNexa signs with, and waits for the delivery that confirms it.
    pub async fn settle_in(&mut self) {
        self.begin();
        self.until("a daemon", |_, _| true).await;
        let secret = fs::read_to_string(self.sandbox.secret_file()).expect("the secret");
        self.ask(Request::Adopt { secret: AdoptedSecret::Given(secret) }).await.expect("adopted");
        self.until("confirmed", |_, status| status.confirmed).await;
    }

    /// Brings a settled daemon to a moment in which it stays, but for the drain, until [`Rig::release`].
    pub async fn reach(&mut self, moment: Moment) {
        match moment {
            Moment::Idle => {
                self.rotate().await;
                self.until("a first rotation", |_, status| status.completed == 1 && status.phase == "idle").await;
            }
            Moment::Push => {
                self.behave(Behaviour::NeverReloads);
                self.rotate().await;
                self.until("push", |rig, status| status.phase == "push" && rig.written(status)).await;
            }
            Moment::Patch => {
                self.traffic(false);
                self.rotate().await;
                self.until("patch", |_, status| status.phase == "patch" && status.patched).await;
            }
            Moment::Drain => {
                self.rotate().await;
                self.until("drain", |_, status| status.phase == "drain").await;
            }
            Moment::Retire => {
                self.rotate().await;
                self.until("drain", |_, status| status.phase == "drain").await;
                self.behave(Behaviour::NeverReloads);
                self.until("retire", |rig, status| status.phase == "retire" && rig.written(status)).await;
            }
        }
    }

    /// Whether the keystore holds what it is to hold.
    fn written(&self, status: &Status) -> bool {
        let content = fs::read(&self.sandbox.keystore).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        content.is_some_and(|content: serde_json::Value| content["generation"] == status.generation)
    }

    pub fn behave(&self, behaviour: Behaviour) {
        for replica in self.sandbox.consumer.replicas() {
            replica.behave(behaviour);
        }
    }

    pub fn traffic(&self, on: bool) {
        self.sandbox.handle().traffic_on(&self.sandbox.webhook_id, on);
    }

    /// Whether a consumer that reads its keystore now would verify what DialNexa signs now.
    pub fn consumer_can_verify(&self) -> bool {
        let handle = self.sandbox.handle();
        let Ok(bytes) = fs::read(&self.sandbox.keystore) else { return false };
        let Ok(content) = serde_json::from_slice::<serde_json::Value>(&bytes) else { return false };
        let keys = content["keys"].as_array().cloned().unwrap_or_default();
        let held: Vec<_> = keys
            .iter()
            .filter_map(|key| hookturn::secret::Secret::parse(key["secret"].as_str()?).ok())
            .filter_map(|secret| handle.label_of(&self.sandbox.webhook_id, &secret))
            .collect();
        handle.signing(&self.sandbox.webhook_id).is_some_and(|signing| signing.iter().all(|label| held.contains(label)))
    }

    /// Every rotation ends, and no genuine delivery was turned away: the sandbox's own log is the judge.
    pub async fn ends_well(&mut self) {
        self.until("the end of every rotation", |rig, status| {
            status.phase == "idle" && status.completed == status.rotation && status.hold.is_none() && rig.consumer_can_verify()
        })
        .await;
        self.traffic(false);
        assert!(self.sandbox.handle().settled(PATIENCE).await, "deliveries are still under way");
        let totals = self.sandbox.handle().totals();
        assert!(totals.accepted > 0, "there was no traffic");
        assert_eq!((totals.rejected, totals.lost), (0, 0), "{totals:?}\n{}", self.log());
    }
}

/// Compiles a library to preload. `None`, and a line that says so: there is no C compiler.
pub fn preload(source: &str, into: &Path) -> Option<PathBuf> {
    let library = into.join("preload.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
    match Blocking::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).output() {
        Ok(output) if output.status.success() => Some(library),
        Ok(output) => panic!("{}: {}", source.display(), String::from_utf8_lossy(&output.stderr)),
        Err(error) => {
            println!("skipped: no C compiler ({error})");
            None
        }
    }
}
