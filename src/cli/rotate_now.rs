//! `rotate-now`: asks for rotations and watches them until they are where they were asked to be.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use clap::Args;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    access::{Access, Need, actor, unknown_to_daemon},
    exit::{Code, Stop},
    out,
    progress::{Until, Verdict, judge},
    time,
};
use crate::{
    config::{self, Config},
    daemon::{Clock, Failure, Request, Status},
};

/// How often the daemon is asked. Only how soon a line appears depends on it.
const LOOK_EVERY: Duration = Duration::from_millis(300);

const STOPPED: &str =
    "the work has stopped, the log above says why; nothing is lost, and it goes on with the next `run` or `rotate-now`";

#[derive(Args)]
pub struct RotateNow {
    /// Webhooks, by their names in the configuration
    #[arg(required = true)]
    names: Vec<String>,
    #[arg(long, value_enum, default_value_t = Until::Verified)]
    until: Until,
    /// How long to watch, as 90s or 10m; the rotation itself has no time limit
    #[arg(long, default_value = "10m", value_parser = duration)]
    timeout: Duration,
    /// The current secret has leaked: no waiting for late deliveries, and no way back to it
    #[arg(long)]
    compromised: bool,
    /// Rotate although no delivery has verified under the current secret yet (this can hide that a wrong one was adopted)
    #[arg(long)]
    unconfirmed: bool,
    /// One JSON object per line: a status at every change, and a verdict at the end
    #[arg(long)]
    json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    config::duration(text).map_err(|bad| format!("{}: {}", bad.reason, bad.help))
}

impl RotateNow {
    pub async fn run(mut self, config: Config) -> Result<Code, Stop> {
        let mut listed = BTreeSet::new();
        self.names.retain(|name| listed.insert(name.clone()));
        let mut interrupt = signal(SignalKind::interrupt())?;
        let purpose = format!("rotate-now {}", self.names.join(" "));
        let access =
            Access::open(&config, Need { purpose: &purpose, webhooks: &self.names, doors: true, read_only: false }).await?;
        let watched = tokio::select! {
            watched = self.watch(&access) => watched,
            _ = interrupt.recv() => {
                eprintln!("hookturn: no longer watching. {}", goes_on(access.daemon_runs()));
                Ok(Code::NotYet)
            }
            () = access.failed() => Err(Stop::new(Code::Unreachable, STOPPED)),
        };
        access.close().await;
        watched
    }

    async fn watch(&self, access: &Access) -> Result<Code, Stop> {
        let mut watch = Watch { command: self, daemon_runs: access.daemon_runs(), shown: BTreeMap::new(), worst: Code::Done };
        let mut open = self.begin(access, &mut watch).await?;
        let deadline = tokio::time::sleep(self.timeout);
        tokio::pin!(deadline);
        let mut looks = tokio::time::interval(LOOK_EVERY);
        let mut last: Vec<Status> = Vec::new();
        while !open.is_empty() {
            tokio::select! {
                () = &mut deadline => {
                    watch.timed_out(&open, &last)?;
                    break;
                }
                _ = looks.tick() => {}
            }
            match access.office().status().await {
                Ok(statuses) => {
                    watch.look(&mut open, &statuses)?;
                    last = statuses;
                }
                // A daemon that is being restarted is waited for: the rotation is in its store.
                Err(failure) if failure.exit == Code::Unreachable.number() => watch.unreachable(&failure),
                Err(failure) => return Err(failure.into()),
            }
        }
        Ok(watch.worst)
    }

    /// Asks for every rotation; answers the numbers of those that are under way.
    async fn begin(&self, access: &Access, watch: &mut Watch<'_>) -> Result<BTreeMap<String, u64>, Stop> {
        let actor = actor();
        let asked = self.names.iter().map(|name| {
            let request = Request::Rotate { compromised: self.compromised, unconfirmed: self.unconfirmed };
            access.office().perform(name, request, &actor)
        });
        let replies = futures_util::future::join_all(asked).await;
        let mut open = BTreeMap::new();
        for (name, reply) in self.names.iter().zip(replies) {
            match reply {
                Ok(reply) => {
                    let number = match reply.rotation {
                        Some(number) => number,
                        None => access.status_of(name).await?.rotation,
                    };
                    watch.begun(name, number, reply.joined, &reply.text)?;
                    open.insert(name.clone(), number);
                }
                Err(failure) => watch.refused(name, &failure)?,
            }
        }
        Ok(open)
    }
}

/// What is shown of the rotations, and how the command will end.
struct Watch<'a> {
    command: &'a RotateNow,
    daemon_runs: bool,
    /// Phase and wait, as last shown.
    shown: BTreeMap<String, (String, Option<String>)>,
    worst: Code,
}

