//! `survey`: finds out on a throw-away webhook of a live account what no page of DialNexa says.
//!
//! Two PATCHes and a few test calls. It opens a receiver of its own, and answers each delivery as the experiment needs. Every
//! secret is sealed in the store before it is sent, as always; the last one that DialNexa has is known to nobody else.

mod experiments;
mod page;
mod receiver;

use std::{net::SocketAddr, time::Duration};

use clap::Args;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    access::{Access, Need, known},
    exit::{Code, Stop},
    out,
};
use crate::{
    config::{self, Config, Webhook},
    daemon::{Options, Parts},
    dialnexa::Update,
    evidence::{
        Hand, Limits, Reception,
        survey::{Observations, Signed, Trust},
    },
    rotation::{Current, PatchAnswer, Phase},
    store::{Sqlite, Store},
};
use experiments::{Laboratory, Plan, say};
use receiver::{Bench, Receiver};

use page::{MEMO, Survey};

#[derive(Args)]
pub struct Command {
    /// A webhook that nobody needs, by its name in the configuration
    name: String,
    /// Yes, its secret may be lost: it is changed twice, and what it is now cannot be put back
    #[arg(long)]
    throw_away: bool,
    /// Where its deliveries arrive; listen.deliveries, where nothing is said
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// The longest wait for a delivery, in each experiment
    #[arg(long, default_value = "30m", value_parser = duration)]
    wait: Duration,
    /// The longest watch for retries; it ends early once no more can be expected
    #[arg(long, default_value = "6h", value_parser = duration)]
    watch: Duration,
    /// Also switch it off for so long, with a call meanwhile, to see whether events wait
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    inactive: Option<Duration>,
    /// Also give it this URL for a moment, which must lead here too, to see whether DialNexa asks it first
    #[arg(long, value_name = "URL")]
    verification: Option<String>,
    /// Print the result of the last survey again, and do nothing
    #[arg(long, conflicts_with = "throw_away")]
    last: bool,
    #[arg(long)]
    json: bool,
    /// A command that places a test call; without it you are asked to. Everything after it belongs to it
    #[arg(long, value_name = "CMD", num_args = 1.., allow_hyphen_values = true)]
    stimulus: Vec<String>,
}

fn duration(text: &str) -> Result<Duration, String> {
    config::duration(text).map_err(|bad| format!("{}: {}", bad.reason, bad.help))
}

impl Command {
    pub async fn run(self, config: Config) -> Result<Code, Stop> {
        if self.last {
            return self.show(&config).await;
        }
        let webhook = known(&config, &self.name)?.clone();
        if !self.throw_away {
            let text = format!(
                "{}: a survey changes the secret of {} twice, refuses deliveries on purpose, and cannot put back what is there \
                 now; say --throw-away if nobody needs this webhook, or make one that nobody does",
                self.name, webhook.id
            );
            return Err(Stop::new(Code::PersonNeeded, text));
        }
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let listener = self.bind(&config).await?;
        unused(&config, &self.name).await?;
        let options = Options {
            purpose: format!("hookturn survey {}", self.name),
            only: Some(vec![self.name.clone()]),
            doors: false,
            schedule: false,
            read_only: false,
        };
        let parts = Parts::of_machine(&config, &options).await?;
        let ended = self.survey(&config, &webhook, &parts, listener, async {
            tokio::select! {
                _ = interrupt.recv() => (),
                _ = terminate.recv() => (),
            }
        });
        let ended = ended.await;
        parts.store.close().await;
        let (survey, code) = ended?;
        match self.json {
            true => out::json(&survey)?,
            false => out::line(&survey.page())?,
        }
        if !survey.changed() {
            return Ok(code);
        }
        let text = "may now be signed with a secret that only this store holds: delete it at DialNexa, and take it out of the \
                    configuration; the result stays (hookturn check uses it)";
        say(&format!("{} {text}", survey.id));
        Ok(code)
    }

    async fn bind(&self, config: &Config) -> Result<TcpListener, Stop> {
        let Some(address) = self.listen.or(config.listen.deliveries) else {
            return Err(Stop::usage("listen.deliveries is off: say where deliveries arrive, --listen 127.0.0.1:8422"));
        };
        let unbound = |error| Stop::new(Code::Unreachable, format!("{address}: {error}; --listen takes another address"));
        let listener = TcpListener::bind(address).await.map_err(unbound)?;
        say(&format!("deliveries are expected at http://{}/ (any path)", listener.local_addr().unwrap_or(address)));
        Ok(listener)
    }

