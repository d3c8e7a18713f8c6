//! Carries out what the core asked for, each effect in a task of its own, and brings back the answer as an event.
//!
//! One webhook's slow keystore or silent replica occupies its own tasks only.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::message::{Extras, Message, Words};
use crate::{
    boundary::{self, Boundary},
    dialnexa::Line,
    keystore::{KeyState, KeystoreError},
    rotation::{Effect, Event, Inspection, KidSet, PatchAnswer, ReplicaId, Verdict},
    secret::Kid,
    steps::{
        Tools,
        generate::seal,
        patch,
        push::{self, Question, Reading, Replica},
    },
    store::Origin,
};

/// Open connections that nothing was sent on yet, by webhook and call.
type Lines = Arc<Mutex<HashMap<(usize, u64), Box<dyn Line>>>>;

#[derive(Clone)]
pub(super) struct Hands {
    pub inbox: mpsc::Sender<Message>,
    pub tasks: TaskTracker,
    pub cancel: CancellationToken,
    lines: Lines,
    clock: super::Clock,
}

/// Everything a task needs to know of the webhook at the moment its effect was released.
#[derive(Clone)]
pub(super) struct Job {
    pub webhook: usize,
    pub tools: Arc<Tools>,
    /// When the core decided on the effect, by the boot clock.
    pub decided_at: u64,
    pub labels: Vec<(Kid, KeyState)>,
    pub replicas: Vec<Replica>,
}

impl Hands {
    pub fn new(inbox: mpsc::Sender<Message>, clock: super::Clock) -> Hands {
        Hands { inbox, tasks: TaskTracker::new(), cancel: CancellationToken::new(), lines: Arc::default(), clock }
    }