impl Watch<'_> {
    fn begun(&mut self, name: &str, number: u64, joined: bool, text: &str) -> Result<(), Stop> {
        match joined {
            true => self.line(name, &format!("joined rotation {number}, which was under way already")),
            false => self.line(name, text.strip_prefix(name).map_or(text, |rest| rest.trim_start_matches([':', ' ']))),
        }
    }

    fn refused(&mut self, name: &str, failure: &Failure) -> Result<(), Stop> {
        self.verdict(name, Code::Other(failure.exit), &format!("not begun: {}", failure.text))
    }

    fn unreachable(&mut self, failure: &Failure) {
        let state = ("unreachable".to_owned(), None);
        if self.shown.insert(String::new(), state.clone()) != Some(state) {
            eprintln!("hookturn: {failure}; still asking");
        }
    }

    /// Shows what has changed, and takes those out that have ended.
    fn look(&mut self, open: &mut BTreeMap<String, u64>, statuses: &[Status]) -> Result<(), Stop> {
        self.shown.remove("");
        for (name, number) in open.clone() {
            let status = statuses.iter().find(|status| status.name == name).ok_or_else(|| unknown_to_daemon(&name))?;
            self.changed(status)?;
            let (code, text) = match judge(status, number, self.command.until) {
                Verdict::Going => continue,
                Verdict::Reached => self.reached(status, number),
                Verdict::Held => (Code::PersonNeeded, held(status)),
                Verdict::TurnedBack => (Code::PersonNeeded, turned_back(status, number)),
                Verdict::GivenUp => {
                    (Code::PersonNeeded, format!("rotation {number} ended without being completed: {}", reason(status)))
                }
            };
            open.remove(&name);
            self.verdict(&name, code, &text)?;
        }
        Ok(())
    }

    fn changed(&mut self, status: &Status) -> Result<(), Stop> {
        let state = (status.phase.clone(), status.waiting_for.clone());
        if self.shown.get(&status.name) == Some(&state) {
            return Ok(());
        }
        self.shown.insert(status.name.clone(), state);
        if self.command.json {
            return out::json_line(status);
        }
        self.line(&status.name, &progress_line(status))
    }

    fn reached(&self, status: &Status, number: u64) -> (Code, String) {
        let until = self.command.until.word();
        if status.completed >= number {
            return (Code::Done, format!("{until}: rotation {number} is complete, the old secret is refused by every replica"));
        }
        if self.daemon_runs {
            return (
                Code::Done,
                format!("{until}: rotation {number} goes on in the daemon, which retires the old secret by itself"),
            );
        }
        let text = format!(
            "{until}, but nothing is running to retire the old secret, until a later `hookturn run` or `hookturn rotate-now {} \
             --until retired` takes it on; until then the consumer accepts both",
            status.name
        );
        (Code::NotYet, text)
    }

    fn timed_out(&mut self, open: &BTreeMap<String, u64>, last: &[Status]) -> Result<(), Stop> {
        let watched = config::duration_text(self.command.timeout);
        for name in open.keys() {
            let status = last.iter().find(|status| status.name == *name);
            let why = status.map_or_else(|| "the daemon did not answer".to_owned(), reason);
            let text = format!("not {} after {watched}: {why}. {}", self.command.until.word(), goes_on(self.daemon_runs));
            self.verdict(name, Code::NotYet, &text)?;
        }
        Ok(())
    }

    fn verdict(&mut self, name: &str, code: Code, text: &str) -> Result<(), Stop> {
        self.worst = self.worst.worse(code);
        match self.command.json {
            true => out::json_line(&json!({
                "webhook": name, "until": self.command.until, "reached": code == Code::Done, "exit": code.number(), "verdict": text,
            })),
            false => out::line(&format!("{name}: {text}")),
        }
    }

    fn line(&self, name: &str, text: &str) -> Result<(), Stop> {
        if self.command.json {
            return Ok(());
        }
        out::line(&format!("{}  {name}  {text}", time::of_day(Clock::system().now())))
    }
}

fn goes_on(daemon_runs: bool) -> &'static str {
    match daemon_runs {
        true => "The rotation goes on in the daemon; `hookturn status` shows it",
        false => {
            "Nothing is lost, and the consumer keeps accepting every secret that may be in use; the rotation goes on with the \
             next `hookturn run` or `hookturn rotate-now`"
        }
    }
}

/// `patch   waits for a delivery signed with the new secret (since 12:00:01, until ... at the latest)`
fn progress_line(status: &Status) -> String {
    let mut line = format!("{:<7}", status.phase);
    if let Some(waiting_for) = &status.waiting_for {
        line.push_str(&format!(" waits for {waiting_for}"));
    }
    let now = Clock::system().now();
    let until = status.until.map(|at| format!("until {} at the latest", time::brief(at, now)));
    let times: Vec<String> = status.since.map(|at| format!("since {}", time::brief(at, now))).into_iter().chain(until).collect();
    if !times.is_empty() {
        line.push_str(&format!(" ({})", times.join(", ")));
    }
    line
}

fn turned_back(status: &Status, number: u64) -> String {
    let who = match status.cause.as_deref() {
        Some("switch-back") => "the consumer refused a genuine delivery signed with the new secret",
        _ => "a person asked for it",
    };
    let text = format!("rotation {number} is turning back to the previous secret: {who}; both are accepted until that is over.");
    format!("{text} Rotate again when `hookturn status {}` says idle", status.name)
}

fn held(status: &Status) -> String {
    let mut text = format!("held ({}): {}", status.hold.as_deref().unwrap_or("unknown reason"), reason(status));
    for way in &status.ways_out {
        text.push_str(&format!("\n  {way}"));
    }
    text
}

/// Why it is not there: the most telling of what is known.
fn reason(status: &Status) -> String {
    let told =
        [&status.detail, &status.keystore_trouble, &status.provider_trouble, &status.waiting_for, &status.last_answer_text];
    let sentence = told
        .into_iter()
        .flatten()
        .find(|text| !text.is_empty())
        .cloned()
        .unwrap_or_else(|| format!("it is in phase {}", status.phase));
    match &status.diagnosis {
        Some(word) => format!("{word}: {sentence}"),
        None => sentence,
    }
}
