//! `demo`: a whole rotation on loopback, with real HTTP and the real daemon, in less than a minute; and what a naive PATCH of
//! the same traffic loses.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;

use super::{
    exit::{Code, Stop},
    out,
    panel::{Look, Panel},
    progress::{Until, Verdict, judge},
};
use crate::{
    config::Config,
    daemon::{AdoptedSecret, Clock, Daemon, Office, Options, Request, Status},
    sandbox::{
        Sandbox, SandboxError,
        demo::{self, NaiveError, Scene, Tally},
    },
};

/// How often the panel is drawn anew.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// For the part before the rotation and for the rotation itself, each. Both are done in a fraction of it.
const AT_MOST: Duration = Duration::from_secs(50);
/// For the last tries of the deliveries that are still on their way at the end.
const LAST_TRIES: Duration = Duration::from_secs(30);
const ACTOR: &str = "demo";

#[derive(Args)]
pub struct Demo {
    /// PATCH first and tell the consumer afterwards, as a script would, and see what is lost
    #[arg(long)]
    without_hookturn: bool,
    /// Deliveries per second
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=500))]
    rate: u16,
}

impl Demo {
    pub async fn run(self) -> Result<Code, Stop> {
        let dir =
            tempfile::tempdir().map_err(|error| Stop::new(Code::Unreachable, format!("no temporary directory: {error}")))?;
        let sandbox = Sandbox::start(demo::options(dir.path().to_owned(), f64::from(self.rate))).await?;
        let mut panel = Panel::new();
        panel.say(&format!("a DialNexa look-alike sends {} deliveries per second to a consumer with 2 replicas", self.rate))?;
        let played = tokio::select! {
            played = async {
                match self.without_hookturn {
                    true => without(&sandbox, &mut panel).await,
                    false => with(&sandbox, dir.path(), &mut panel).await,
                }
            } => played,
            _ = tokio::signal::ctrl_c() => Err(Stop::new(Code::NotYet, "interrupted; the demo leaves nothing behind")),
        };
        panel.clear()?;
        sandbox.shutdown().await;
        played
    }
}

impl From<SandboxError> for Stop {
    fn from(error: SandboxError) -> Stop {
        let code = match error {
            SandboxError::Credential { .. } | SandboxError::Keystore { .. } => Code::PersonNeeded,
            _ => Code::Unreachable,
        };
        let reason = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        Stop::new(code, format!("{error}{reason}"))
    }
}

impl From<NaiveError> for Stop {
    fn from(error: NaiveError) -> Stop {
        Stop::new(Code::Unreachable, error.to_string())
    }
}

/// The rotation, by a daemon in this process that knows nothing but its configuration file.
async fn with(sandbox: &Sandbox, dir: &Path, panel: &mut Panel) -> Result<Code, Stop> {
    let config = Config::load(&sandbox.write_config(dir)?)?;
    let name = config.webhooks.first().map(|webhook| webhook.name.clone()).unwrap_or_default();
    let options = Options { purpose: "hookturn demo".to_owned(), only: None, doors: true, schedule: false, read_only: false };
    let daemon = Daemon::start(config, options).await?;
    let mut play = Play { sandbox, office: daemon.office(), name, both: Overlap::default() };
    let played = tokio::select! {
        played = play.perform(panel) => played,
        () = daemon.wait() => Err(Stop::new(Code::Unreachable, "the daemon has stopped: the log above says why")),
    };
    daemon.stop().await;
    played
}

struct Play<'a> {
    sandbox: &'a Sandbox,
    office: Arc<dyn Office>,
    name: String,
    both: Overlap,
}

/// How long the keystore held both secrets, as the consumer's file shows it.
#[derive(Default)]
struct Overlap {
    begun: Option<Instant>,
    length: Duration,
}

impl Overlap {
    fn look(&mut self, keys: usize, now: Instant) {
        match (keys, self.begun) {
            (2.., None) => self.begun = Some(now),
            (1, Some(begun)) => {
                self.length += now - begun;
                self.begun = None;
            }
            _ => {}
        }
    }
}

