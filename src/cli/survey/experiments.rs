//! The experiments, in order. Each has a time limit, and what was seen until then stays.

use std::{process::Stdio, sync::Arc, time::Duration};

use tokio::process::Command;

use super::{super::exit::Stop, page::MEMO, page::Survey, receiver::Bench};
use crate::{
    config::{self, duration_text},
    daemon::Parts,
    dialnexa::{ProviderError, Update},
    evidence::survey::{Arrival, Observations, Patched, Pause, Readdressed, Signed},
    rotation::{Millis, PatchAnswer},
    secret::Kid,
    steps::generate,
    store::{Batch, Change, Origin},
};

/// What a person chose.
pub struct Plan {
    /// The longest wait for a delivery that an experiment needs.
    pub wait: Duration,
    /// The longest watch for retries.
    pub watch: Duration,
    pub stimulus: Vec<String>,
    pub inactive: Option<Duration>,
    pub verification: Option<String>,
}

/// One survey under way.
pub struct Laboratory<'a> {
    pub webhook: &'a config::Webhook,
    pub parts: &'a Parts,
    pub bench: Arc<Bench>,
    pub plan: Plan,
    pub survey: Survey,
    pub seen: Observations,
    /// What DialNexa has as its URL.
    pub url: Option<String>,
    /// What is to be put back, should it be stopped now.
    pub undo: Update,
}

/// How often a request without a clear answer is sent. The same secret each time.
const TRIES: u32 = 4;
const PAUSE_BETWEEN_TRIES: Duration = Duration::from_secs(2);
/// How often the stimulus is used for one wait: each may cost a call.
const CALLS: u32 = 6;
/// How long a request to a new URL is waited for, after DialNexa's answer.
const VERIFIED_WITHIN: Duration = Duration::from_secs(30);