    /// Starts one effect. Called only after the transition that asked for it was committed.
    pub fn start(&self, job: Job, effect: Effect) {
        let hands = self.clone();
        // A PATCH that was sent is let finish also when the rest is cancelled: its answer is worth having.
        let cancel = if matches!(effect, Effect::SendPatch { .. }) { CancellationToken::new() } else { self.cancel.clone() };
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = cancel.cancelled() => {}
                () = hands.carry_out(job, effect) => {}
            }
        });
    }

    async fn carry_out(&self, job: Job, effect: Effect) {
        let (before, after) = around(&effect);
        boundary::reach(before);
        let (event, extras) = match effect {
            Effect::WriteKeystore { call, generation, kids } => {
                let label = |kid| job.labels.iter().find(|(k, _)| *k == kid).map_or(KeyState::Previous, |(_, state)| *state);
                let result = push::write(&job.tools, generation, &kids, label).await;
                self.keystore_answer(&job, call, result)
            }
            Effect::ReadKeystore { call } => {
                let result = push::read(&job.tools).await;
                self.keystore_answer(&job, call, result)
            }
            Effect::AskReplicas { round, whom, generation, accept, control, refuse, full } => {
                self.ask(&job, round, whom, Question { generation, accept, control, refuse, full }).await;
                (Event::RoundEnded { round }, Extras::default())
            }
            Effect::InspectWebhook { call } => self.inspect(&job, call).await,
            Effect::Connect { call } => self.connect(&job, call).await,
            Effect::SendPatch { call, attempt, kid } => self.send(&job, call, attempt, kid).await,
        };
        boundary::reach(after);
        self.answer(&job, event, extras).await;
    }

    fn keystore_answer(&self, job: &Job, call: u64, result: Result<Reading, KeystoreError>) -> (Event, Extras) {
        let mut extras = Extras::default();
        let event = match result {
            Ok(Reading { mut found, strangers }) => {
                extras.words = Some(Words::Keystore(None));
                for (kid, secret) in strangers {
                    let name = &job.tools.config.name;
                    match seal(&job.tools.sealing, name, kid, secret, Origin::Keystore, self.clock.unix_millis()) {
                        Ok(fresh) => extras.secrets.push(fresh),
                        Err(_) => {
                            found.strangers = KidSet::new();
                            found.opaque = true;
                        }
                    }
                }
                Event::Keystore { call, found }
            }
            Err(error) => {
                // The consumer's own programs may say in their trouble what they were given.
                let trouble = job.tools.vault.redact(&error.to_string());
                tracing::warn!(webhook = job.tools.config.name, "keystore: {trouble}; tried again");
                extras.words = Some(Words::Keystore(Some(trouble)));
                Event::KeystoreFailed { call }
            }
        };
        (event, extras)
    }

    async fn ask(&self, job: &Job, round: u64, whom: Vec<ReplicaId>, question: Question) {
        let generations = push::status_generations(&job.tools).await;
        let questions = whom.iter().map(|id| {
            let (generations, question) = (&generations, &question);
            async move {
                let (verdict, answer) = match job.replicas.get(usize::from(id.0)) {
                    Some(Replica::Probe { url }) => self.probe(job, url, question).await,
                    Some(Replica::ReadBack { url }) => push::read_back(&job.tools, url, question).await,
                    Some(Replica::StatusFile { name }) => push::judge_status(generations, name, question.generation),
                    None => (Verdict::Unreachable, "no such replica".to_owned()),
                };
                let extras = Extras { words: Some(Words::Replica(*id, answer)), ..Extras::default() };
                boundary::reach(Boundary::AfterProbe);
                self.answer(job, Event::Replica { round, replica: *id, verdict }, extras).await;
            }
        });
        futures_util::future::join_all(questions).await;
    }

    /// The digests of all bodies are on record before the first one is sent: none of them may ever count as evidence.
    async fn probe(&self, job: &Job, url: &str, question: &Question) -> (Verdict, String) {
        let Some(plan) = push::plan_probe(&job.tools, job.tools.config.preflight.probe_body, question) else {
            return (Verdict::Inconclusive, "the store has no value for the target".to_owned());
        };
        let rows = push::book_probe(&job.tools, url, &plan, self.clock.unix_millis());
        let (done, committed) = oneshot::channel();
        let message = Message::Probes { webhook: job.webhook, rows, done };
        if self.inbox.send(message).await.is_err() || committed.await.is_err() {
            return (Verdict::Unreachable, "hookturn is shutting down".to_owned());
        }
        boundary::reach(Boundary::ProbeBooked);
        push::send_probe(&job.tools, url, plan, question.full).await
    }

    async fn inspect(&self, job: &Job, call: u64) -> (Event, Extras) {
        let (answer, webhook) = patch::inspect(&job.tools).await;
        let words = match webhook {
            Ok(webhook) => Words::Webhook { url: webhook.url, events: webhook.events },
            Err(error) => Words::Provider(Some(error.to_string())),
        };
        let answer = if self.cancel.is_cancelled() { Inspection::Unreachable } else { answer };
        (Event::Webhook { call, answer }, Extras { words: Some(words), ..Extras::default() })
    }

    async fn connect(&self, job: &Job, call: u64) -> (Event, Extras) {
        let (event, words) = match patch::connect(&job.tools).await {
            Ok(line) => {
                let mut lines = self.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                // An older line of this webhook was not used; dropping it closes it.
                lines.retain(|(webhook, _), _| *webhook != job.webhook);
                lines.insert((job.webhook, call), line);
                (Event::Connected { call }, Words::Provider(None))
            }
            Err(error) => {
                tracing::warn!(webhook = job.tools.config.name, "{error}; tried again");
                (Event::ConnectFailed { call }, Words::Provider(Some(error.to_string())))
            }
        };
        (event, Extras { words: Some(words), ..Extras::default() })
    }

    async fn send(&self, job: &Job, call: u64, attempt: u64, kid: Kid) -> (Event, Extras) {
        let line = self.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&(job.webhook, call));
        let (answer, text) = match line {
            Some(line) => {
                let report = patch::send(&job.tools, line, kid, self.time_to_send(job)).await;
                (report.answer, report.text)
            }
            None => (PatchAnswer::Ambiguous { wait: 0 }, "the connection was gone".to_owned()),
        };
        let extras = Extras { words: Some(Words::Attempt(attempt, text)), ..Extras::default() };
        (Event::Patched { attempt, answer }, extras)
    }

    /// The quarantine is counted from the intent, and half of it is there for sending. A commit on a slow disk, or a sleep of
    /// the machine, may have used that up: what would be sent then could be applied after the quarantine.
    fn time_to_send(&self, job: &Job) -> Duration {
        let spent = self.clock.boottime_ms().saturating_sub(job.decided_at);
        let left = (job.tools.config.policy.quarantine / 2).saturating_sub(spent);
        job.tools.config.patch_timeout.min(Duration::from_millis(left))
    }

    async fn answer(&self, job: &Job, event: Event, extras: Extras) {
        let message = Message::Event { webhook: job.webhook, event, extras: Box::new(extras), reply: None };
        // The writer is gone only when the process ends.
        let _ = self.inbox.send(message).await;
    }
}

/// The moments right before an effect, and right after it, when its result is there and nobody knows.
fn around(effect: &Effect) -> (Boundary, Boundary) {
    match effect {
        Effect::WriteKeystore { .. } => (Boundary::BeforeKeystoreWrite, Boundary::AfterKeystoreWrite),
        Effect::ReadKeystore { .. } => (Boundary::BeforeKeystoreRead, Boundary::AfterKeystoreRead),
        Effect::AskReplicas { .. } => (Boundary::BeforeQuestion, Boundary::AfterQuestion),
        Effect::InspectWebhook { .. } => (Boundary::BeforeInspect, Boundary::AfterInspect),
        Effect::Connect { .. } => (Boundary::BeforeConnect, Boundary::AfterConnect),
        Effect::SendPatch { .. } => (Boundary::BeforePatch, Boundary::AfterPatch),
    }
}