impl Play<'_> {
    async fn perform(&mut self, panel: &mut Panel) -> Result<Code, Stop> {
        self.adopt(panel).await?;
        panel.say("one replica answers 503 for a moment: DialNexa will retry those deliveries, signed with the old secret")?;
        demo::hiccup(self.sandbox).await;
        let asked_at = Clock::system().unix_millis();
        let request = Request::Rotate { compromised: false, unconfirmed: false };
        let reply = self.office.perform(&self.name, request, ACTOR).await?;
        panel.say(&reply.text)?;
        let number = reply.rotation.unwrap_or(1);
        let (verdict, status) = self.watch(number, panel).await?;
        panel.say("the rotation is over; the last deliveries reach their end")?;
        let settled = demo::finish(self.sandbox, LAST_TRIES).await;
        panel.clear()?;
        let tally = Tally::of(self.sandbox);
        let story = self.office.story(&self.name, 10).await?;
        let patched_at = story.attempts.iter().filter(|attempt| attempt.rotation == number).find_map(|attempt| attempt.ended_at);
        out::line(&report(&tally, self.both.length, &spans(asked_at, patched_at, &status.timeline)))?;
        let clean = settled && tally.rejected == 0 && tally.refused_tries == 0;
        match (verdict, clean) {
            (Verdict::Reached, true) => {
                out::line(
                    "Rotated: DialNexa signs with the new secret, every replica refuses the old one, and no delivery was lost.\nSee what a plain PATCH does: hookturn demo --without-hookturn",
                )?;
                Ok(Code::Done)
            }
            (Verdict::Reached, false) => Err(Stop::new(Code::PersonNeeded, "deliveries were refused: this should never happen")),
            _ => Err(Stop::new(Code::PersonNeeded, format!("the rotation was not completed: {}", waiting(&status)))),
        }
    }

    /// Hands over the secret that signs at the start, and waits until a delivery has shown that it is the right one.
    async fn adopt(&self, panel: &mut Panel) -> Result<(), Stop> {
        let file = self.sandbox.secret_file();
        let secret = std::fs::read_to_string(&file)
            .map_err(|error| Stop::new(Code::Unreachable, format!("{}: {error}", file.display())))?;
        let request = Request::Adopt { secret: AdoptedSecret::Given(secret) };
        panel.say(&self.office.perform(&self.name, request, ACTOR).await?.text)?;
        let deadline = Instant::now() + AT_MOST;
        loop {
            let status = self.status().await?;
            if status.confirmed {
                return panel.say("a real delivery has verified under it, and the consumer reported so: confirmed");
            }
            if Instant::now() > deadline {
                return Err(Stop::new(Code::NotYet, format!("the adopted secret is not confirmed: {}", waiting(&status))));
            }
            panel.show(self.look(&status, "adopt"))?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn watch(&mut self, number: u64, panel: &mut Panel) -> Result<(Verdict, Status), Stop> {
        let deadline = Instant::now() + AT_MOST;
        loop {
            let status = self.status().await?;
            self.both.look(demo::keys_in(self.sandbox), Instant::now());
            match judge(&status, number, Until::Retired) {
                Verdict::Going if Instant::now() < deadline => {}
                verdict => return Ok((verdict, status)),
            }
            panel.show(self.look(&status, &workflow(&status)))?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn status(&self) -> Result<Status, Stop> {
        let statuses = self.office.status().await?;
        let found = statuses.into_iter().find(|status| status.name == self.name);
        found.ok_or_else(|| Stop::new(Code::Bug, format!("the daemon does not know {}", self.name)))
    }

    fn look(&self, status: &Status, headline: &str) -> Look {
        let tally = Tally::of(self.sandbox);
        Look { headline: headline.to_owned(), waiting: waiting(status), counters: counters(&tally) }
    }
}

fn waiting(status: &Status) -> String {
    let parts: Vec<&str> = [status.waiting_for.as_deref(), status.diagnosis.as_deref()].into_iter().flatten().collect();
    parts.join("; ")
}

fn counters(tally: &Tally) -> String {
    format!(
        "sent {}, accepted {}, on their way {}, rejected {}",
        tally.sent,
        tally.accepted,
        tally.on_their_way(),
        tally.rejected
    )
}

/// `generate > push > [patch] > verify > drain > retire`
fn workflow(status: &Status) -> String {
    let phase = status.held_phase.as_deref().unwrap_or(&status.phase);
    let present = match phase {
        "patch" if status.patched => "verify",
        other => other,
    };
    let mark = |step: &&str| if *step == present { format!("[{step}]") } else { (*step).to_owned() };
    STEPS.iter().map(mark).collect::<Vec<_>>().join(" > ")
}

const STEPS: [&str; 6] = ["generate", "push", "patch", "verify", "drain", "retire"];

/// Milliseconds spent in each step. The patch ends with DialNexa's answer; what the phase lasts beyond it is the verifying.
fn spans(asked_at: i64, patched_at: Option<i64>, timeline: &[(String, i64)]) -> [i64; 6] {
    let mut spans = [0; 6];
    let began = timeline.first().map_or(asked_at, |(_, at)| *at);
    spans[0] = (began - asked_at).max(0);
    for (phase, next) in timeline.iter().zip(timeline.iter().skip(1)) {
        let ((phase, from), to) = (phase, next.1);
        match phase.as_str() {
            "patch" => {
                let answered = patched_at.unwrap_or(to).clamp(*from, to);
                spans[2] += answered - from;
                spans[3] += to - answered;
            }
            other => {
                if let Some(step) = STEPS.iter().position(|step| *step == other) {
                    spans[step] += to - from;
                }
            }
        }
    }
    spans
}

fn report(tally: &Tally, both: Duration, spans: &[i64; 6]) -> String {
    let mut lines = vec![
        String::new(),
        format!("deliveries    sent {}, accepted {}, rejected {}", tally.sent, tally.accepted, tally.rejected),
        format!(
            "              {} of them at a second try; tries refused for their signature: {}",
            tally.retried, tally.refused_tries
        ),
        format!("overlap       the consumer's keystore held both secrets for {:.1} s", both.as_secs_f64()),
    ];
    for (number, (step, span)) in STEPS.iter().zip(spans).enumerate() {
        let title = if number == 0 { "time spent" } else { "" };
        lines.push(format!("{title:<13} {step:<9} {:>6.2} s   {}", *span as f64 / 1000.0, MEANING[number]));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// What each step's time goes into.
const MEANING: [&str; 6] = [
    "preflight GET, new secret, sealed on disk",
    "keystore written and read back, every replica probed",
    "PATCH sent and answered",
    "until a real delivery signed with the new secret was accepted",
    "late retries signed with the old one still accepted",
    "old secret removed, every replica probed again",
];

/// The same traffic, the same hiccup, and a PATCH that nobody prepared.
async fn without(sandbox: &Sandbox, panel: &mut Panel) -> Result<Code, Stop> {
    panel.say("without hookturn: PATCH the secret, then tell the consumer, one replica after the other")?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    panel.say("one replica answers 503 for a moment: DialNexa will retry those deliveries, signed with the old secret")?;
    demo::hiccup(sandbox).await;
    let (scenes, mut played) = tokio::sync::mpsc::unbounded_channel();
    let naive = demo::naive(sandbox, move |scene| {
        // Nobody listens any more only where the play is over.
        let _ = scenes.send(scene);
    });
    tokio::pin!(naive);
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let mut headline = "PATCH";
    let mut ended = false;
    while !ended {
        tokio::select! {
            done = &mut naive => {
                done?;
                ended = true;
            }
            _ = looks.tick() => {}
        }
        while let Ok(scene) = played.try_recv() {
            headline = scene_text(scene);
            panel.say(headline)?;
        }
        let counters = counters(&Tally::of(sandbox));
        panel.show(Look { headline: headline.to_owned(), waiting: String::new(), counters })?;
    }
    panel.say("the last deliveries reach their end")?;
    demo::finish(sandbox, LAST_TRIES).await;
    let tally = Tally::of(sandbox);
    out::line(&format!(
        "\ndeliveries    sent {}, accepted {}, rejected {}\n\
         lost          {} deliveries for ever: {} signed with the new secret before the consumer had it,\n              {} retries signed \
         with the old one after it was gone\n              ({} tries were refused for their signature)\n\n\
         The same traffic with hookturn loses none: hookturn demo",
        tally.sent,
        tally.accepted,
        tally.rejected,
        tally.rejected,
        tally.rejected - tally.rejected_old,
        tally.rejected_old,
        tally.refused_tries,
    ))?;
    Ok(Code::Done)
}

fn scene_text(scene: Scene) -> &'static str {
    match scene {
        Scene::Patched => "DialNexa answered 200 and signs with the new secret; both replicas know the old one only",
        Scene::FirstTold => "the new secret is in the keystore, the old one is gone; the first replica has restarted",
        Scene::AllTold => "the second replica has restarted too",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_present_step_is_marked() {
        let at = |phase: &str, patched| workflow(&Status { phase: phase.into(), patched, ..Status::default() });
        assert_eq!(at("push", false), "generate > [push] > patch > verify > drain > retire");
        assert_eq!(at("patch", false), "generate > push > [patch] > verify > drain > retire");
        assert_eq!(at("patch", true), "generate > push > patch > [verify] > drain > retire");
    }

    #[test]
    fn the_patch_phase_is_told_in_two_parts_and_one_that_came_twice_is_summed() {
        let timeline =
            [("push", 10), ("patch", 30), ("drain", 100), ("patch", 110), ("drain", 120), ("retire", 200), ("idle", 205)];
        let timeline = timeline.map(|(phase, at)| (phase.to_owned(), at));
        assert_eq!(spans(7, Some(40), &timeline), [3, 20, 10, 70, 90, 5]);
    }

    #[test]
    fn the_overlap_is_the_time_between_two_keys_and_one() {
        let (mut both, start) = (Overlap::default(), Instant::now());
        for (keys, ms) in [(1, 0), (2, 100), (2, 200), (0, 300), (1, 400), (1, 500)] {
            both.look(keys, start + Duration::from_millis(ms));
        }
        assert_eq!(both.length, Duration::from_millis(300));
    }
}