impl Laboratory<'_> {
    /// Everything, to its end. A person may stop it at any await: what was seen is in `self` and in the bench.
    pub async fn run(&mut self) -> Result<(), Stop> {
        self.patch(Signed::A).await?;
        if !self.signs(Signed::A).await {
            return Ok(());
        }
        // At once: the retries of the delivery that was just refused are still to come.
        self.patch(Signed::B).await?;
        if !self.signs(Signed::B).await {
            return Ok(());
        }
        self.readdress().await;
        self.switch_off_and_on().await?;
        self.watch_retries().await;
        Ok(())
    }

    /// What has been seen so far, as a result.
    pub fn conclude(&mut self, interrupted: bool) {
        self.seen.arrivals = self.bench.arrivals();
        self.seen.cut = self.bench.cut();
        self.seen.dropped = self.bench.dropped();
        self.seen.ended_at = self.bench.now();
        self.seen.interrupted = interrupted;
        self.survey.saw(self.seen.clone());
    }

    /// Into the store, beside the webhook's record.
    pub async fn keep(&self, secrets: Vec<crate::store::StoredSecret>) -> Result<(), Stop> {
        let value = serde_json::to_value(&self.survey).unwrap_or_default();
        let name = self.webhook.name.clone();
        let change = Change { webhook: name, secrets, memos: vec![(MEMO.to_owned(), value)], ..Change::default() };
        let clock = &self.parts.clock;
        let batch = Batch { at: clock.unix_millis(), stamp: clock.stamp(), changes: vec![change] };
        self.parts.store.commit(batch).await.map_err(|error| crate::daemon::StartError::from(error).into())
    }

    /// Makes a secret, commits it, and only then sends it. The same one again where the answer is in doubt.
    async fn patch(&mut self, signed: Signed) -> Result<(), Stop> {
        let (kid, secret) = self.fresh(signed).await?;
        let place = usize::from(signed == Signed::B);
        for attempt in 1..=TRIES {
            let line = self.parts.provider.connect().await?;
            let sent_at = self.seen.patches.get(place).map_or_else(|| self.bench.now(), |first| first.sent_at);
            // Should it be stopped now, the request has gone out all the same.
            self.note(place, sent_at, PatchAnswer::Ambiguous { wait: 0 }, "sent; stopped before an answer came".to_owned());
            let report = line.patch_secret(&self.webhook.id, &secret, self.webhook.patch_timeout).await;
            say(&format!("PATCH with secret {} ({kid}): {}", signed.name(), report.text));
            self.note(place, sent_at, report.answer, report.text);
            match report.answer {
                PatchAnswer::Limited { wait } | PatchAnswer::Ambiguous { wait } if attempt < TRIES => {
                    tokio::time::sleep(Duration::from_millis(wait).max(PAUSE_BETWEEN_TRIES)).await;
                }
                _ => break,
            }
        }
        Ok(())
    }

    fn note(&mut self, place: usize, sent_at: Millis, answer: PatchAnswer, text: String) {
        self.seen.patches.truncate(place);
        self.seen.patches.push(Patched { sent_at, ended_at: self.bench.now(), answer, text });
    }

    async fn fresh(&mut self, signed: Signed) -> Result<(Kid, crate::secret::Secret), Stop> {
        let bug = |error: String| Stop::new(super::super::exit::Code::Bug, error);
        let secret = crate::secret::Secret::generate().map_err(|error| bug(error.to_string()))?;
        let kid = self.parts.chance.kid().map_err(|error| bug(error.to_string()))?;
        let now = self.parts.clock.unix_millis();
        let made = generate::seal(&self.parts.sealing, &self.webhook.name, kid, secret, Origin::Generated, now)
            .map_err(|error| bug(error.to_string()))?;
        self.survey.kids.push(kid.to_string());
        self.keep(vec![made.stored]).await?;
        self.bench.knows(kid, made.secret.clone(), signed);
        Ok((kid, made.secret))
    }

    /// Waits for a delivery under a secret that was just sent. A PATCH that was clearly refused is not waited for.
    async fn signs(&self, wanted: Signed) -> bool {
        let refused = |patch: &Patched| !matches!(patch.answer, PatchAnswer::Applied | PatchAnswer::Ambiguous { .. });
        if self.seen.patches.last().is_none_or(refused) {
            return false;
        }
        say(&format!("waiting for a delivery under secret {}, {} at the most", wanted.name(), duration_text(self.plan.wait)));
        let came = self.bench.until(|arrivals| arrivals.iter().any(|arrival| arrival.signed == wanted && arrival.first));
        tokio::select! {
            () = came => {
                say(&format!("a delivery came under secret {}", wanted.name()));
                true
            }
            () = tokio::time::sleep(self.plan.wait) => {
                say(&format!("no delivery came under secret {}", wanted.name()));
                false
            }
            never = self.provoke() => match never {},
        }
    }

    /// Provokes deliveries until it is dropped: by the command that was given, or by asking the person. Again after each new
    /// delivery that was not what is waited for, a few times, slower and slower.
    async fn provoke(&self) -> std::convert::Infallible {
        let mut pause = Duration::from_secs(1);
        for _ in 0..CALLS {
            let before = self.bench.arrivals().len();
            self.call().await;
            self.bench.until(|arrivals| arrivals.iter().skip(before).any(|arrival| arrival.first)).await;
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        std::future::pending().await
    }

    /// One test call.
    async fn call(&self) {
        let Some((program, arguments)) = self.plan.stimulus.split_first() else {
            say("place a test call that completes now, so that a delivery comes");
            return;
        };
        let mut command = Command::new(program);
        command.args(arguments).env("HOOKTURN_WEBHOOK", &self.webhook.name).kill_on_drop(true);
        match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().await {
            Ok(status) if status.success() => say("the stimulus was used"),
            Ok(status) => say(&format!("the stimulus failed: {status}; place a test call by hand")),
            Err(error) => say(&format!("{program}: {error}; place a test call by hand")),
        }
    }

    /// Whether DialNexa asks a new URL first. The old one is put back.
    async fn readdress(&mut self) {
        let Some(url) = self.plan.verification.clone() else { return };
        let at = self.bench.now();
        self.undo.url = self.url.clone();
        let taken = self.update(Update { url: Some(url), ..Update::default() }).await;
        let asked = self.bench.until(|arrivals| arrivals.iter().any(|arrival| arrival.at >= at && arrival.is_verification()));
        let _ = tokio::time::timeout(VERIFIED_WITHIN.min(self.plan.wait), asked).await;
        say(&match &taken {
            Ok(()) => "another URL was sent; the old one is put back".to_owned(),
            Err(why) => format!("DialNexa did not take the other URL: {why}"),
        });
        self.put_back().await;
        let taken = taken.map_err(|error| error.to_string());
        self.seen.readdressed = Some(Readdressed { at, until: self.bench.now(), taken });
    }

    /// Whether events wait while it is off.
    async fn switch_off_and_on(&mut self) -> Result<(), Stop> {
        let Some(length) = self.plan.inactive else { return Ok(()) };
        self.undo.is_active = Some(true);
        self.update(Update { is_active: Some(false), ..Update::default() }).await?;
        let off_at = self.bench.now();
        say(&format!("the webhook is switched off for {}", duration_text(length)));
        let off = tokio::time::sleep(length);
        tokio::pin!(off);
        self.call().await;
        off.await;
        // Before it is asked for: what waited may come sooner than the answer.
        let on_at = self.bench.now();
        self.put_back().await;
        self.seen.pause = Some(Pause { off_at, on_at });
        say("it is switched on again: place no call now");
        let came = self.bench.until(|arrivals| arrivals.iter().any(|arrival| arrival.at >= on_at && arrival.first));
        let _ = tokio::time::timeout(self.plan.wait, came).await;
        Ok(())
    }

    /// What was changed beside the secret is made as it was.
    pub async fn put_back(&mut self) {
        let undo = std::mem::take(&mut self.undo);
        if undo != Update::default()
            && let Err(why) = self.update(undo).await
        {
            say(&format!("the webhook could not be made as it was (URL, is_active): {why}"));
        }
    }

    async fn update(&self, update: Update) -> Result<(), ProviderError> {
        self.parts.provider.update(&self.webhook.id, &update).await.map(drop)
    }

    /// Until nothing more can be expected: four times the longest gap, and a twelfth of the longest watch at the least.
    async fn watch_retries(&self) {
        say(&format!("watching for retries, {} at the most; Ctrl-C ends it with what was seen", duration_text(self.plan.watch)));
        let least = u64::try_from(self.plan.watch.as_millis() / 12).unwrap_or(Millis::MAX);
        let over = async {
            loop {
                let arrivals = self.bench.arrivals();
                let wait = [503, 401].iter().filter_map(|status| expected(&arrivals, *status, least)).max().unwrap_or(0);
                let now = self.bench.now();
                if wait <= now {
                    return;
                }
                let news = self.bench.until(|later| later.len() > arrivals.len());
                let _ = tokio::time::timeout(Duration::from_millis(wait - now), news).await;
            }
        };
        let _ = tokio::time::timeout(self.plan.watch, over).await;
    }
}

/// Until when another try of the delivery that is refused with this status may come.
fn expected(arrivals: &[Arrival], status: u16, least: Millis) -> Option<Millis> {
    let first = arrivals.iter().find(|arrival| arrival.first && arrival.answered == status)?;
    let tries: Vec<Millis> =
        arrivals.iter().filter(|arrival| arrival.delivery == first.delivery).map(|arrival| arrival.at).collect();
    let longest = tries.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
    tries.last().map(|last| last.saturating_add(longest.saturating_mul(4).max(least)))
}

/// Progress, and what the person is to do.
pub fn say(text: &str) {
    eprintln!("hookturn: {text}");
}
