//! `demo`: one full rotation on this machine, watched; and the same traffic without hookturn.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use clap::Args;

use super::{
    exit::{Code, Stop},
    out,
};
use crate::{
    config::Config,
    daemon::{AdoptedSecret, Daemon, Office, Options, Request, Status},
    dialnexa::{Client, Provider as _, Settings},
    sandbox::{Sandbox, SandboxError, SandboxOptions},
    secret::Secret,
};

#[derive(Args)]
pub struct Demo {
    /// Show what the bare PATCH loses on the same traffic
    #[arg(long)]
    without_hookturn: bool,
    /// Events per second
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
}

const NAME: &str = "billing";
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(55);

impl Demo {
    pub async fn run(self) -> Result<Code, Stop> {
        let dir = tempfile::Builder::new().prefix("hookturn-demo-").tempdir()?;
        let mut options = SandboxOptions::new(dir.path().join("world"));
        options.per_second = self.rate;
        options.quarantine = Duration::from_secs(4);
        options.drain = Duration::from_secs(6);
        options.refresh = Duration::from_millis(400);
        options.wait = Duration::from_secs(1);
        let sandbox = Sandbox::start(options).await.map_err(failed)?;
        out::line(&format!(
            "A DialNexa look-alike sends {} deliveries a second to a consumer with {} replicas that reads {}.",
            self.rate,
            sandbox.consumer.replicas().len(),
            sandbox.keystore.display()
        ))?;
        let ended = match self.without_hookturn {
            true => without(&sandbox).await,
            false => with(&sandbox, dir.path()).await,
        };
        sandbox.shutdown().await;
        ended
    }
}

fn failed(error: SandboxError) -> Stop {
    Stop::new(Code::Unreachable, format!("the sandbox does not start: {error}"))
}

async fn with(sandbox: &Sandbox, dir: &std::path::Path) -> Result<Code, Stop> {
    let config = Config::load(&sandbox.write_config(dir).map_err(failed)?)?;
    let options = Options { purpose: "hookturn demo".to_owned(), only: None, doors: true, schedule: false, read_only: false };
    let daemon = Daemon::start(config, options).await?;
    let ended = watch(sandbox, daemon.office().as_ref()).await;
    daemon.stop().await;
    ended
}

async fn watch(sandbox: &Sandbox, office: &dyn Office) -> Result<Code, Stop> {
    let secret = std::fs::read_to_string(sandbox.secret_file())?;
    office.perform(NAME, Request::Adopt { secret: AdoptedSecret::Given(secret) }, "demo").await?;
    out::line("The secret that is there already was adopted; waiting for a delivery that verifies under it.\n")?;
    let began = Instant::now();
    let mut screen = Screen::new();
    while !status(office).await?.confirmed {
        in_time(began)?;
        tokio::time::sleep(LOOK_EVERY).await;
    }
    office.perform(NAME, Request::Rotate { compromised: false, unconfirmed: false }, "demo").await?;
    let last = loop {
        let status = status(office).await?;
        screen.show(&status, sandbox)?;
        if status.hold.is_some() || status.completed > 0 {
            break status;
        }
        in_time(began)?;
        tokio::time::sleep(LOOK_EVERY).await;
    };
    sandbox.handle().traffic_on(&sandbox.webhook_id, false);
    sandbox.handle().settled(Duration::from_secs(5)).await;
    verdict(&last, sandbox)
}

fn in_time(began: Instant) -> Result<(), Stop> {
    match began.elapsed() < LIMIT {
        true => Ok(()),
        false => Err(Stop::new(Code::NotYet, "the demo took too long; is the machine very busy?")),
    }
}

async fn status(office: &dyn Office) -> Result<Status, Stop> {
    let statuses = office.status().await?;
    statuses.into_iter().next().ok_or_else(|| Stop::new(Code::Bug, "the demo's webhook is gone"))
}

fn verdict(status: &Status, sandbox: &Sandbox) -> Result<Code, Stop> {
    let totals = sandbox.handle().totals();
    out::line(&format!(
        "\n{} deliveries sent, {} accepted, {} rejected, {} lost",
        totals.sent, totals.accepted, totals.rejected, totals.lost
    ))?;
    let mut spent = Vec::new();
    for pair in status.timeline.windows(2) {
        spent.push(format!("{} {:.1} s", pair[0].0, (pair[1].1 - pair[0].1) as f64 / 1000.0));
    }
    out::line(&format!("where the time went: {}", spent.join(", ")))?;
    let at = |phase: &str| status.timeline.iter().find(|(name, _)| name == phase).map(|(_, at)| *at);
    if let (Some(from), Some(to)) = (at("push"), at("retire")) {
        out::line(&format!("both secrets were accepted for {:.1} s", (to - from) as f64 / 1000.0))?;
    }
    let well = status.completed > 0 && totals.rejected + totals.lost == 0;
    match well {
        true => {
            out::line("The secret was rotated and nobody lost a delivery. The same without hookturn: `demo --without-hookturn`")?
        }
        false => out::line("This should not have happened: please report it with the lines above.")?,
    }
    Ok(if well { Code::Done } else { Code::PersonNeeded })
}

