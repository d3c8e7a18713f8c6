//! Commands, carried out in this process: the slow and outward part here, the decision in the core.

mod adopt;

use std::{
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use super::{
    clock::Clock,
    describe,
    diagnosis::Finding,
    members::Dismissal,
    message::{Extras, Message},
    notify::Bell,
    request::{Failure, Office, Reply, Request, Story},
    status::Status,
    ward::Ward,
};
use crate::{
    config::ProbeBody,
    dialnexa::ProviderError,
    rotation::{Cause, Event, Inspection, KidSet, Note, Op, Refused, Verdict, Why},
    secret::Kid,
    steps::{
        Tools,
        generate::{Fresh, generate},
        patch,
        push::{self, Question},
    },
    store::{Store, StoreError},
};

/// A status is told anew at least so often.
const TOLD_AGAIN_MS: i64 = 1_000;

/// How long a request waits for the keystore to be read after a start.
const KEYSTORE_AT_MOST_MS: u64 = 5_000;

/// What everybody may read at any time, also while the store is in trouble.
#[derive(Default)]
pub(super) struct Board {
    statuses: RwLock<Vec<Status>>,
    store_trouble: Mutex<Option<StoreTrouble>>,
    /// When the writer last came round, by the boot clock.
    beat: AtomicU64,
}

/// What is wrong with the store, as a status says it.
#[derive(Clone)]
pub(super) struct StoreTrouble {
    pub diagnosis: &'static str,
    pub detail: String,
}

impl StoreTrouble {
    /// Nothing can be written.
    pub fn unreachable(error: &StoreError) -> StoreTrouble {
        StoreTrouble { diagnosis: "store-unreachable", detail: format!("{error}; nothing is done meanwhile") }
    }

    pub fn short_of_space(store: &dyn Store) -> Option<StoreTrouble> {
        let detail = format!(
            "{}: the disk is full; what is under way goes on with the space that was kept back, and nothing new is begun: make space",
            store.place()
        );
        store.short_of_space().then_some(StoreTrouble { diagnosis: "disk-full", detail })
    }
}

impl Board {
    pub fn publish(&self, wards: &mut [Ward], clock: &Clock, bell: &Bell) {
        let now = clock.unix_millis();
        let mut statuses = self.statuses.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        statuses.resize_with(wards.len(), Status::default);
        for (ward, shown) in wards.iter_mut().zip(statuses.iter_mut()) {
            // Findings, and being overdue, come with time alone.
            let stale = !(0..TOLD_AGAIN_MS).contains(&(now - ward.told_at));
            if !ward.touched && !stale && shown.name == ward.name() {
                continue;
            }
            ward.touched = false;
            ward.told_at = now;
            let status = describe::status(ward, now);
            if status.hold.is_some() && shown.hold != status.hold && !shown.name.is_empty() {
                bell.ring("hold", &status);
            }
            if status.overdue && !ward.facts.told_overdue {
                ward.facts.told_overdue = true;
                bell.ring("overdue", &status);
            }
            if status.completed > shown.completed && !shown.name.is_empty() {
                bell.ring("completed", &status);
            }
            tell_findings(&shown.findings, &status, bell);
            *shown = status;
        }
    }

    pub fn store_trouble(&self, trouble: Option<StoreTrouble>) {
        *self.store_trouble.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = trouble;
    }

    pub fn beat(&self, clock: &Clock) {
        self.beat.store(clock.boottime_ms(), Ordering::Relaxed);
    }

    /// Milliseconds since the writer last came round.
    pub fn silent_for(&self, clock: &Clock) -> u64 {
        clock.boottime_ms().saturating_sub(self.beat.load(Ordering::Relaxed))
    }

    pub fn statuses(&self) -> Vec<Status> {
        let mut statuses = self.statuses.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        if let Some(trouble) = &*self.store_trouble.lock().unwrap_or_else(std::sync::PoisonError::into_inner) {
            for status in &mut statuses {
                let (word, text) = (trouble.diagnosis.to_owned(), trouble.detail.clone());
                (status.diagnosis, status.detail) = (Some(word.clone()), Some(text.clone()));
                status.findings.insert(0, Finding { word, text, person: false });
                status.overdue = true;
            }
        }
        statuses
    }
}

/// What has come up since the last look, and what is over, for the log; a person is called for what does not mend itself.
fn tell_findings(before: &[Finding], status: &Status, bell: &Bell) {
    let among = |findings: &[Finding], word: &str| findings.iter().any(|finding| finding.word == word);
    for finding in status.findings.iter().filter(|finding| !among(before, &finding.word)) {
        match finding.person {
            true => tracing::warn!(webhook = status.name, diagnosis = finding.word, "{}", finding.text),
            false => tracing::info!(webhook = status.name, diagnosis = finding.word, "{}", finding.text),
        }
        if finding.person && status.hold.is_none() {
            bell.ring("diagnosis", status);
        }
    }
    for finding in before.iter().filter(|finding| !among(&status.findings, &finding.word)) {
        tracing::info!(webhook = status.name, diagnosis = finding.word, "no longer so");
    }
}

/// The office of the daemon in this process.
pub(super) struct Local {
    pub tools: Vec<Arc<Tools>>,
    pub board: Arc<Board>,
    pub store: Arc<dyn Store>,
    pub inbox: mpsc::Sender<Message>,
    pub clock: Clock,
    /// The path of the store.
    pub home: String,
}

impl Local {
    fn find(&self, name: &str) -> Result<(usize, &Arc<Tools>), Failure> {
        let known = || self.tools.iter().map(|tools| tools.config.name.as_str()).collect::<Vec<_>>().join(", ");
        self.tools
            .iter()
            .enumerate()
            .find(|(_, tools)| tools.config.name == name)
            .ok_or_else(|| failure(64, format!("no webhook is called {name:?}; the configuration has: {}", known())))
    }

    fn status_of(&self, name: &str) -> Option<Status> {
        self.board.statuses().into_iter().find(|status| status.name == name)
    }

    async fn send(&self, webhook: usize, op: Op, secrets: Vec<Fresh>, actor: &str) -> Result<Result<u64, Refused>, Failure> {
        let gone = || failure(70, "the writer has stopped");
        let (reply, answer) = oneshot::channel();
        let extras = Box::new(Extras { secrets, actor: Some(actor.to_owned()), words: None });
        let message = Message::Event { webhook, event: Event::Op(op), extras, reply: Some(reply) };
        self.inbox.send(message).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }

    /// After a restored backup the keystore is read first. A command that works without a daemon has only just begun to.
    async fn patiently<Asked>(&self, mut ask: impl FnMut() -> Asked) -> Result<Result<u64, Refused>, Failure>
    where
        Asked: Future<Output = Result<Result<u64, Refused>, Failure>>,
    {
        let began = self.clock.boottime_ms();
        loop {
            match ask().await? {
                Err(Refused { why: Why::KeystoreUnread, .. }) if self.clock.boottime_ms() - began < KEYSTORE_AT_MOST_MS => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                answer => return Ok(answer),
            }
        }
    }

    async fn simple(&self, webhook: usize, name: &str, op: Op, actor: &str, done: &str) -> Result<Reply, Failure> {
        let asked = self.patiently(|| self.send(webhook, op.clone(), Vec::new(), actor)).await?;
        let number = asked.map_err(|refused| refusal(name, refused))?;
        Ok(Reply { text: format!("{name}: {done}"), rotation: Some(number), joined: false })
    }

    fn fresh(&self, tools: &Tools) -> Result<Fresh, Failure> {
        generate(tools, self.clock.unix_millis()).map_err(|error| failure(70, error.to_string()))
    }

    /// Refuses a webhook that is missing or inactive before anything is generated.
    async fn preflight(&self, webhook: usize, tools: &Tools) -> Result<(), Failure> {
        let name = &tools.config.name;
        let (inspection, answer) = patch::inspect(tools).await;
        match (inspection, answer) {
            (Inspection::Active, Ok(found)) => {
                let words = super::message::Words::Webhook { url: found.url, events: found.events };
                let extras = Box::new(Extras { words: Some(words), ..Extras::default() });
                let event = Event::Webhook { call: 0, answer: Inspection::Active };
                let _ = self.inbox.send(Message::Event { webhook, event, extras, reply: None }).await;
                Ok(())
            }
            (Inspection::Inactive, _) => Err(failure(
                1,
                format!(
                    "{name}: DialNexa says that the webhook is inactive, so no delivery could prove a rotation; nothing was changed. Activate it (`hookturn webhook update {name} --activate`), then try again"
                ),
            )),
            (_, Err(error)) => Err(failure(provider_exit(&error), format!("{name}: {error}; nothing was changed"))),
            (_, Ok(_)) => Ok(()),
        }
    }

    pub async fn rotate(
        &self,
        name: &str,
        cause: Cause,
        compromised: bool,
        unconfirmed: bool,
        actor: &str,
    ) -> Result<Reply, Failure> {
        let (webhook, tools) = self.find(name)?;
        let status = self.status_of(name).unwrap_or_default();
        let under_way = status.target.is_some() && !matches!(status.phase.as_str(), "idle");
        if under_way {
            return self.join(webhook, name, &status, compromised, actor).await;
        }
        if !status.adopted {
            let text = format!("{name}: no secret was adopted yet: `hookturn adopt {name}` takes the one that is there already");
            return Err(failure(1, text));
        }
        if !(status.confirmed || unconfirmed || compromised) {
            return Err(unconfirmed_failure(name));
        }
        if let Some(trouble) = StoreTrouble::short_of_space(self.store.as_ref()).filter(|_| !compromised) {
            return Err(failure(69, format!("{name}: {}", trouble.detail)));
        }
        self.preflight(webhook, tools).await?;
        let op_of = |kid: Kid| Op::Rotate { fresh: kid, cause, compromised, unconfirmed };
        let asked = self.patiently(|| async {
            let fresh = self.fresh(tools)?;
            self.send(webhook, op_of(fresh.kid), vec![fresh], actor).await
        });
        match asked.await? {
            Ok(number) => Ok(Reply { text: format!("{name}: rotation {number} began"), rotation: Some(number), joined: false }),
            Err(Refused { why: Why::RotationUnderWay, .. }) => {
                let status = self.status_of(name).unwrap_or_default();
                self.join(webhook, name, &status, compromised, actor).await
            }
            Err(refused) => Err(refusal(name, refused)),
        }
    }

    async fn join(&self, webhook: usize, name: &str, status: &Status, compromised: bool, actor: &str) -> Result<Reply, Failure> {
        if compromised && !status.compromised {
            self.send(webhook, Op::Compromise, Vec::new(), actor).await?.map_err(|refused| refusal(name, refused))?;
        }
        let urgent = if compromised { ", now as an emergency" } else { "" };
        let text = format!("{name}: rotation {} is under way (phase {}); joined{urgent}", status.rotation, status.phase);
        Ok(Reply { text, rotation: Some(status.rotation), joined: true })
    }

    /// Hands out what a person needs to go on without hookturn. Written down first.
    async fn eject(&self, name: &str, actor: &str) -> Result<Reply, Failure> {
        let (webhook, tools) = self.find(name)?;
        let status = self.status_of(name).unwrap_or_default();
        let kids: Vec<Kid> = status.accepted.iter().filter_map(|kid| Kid::parse(kid).ok()).collect();
        if kids.is_empty() {
            return Err(failure(1, format!("{name}: there is no secret that hookturn knows")));
        }
        let mut lines = Vec::new();
        for kid in kids {
            let (done, committed) = oneshot::channel();
            let message = Message::Audit { webhook, note: Note::Ejected { kid }, actor: actor.to_owned(), done };
            self.inbox.send(message).await.map_err(|_| failure(70, "the writer has stopped"))?;
            committed
                .await
                .map_err(|_| failure(69, format!("{name}: it could not be written down, so nothing is handed out")))?;
            let Some(secret) = tools.vault.secret(kid) else { continue };
            let state = match () {
                () if status.target.as_deref() == Some(kid.as_str()) => "target",
                () if status.current.as_deref() == Some(kid.as_str()) => "current",
                () => "accepted",
            };
            lines.push(format!("{state} {kid} {}", secret.expose()));
        }
        Ok(Reply { text: lines.join("\n"), rotation: None, joined: false })
    }

    /// Finds out which probe body tells a right key from a wrong one at each replica, with the secret that is accepted now.
    async fn try_probe(&self, name: &str) -> Result<Reply, Failure> {
        let (webhook, tools) = self.find(name)?;
        let status = self.status_of(name).unwrap_or_default();
        let Some(accept) = status.current.as_deref().and_then(|kid| Kid::parse(kid).ok()) else {
            return Err(failure(1, format!("{name}: the probe needs a known current secret: adopt it first")));
        };
        let probed = status.replicas.iter().filter(|replica| replica.how == "probe").map(|replica| &replica.name);
        let urls: Vec<&String> = probed.collect();
        if urls.is_empty() {
            return Err(failure(78, format!("{name}: preflight.probe names no replica")));
        }
        let question = Question { generation: 0, accept, control: None, refuse: KidSet::new(), full: true };
        let mut lines = Vec::new();
        let mut works = Vec::new();
        for (body, word) in [(ProbeBody::Unparseable, "unparseable"), (ProbeBody::Json, "json")] {
            let mut all = true;
            for url in &urls {
                let (verdict, answer) = self.probe_once(webhook, tools, url, body, &question).await?;
                all &= verdict == Verdict::Accepts;
                lines.push(format!("{name}: {url}: {word}: {} ({answer})", describe::verdict_name(Some(verdict))));
            }
            if all {
                works.push(word);
            }
        }
        let configured = if tools.config.preflight.probe_body == ProbeBody::Json { "json" } else { "unparseable" };
        let verdict = match works.as_slice() {
            works if works.contains(&configured) => format!("{name}: probe_body = {configured:?} works at every replica"),
            [other, ..] => {
                format!("{name}: set preflight.probe_body = {other:?}: it works at every replica, {configured:?} does not")
            }
            [] => {
                lines.push(format!(
                    "{name}: no probe body tells a right key from a wrong one at every replica; see the lines above"
                ));
                return Err(failure(1, lines.join("\n")));
            }
        };
        lines.push(verdict);
        Ok(Reply { text: lines.join("\n"), rotation: None, joined: false })
    }

    async fn probe_once(
        &self,
        webhook: usize,
        tools: &Tools,
        url: &str,
        body: ProbeBody,
        question: &Question,
    ) -> Result<(Verdict, String), Failure> {
        let plan =
            push::plan_probe(tools, body, question).ok_or_else(|| failure(1, "the store has no value for the current secret"))?;
        let rows = push::book_probe(tools, url, &plan, self.clock.unix_millis());
        let (done, committed) = oneshot::channel();
        let gone = |_| failure(70, "the writer has stopped");
        self.inbox.send(Message::Probes { webhook, rows, done }).await.map_err(|_| failure(70, "the writer has stopped"))?;
        committed.await.map_err(gone)?;
        Ok(push::send_probe(tools, url, plan, question.full).await)
    }

    async fn dismiss(&self, name: &str, names: Vec<String>, actor: &str) -> Result<Reply, Failure> {
        let (webhook, _) = self.find(name)?;
        let gone = || failure(70, "the writer has stopped");
        let ((reply, answer), (done, committed)) = (oneshot::channel(), oneshot::channel());
        let dismissal = Dismissal { webhook, names, actor: actor.to_owned(), reply, done };
        self.inbox.send(Message::Dismiss(dismissal)).await.map_err(|_| gone())?;
        let dismissed = answer.await.map_err(|_| gone())?.map_err(|refused| failure(1, format!("{name}: {refused}")))?;
        committed.await.map_err(|_| failure(69, format!("{name}: it could not be written down")))?;
        let text = match dismissed.is_empty() {
            true => format!("{name}: no replica has vanished"),
            false => format!("{name}: dismissed {}; it is not waited for any more", dismissed.join(", ")),
        };
        Ok(Reply { text, rotation: None, joined: false })
    }

    async fn reaccept(&self, name: &str, kid: Option<&str>, for_ms: u64, actor: &str) -> Result<Reply, Failure> {
        let (webhook, _) = self.find(name)?;
        let status = self.status_of(name).unwrap_or_default();
        let newest = || failure(1, format!("{name}: nothing was retired yet, so nothing can be accepted again"));
        let kid = kid.or(status.retired.last().map(String::as_str)).ok_or_else(newest)?;
        let parsed = Kid::parse(kid).map_err(|_| failure(64, format!("{name}: {kid:?} is not a key id")))?;
        if !(1_000..=REACCEPT_AT_MOST_MS).contains(&for_ms) {
            return Err(failure(64, format!("{name}: a retired secret is accepted again for 1s to 30d")));
        }
        self.send(webhook, Op::Reaccept { kid: parsed, credit: for_ms }, Vec::new(), actor)
            .await?
            .map_err(|refused| reaccept_refusal(name, kid, refused))?;
        let text = format!(
            "{name}: {kid} is accepted again for {}; it is never sent to DialNexa, and taken out by itself",
            super::words::span(for_ms)
        );
        Ok(Reply { text, rotation: None, joined: false })
    }

    async fn supersede(&self, name: &str, actor: &str) -> Result<Reply, Failure> {
        let (webhook, tools) = self.find(name)?;
        let asked = self.patiently(|| async {
            let fresh = self.fresh(tools)?;
            self.send(webhook, Op::Supersede { fresh: fresh.kid }, vec![fresh], actor).await
        });
        let number = asked.await?.map_err(|refused| refusal(name, refused))?;
        let kid = self.status_of(name).and_then(|status| status.target).unwrap_or_default();
        Ok(Reply {
            text: format!("{name}: rotation {number} goes on with the fresh target {kid}"),
            rotation: Some(number),
            joined: false,
        })
    }
}

const REACCEPT_AT_MOST_MS: u64 = 30 * 24 * 60 * 60 * 1000;

#[async_trait]
impl Office for Local {
    async fn status(&self) -> Result<Vec<Status>, Failure> {
        Ok(self.board.statuses())
    }

    async fn perform(&self, webhook: &str, request: Request, actor: &str) -> Result<Reply, Failure> {
        let (place, _) = self.find(webhook)?;
        match request {
            Request::Adopt { secret } => self.adopt(webhook, &secret, actor).await,
            Request::Rotate { compromised, unconfirmed } => {
                self.rotate(webhook, Cause::Demand, compromised, unconfirmed, actor).await
            }
            Request::Abort => {
                self.simple(place, webhook, Op::Abort, actor, "the new secret is being taken back; it was never sent").await
            }
            Request::Rollback => {
                self.simple(
                    place,
                    webhook,
                    Op::Rollback,
                    actor,
                    "turning back to the previous secret; both stay accepted until it is proven",
                )
                .await
            }
            Request::Supersede => self.supersede(webhook, actor).await,
            Request::Reaccept { kid, for_ms } => self.reaccept(webhook, kid.as_deref(), for_ms, actor).await,
            Request::Dismiss { replicas } => self.dismiss(webhook, replicas, actor).await,
            Request::Eject => self.eject(webhook, actor).await,
            Request::TryProbe => self.try_probe(webhook).await,
            Request::Pause => self.simple(place, webhook, Op::Pause, actor, "paused: nothing is begun, sent or removed").await,
            Request::Resume => self.simple(place, webhook, Op::Resume, actor, "resumed").await,
        }
    }

    async fn home(&self) -> Result<String, Failure> {
        Ok(self.home.clone())
    }

    async fn story(&self, webhook: &str, limit: u32) -> Result<Story, Failure> {
        self.find(webhook)?;
        let unreachable = |error: crate::store::StoreError| failure(69, error.to_string());
        Ok(Story {
            journal: self.store.journal(webhook, None, limit).await.map_err(unreachable)?,
            attempts: self.store.attempts(webhook, limit).await.map_err(unreachable)?,
            evidence: self.store.evidence(webhook, limit).await.map_err(unreachable)?,
        })
    }
}

pub(super) fn failure(exit: u8, text: impl Into<String>) -> Failure {
    Failure { exit, text: text.into() }
}

fn provider_exit(error: &ProviderError) -> u8 {
    match error {
        ProviderError::ApiKeyRefused { .. } | ProviderError::NotFound { .. } | ProviderError::Refused { .. } => 1,
        _ => 69,
    }
}

fn unconfirmed_failure(name: &str) -> Failure {
    failure(
        1,
        format!(
            "{name}: no delivery has verified under the current secret yet, so a wrong one would go unnoticed. Wait for a delivery, or say --unconfirmed"
        ),
    )
}

fn reaccept_refusal(name: &str, kid: &str, refused: Refused) -> Failure {
    match refused.why {
        Why::Compromised => {
            failure(1, format!("{name}: {kid} had leaked: whoever has it would be believed, so it stays refused"))
        }
        Why::NotRetired => failure(1, format!("{name}: {kid} is none of the newest secrets that were retired here")),
        Why::RotationUnderWay => {
            failure(1, format!("{name}: a rotation is under way; it retires only what has had its time. Try again after it"))
        }
        _ => refusal(name, refused),
    }
}

fn refusal(name: &str, refused: Refused) -> Failure {
    match refused.why {
        Why::Unconfirmed => unconfirmed_failure(name),
        Why::Paused => failure(1, format!("{name}: it is paused; `hookturn resume {name}` first")),
        Why::AlreadySent => failure(
            1,
            format!(
                "{name}: the new secret may already be with DialNexa, so it cannot just be dropped; `hookturn rollback {name}` turns back safely"
            ),
        ),
        Why::NeverSent => failure(1, format!("{name}: nothing was sent yet; `hookturn abort {name}` takes the new secret back")),
        Why::Compromised if refused.event == Op::Compromise.name() => failure(
            1,
            format!(
                "{name}: the rotation under way is to keep the very secret that leaked; nothing was changed. \
                 `hookturn supersede {name}` makes a fresh one, then say --compromised again"
            ),
        ),
        Why::NoWayBack if refused.event == Event::Op(Op::Abort).name() => failure(
            1,
            format!(
                "{name}: the current secret is not known to hookturn (it was adopted with --unknown), so the keystore would be left empty; \
                 nothing was changed. The new secret harms nobody: only your consumer has it. Let the rotation go on, or keep it as it \
                 is with `hookturn pause {name}`"
            ),
        ),
        why => failure(1, format!("{name}: {} is refused in phase {}: {why}", refused.event, refused.phase)),
    }
}