    async fn survey(
        &self,
        config: &Config,
        webhook: &Webhook,
        parts: &Parts,
        listener: TcpListener,
        stopped: impl Future<Output = ()>,
    ) -> Result<(Survey, Code), Stop> {
        let name = &webhook.name;
        // Under the lock this time.
        if let Some(stored) = parts.store.webhook(name).await.map_err(crate::daemon::StartError::from)? {
            refuse(name, stored.record.current != Current::Missing, !matches!(stored.record.phase, Phase::Idle))?;
        }
        let there = parts.provider.get(&webhook.id).await?;
        if there.is_active == Some(false) {
            let text = format!("{name}: it is switched off at DialNexa: hookturn webhook update {name} --activate");
            return Err(Stop::new(Code::PersonNeeded, text));
        }
        say(&format!(
            "DialNexa delivers to {}: this must lead here",
            there.url.as_deref().unwrap_or("a URL that it does not say")
        ));
        let bench = Bench::new(parts.clock.clone());
        for stored in parts.store.secrets(name).await.map_err(crate::daemon::StartError::from)? {
            let secret = parts.sealing.open(name, stored.kid, &stored.sealed).map_err(crate::daemon::StartError::from)?;
            bench.knows(stored.kid, secret, Signed::Earlier);
        }
        let reception = Reception::new(Limits::new(config.listen.max_body));
        let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let receiver = Receiver { reception: reception.clone(), bench: bench.clone() };
        let door = shutdown.clone();
        tasks.spawn(async move { reception.serve(listener, Hand::here(receiver), false, door).await });
        let mut laboratory = Laboratory {
            webhook,
            parts,
            bench,
            plan: Plan {
                wait: self.wait,
                watch: self.watch,
                stimulus: self.stimulus.clone(),
                inactive: self.inactive,
                verification: self.verification.clone(),
            },
            survey: Survey::new(name, &webhook.id, parts.clock.unix_millis()),
            seen: Observations { events: there.events, ..Observations::default() },
            url: there.url,
            undo: Update::default(),
        };
        let ran = tokio::select! {
            ran = laboratory.run() => ran.map(|()| false),
            () = stopped => Ok(true),
        };
        laboratory.put_back().await;
        shutdown.cancel();
        tasks.close();
        tasks.wait().await;
        laboratory.conclude(matches!(ran, Ok(true)));
        laboratory.survey.ended = true;
        laboratory.keep(Vec::new()).await?;
        if let Err(stop) = &ran {
            say(&format!("it stops here: {stop}"));
        }
        let code = match &ran {
            Err(stop) => stop.code,
            Ok(_) => verdict(&laboratory.survey),
        };
        Ok((laboratory.survey, code))
    }

    async fn show(&self, config: &Config) -> Result<Code, Stop> {
        let Some(survey) = stored(config).await?.into_iter().find(|survey| survey.webhook == self.name) else {
            return Err(Stop::new(Code::PersonNeeded, format!("{} was never surveyed", self.name)));
        };
        match self.json {
            true => out::json(&survey)?,
            false => out::line(&survey.page())?,
        }
        Ok(verdict(&survey))
    }
}

/// What the newest survey says to the waits of this webhook. Nothing, where there is none, or where it cannot be read.
pub async fn beside(config: &Config, webhook: &Webhook) -> Vec<String> {
    let surveys = stored(config).await.unwrap_or_default();
    let Some(newest) = surveys.last().filter(|survey| survey.id != webhook.id) else { return Vec::new() };
    let differences = newest.beside(&webhook.policy).into_iter().map(|(_, text)| text);
    std::iter::once(newest.brief()).chain(differences).collect()
}

/// Every survey in the store, the newest last. Takes no lock.
pub async fn stored(config: &Config) -> Result<Vec<Survey>, Stop> {
    let opened = Sqlite::look(&config.store.path).await.map_err(crate::daemon::StartError::from)?;
    let Some(store) = opened else { return Ok(Vec::new()) };
    let webhooks = store.webhooks().await.map_err(crate::daemon::StartError::from);
    store.close().await;
    let memos = webhooks?.into_iter().flat_map(|stored| stored.memos).filter(|(name, _)| name == MEMO);
    let mut surveys: Vec<Survey> = memos.filter_map(|(_, value)| serde_json::from_value(value).ok()).collect();
    surveys.sort_by_key(|survey| survey.began);
    Ok(surveys)
}

/// Asked of a daemon that starts here for a moment: it makes the webhook's record, which the result is kept beside.
async fn unused(config: &Config, name: &str) -> Result<(), Stop> {
    let purpose = format!("survey {name}");
    let names = [name.to_owned()];
    let need = Need { purpose: &purpose, webhooks: &names, doors: false, read_only: false };
    let access = Access::open(config, need).await?;
    let status = match access.daemon_runs() {
        true => Err(Stop::new(
            Code::TryAgain,
            "a daemon runs and holds the store: stop it, or give the survey a configuration with a store of its own".to_owned(),
        )),
        false => access.status_of(name).await,
    };
    access.close().await;
    let status = status?;
    refuse(name, status.adopted, status.phase != "idle")
}

/// Nothing that hookturn rotates is surveyed.
fn refuse(name: &str, adopted: bool, under_way: bool) -> Result<(), Stop> {
    let why = match (adopted, under_way) {
        (_, true) => "a rotation is under way",
        (true, _) => "hookturn has adopted its secret, so somebody needs it",
        (false, false) => return Ok(()),
    };
    Err(Stop::new(Code::PersonNeeded, format!("{name}: {why}: a survey needs a webhook that nobody does")))
}

/// Done: all that it set out to see was seen.
fn verdict(survey: &Survey) -> Code {
    let refused = survey.observations.patches.iter().find_map(|patch| match patch.answer {
        PatchAnswer::Applied | PatchAnswer::Ambiguous { .. } => None,
        PatchAnswer::Limited { .. } => Some(Code::Unreachable),
        _ => Some(Code::PersonNeeded),
    });
    match (refused, survey.findings.honoured, survey.findings.trust) {
        (Some(code), ..) => code,
        (None, Some(false), _) => Code::PersonNeeded,
        (None, None, _) | (None, _, Trust::TooShort) => Code::NotYet,
        (None, Some(true), Trust::Whole) => Code::Done,
    }
}