/// The forty-line script: tell DialNexa, then tell the consumer.
async fn without(sandbox: &Sandbox) -> Result<Code, Stop> {
    let settings = Settings {
        base_url: sandbox.base_url(),
        api_key: sandbox.api_key.clone(),
        ca_file: None,
        timeout: Duration::from_secs(5),
    };
    let provider = Client::new(settings).map_err(|error| Stop::new(Code::Bug, error.to_string()))?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let fresh = Secret::generate().map_err(|error| Stop::new(Code::Bug, error.to_string()))?;
    out::line("PATCH with a new secret ...")?;
    let line = provider.connect().await.map_err(|error| Stop::new(Code::Unreachable, error.to_string()))?;
    line.patch_secret(&sandbox.webhook_id, &fresh, Duration::from_secs(5)).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    out::line("... and then the new secret into the consumer's keystore, replacing the old one.")?;
    replace_keystore(sandbox, &fresh).await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    sandbox.handle().traffic_on(&sandbox.webhook_id, false);
    sandbox.handle().settled(Duration::from_secs(10)).await;
    let totals = sandbox.handle().totals();
    out::line(&format!(
        "\n{} deliveries sent, {} accepted, {} rejected, {} lost; {} tries were turned away",
        totals.sent, totals.accepted, totals.rejected, totals.lost, totals.attempts_failed
    ))?;
    out::line("DialNexa switches at once, and the consumer cannot. `demo` shows the same traffic with hookturn.")?;
    Ok(Code::Done)
}

async fn replace_keystore(sandbox: &Sandbox, fresh: &Secret) -> Result<(), Stop> {
    use crate::keystore::{Contents, FileKeystore, Key, KeyState, Keystore};
    let stop = |error: crate::keystore::KeystoreError| Stop::new(Code::Unreachable, error.to_string());
    let path = sandbox.keystore.clone();
    let keystore = FileKeystore::new(path, crate::config::Format::Json, None, sandbox.webhook_id.clone());
    let before = keystore.read().await.map_err(stop)?.map(|contents| contents.generation);
    let kid = crate::secret::Kid::generate().map_err(|error| Stop::new(Code::Bug, error.to_string()))?;
    let key = Key { kid, state: KeyState::Current, secret: Some(fresh.clone()) };
    let next = Contents { generation: before.unwrap_or(0) + 1, keys: vec![key] };
    keystore.write(before, &next).await.map_err(stop)
}

/// The workflow with the present step marked. Redrawn in place on a terminal, a line per change elsewhere.
struct Screen {
    terminal: bool,
    shown: String,
}

const STEPS: [(&str, &str); 5] =
    [("push", "push"), ("patch", "patch, verify"), ("drain", "drain"), ("retire", "retire"), ("idle", "done")];

impl Screen {
    fn new() -> Screen {
        Screen { terminal: std::io::stdout().is_terminal(), shown: String::new() }
    }

    fn show(&mut self, status: &Status, sandbox: &Sandbox) -> Result<(), Stop> {
        let steps: Vec<String> = STEPS
            .iter()
            .map(|(phase, label)| if *phase == status.phase { format!("[{label}]") } else { (*label).to_owned() })
            .collect();
        let waiting = status.waiting_for.as_deref().map(|what| format!("   waits for {what}")).unwrap_or_default();
        let line = format!("generate > {}{waiting}", steps.join(" > "));
        if self.terminal {
            let totals = sandbox.handle().totals();
            let counts = format!("   {} sent, {} accepted, {} rejected", totals.sent, totals.accepted, totals.rejected);
            let up = if self.shown.is_empty() { "" } else { "\x1b[2A" };
            out::line(&format!("{up}\x1b[2K{line}\n\x1b[2K{counts}"))?;
            self.shown = line;
        } else if self.shown != line {
            out::line(&line)?;
            self.shown = line;
        }
        Ok(())
    }
}
