//! `webhook list|show|update`: DialNexa's own view, and the rest of its Update page. The secret is never part of it.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    access::{Access, Need, known},
    exit::{Code, Stop},
    out,
    provider::client,
};
use crate::{
    config::Config,
    dialnexa::{self, Update},
};

#[derive(Subcommand)]
pub enum Webhook {
    /// Every webhook of the account
    List(List),
    /// One webhook of the configuration
    Show(Show),
    /// Change its URL, its events, or switch it on or off; refused while a rotation is under way
    Update(Change),
}

#[derive(Args)]
pub struct List {
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct Show {
    name: String,
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
pub struct Change {
    name: String,
    #[arg(long, group = "change")]
    url: Option<String>,
    /// All events that it is to have from now on, once for each
    #[arg(long = "event", value_name = "EVENT", group = "change")]
    events: Vec<String>,
    #[arg(long, group = "change", conflicts_with = "deactivate")]
    activate: bool,
    #[arg(long, group = "change")]
    deactivate: bool,
    #[arg(long)]
    json: bool,
}

impl Webhook {
    pub async fn run(self, config: Config) -> Result<Code, Stop> {
        match self {
            Webhook::List(command) => command.run(&config).await,
            Webhook::Show(command) => command.run(&config).await,
            Webhook::Update(command) => command.run(&config).await,
        }
    }
}

impl List {
    async fn run(self, config: &Config) -> Result<Code, Stop> {
        let webhooks = client(config)?.list().await?;
        let name_of = |id: &str| config.webhooks.iter().find(|webhook| webhook.id == id).map(|webhook| webhook.name.as_str());
        if self.json {
            out::json(&webhooks.iter().map(|webhook| as_json(name_of(&webhook.id), webhook)).collect::<Vec<_>>())?;
        } else if webhooks.is_empty() {
            out::line("the account has no webhook")?;
        } else {
            let line = |webhook: &dialnexa::Webhook| {
                let name = name_of(&webhook.id).map(|name| format!("  [{name}]")).unwrap_or_default();
                format!("{}  {}  {}{name}", webhook.id, webhook.url.as_deref().unwrap_or("-"), activity(webhook))
            };
            out::line(&webhooks.iter().map(line).collect::<Vec<_>>().join("\n"))?;
        }
        Ok(Code::Done)
    }
}

impl Show {
    async fn run(self, config: &Config) -> Result<Code, Stop> {
        let id = &known(config, &self.name)?.id;
        let webhook = client(config)?.get(id).await?;
        print(&self.name, &webhook, self.json)?;
        Ok(Code::Done)
    }
}

impl Change {
    async fn run(self, config: &Config) -> Result<Code, Stop> {
        let id = &known(config, &self.name)?.id;
        let purpose = format!("webhook update {}", self.name);
        let provider = client(config)?;
        let need = Need { purpose: &purpose, webhooks: std::slice::from_ref(&self.name), doors: false, read_only: false };
        // Held until the update is done: without a daemon, the store's lock keeps rotations from beginning meanwhile.
        let access = Access::open(config, need).await?;
        let updated = async {
            let status = access.status_of(&self.name).await?;
            if status.phase != "idle" {
                let text = format!(
                    "{}: rotation {} is under way (phase {}): the webhook must not change under it; wait for its end, see `hookturn \
                     status {0}`",
                    self.name, status.rotation, status.phase
                );
                return Err(Stop::new(Code::PersonNeeded, text));
            }
            Ok(provider.update(id, &self.update()).await?)
        };
        let updated = updated.await;
        access.close().await;
        print(&self.name, &updated?, self.json)?;
        Ok(Code::Done)
    }

    fn update(&self) -> Update {
        Update {
            url: self.url.clone(),
            events: (!self.events.is_empty()).then(|| self.events.clone()),
            is_active: (self.activate || self.deactivate).then_some(self.activate),
        }
    }
}

fn print(name: &str, webhook: &dialnexa::Webhook, as_json_text: bool) -> Result<(), Stop> {
    if as_json_text {
        return out::json(&as_json(Some(name), webhook));
    }
    let mut lines = vec![format!("{name} ({})", webhook.id)];
    lines.push(format!("  url      {}", webhook.url.as_deref().unwrap_or("not said")));
    lines.push(format!("  state    {}", activity(webhook)));
    lines.push(format!(
        "  events   {}",
        if webhook.events.is_empty() { "not said".to_owned() } else { webhook.events.join(", ") }
    ));
    lines.extend(webhook.created_at.iter().map(|at| format!("  created  {at}")));
    out::line(&lines.join("\n"))
}

fn activity(webhook: &dialnexa::Webhook) -> &'static str {
    match webhook.is_active {
        Some(true) => "active",
        Some(false) => "switched off",
        None => "not said whether active",
    }
}

fn as_json(name: Option<&str>, webhook: &dialnexa::Webhook) -> serde_json::Value {
    json!({
        "name": name, "id": webhook.id, "url": webhook.url, "events": webhook.events,
        "is_active": webhook.is_active, "created_at": webhook.created_at,
    })
}
