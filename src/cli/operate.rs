//! `pause`, `resume`, `abort`, `rollback`, `supersede`: one request, one sentence back.

use clap::Args;

use super::{
    access::{Access, Need, actor},
    exit::{Code, Stop},
    out,
};
use crate::{config::Config, daemon::Request};

#[derive(Args)]
pub struct Named {
    /// The webhook's name in the configuration
    name: String,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy)]
pub enum Operation {
    Pause,
    Resume,
    Abort,
    Rollback,
    Supersede,
}

impl Operation {
    fn command(self) -> &'static str {
        match self {
            Operation::Pause => "pause",
            Operation::Resume => "resume",
            Operation::Abort => "abort",
            Operation::Rollback => "rollback",
            Operation::Supersede => "supersede",
        }
    }

    fn request(self) -> Request {
        match self {
            Operation::Pause => Request::Pause,
            Operation::Resume => Request::Resume,
            Operation::Abort => Request::Abort,
            Operation::Rollback => Request::Rollback,
            Operation::Supersede => Request::Supersede,
        }
    }

    /// It begins or goes on with work that this process does not stay for.
    fn leaves_work(self) -> bool {
        !matches!(self, Operation::Pause)
    }
}

/// One request; its answer is printed.
pub async fn request(config: &Config, name: &str, purpose: &str, request: Request, json: bool) -> Result<Code, Stop> {
    let name = name.to_owned();
    let need = Need { purpose, webhooks: std::slice::from_ref(&name), doors: false, read_only: false };
    let access = Access::open(config, need).await?;
    let reply = access.office().perform(&name, request, &actor()).await;
    access.close().await;
    let reply = reply?;
    match json {
        true => out::json(&reply)?,
        false => out::line(&reply.text)?,
    }
    Ok(Code::Done)
}

impl Named {
    pub async fn run(self, config: Config, operation: Operation) -> Result<Code, Stop> {
        let purpose = format!("{} {}", operation.command(), self.name);
        let need = Need { purpose: &purpose, webhooks: std::slice::from_ref(&self.name), doors: false, read_only: false };
        let access = Access::open(&config, need).await?;
        let daemon_runs = access.daemon_runs();
        let reply = access.office().perform(&self.name, operation.request(), &actor()).await;
        access.close().await;
        let reply = reply?;
        match self.json {
            true => out::json(&reply)?,
            false => out::line(&reply.text)?,
        }
        if operation.leaves_work() && !daemon_runs {
            // Not `rotate-now`: after an abort it would begin another rotation.
            eprintln!("hookturn: it is written down; no daemon is running to carry it out: `hookturn run`, or start the service");
        }
        Ok(Code::Done)
    }
}

/// `dismiss`: replicas whose address has vanished are not waited for any more.
#[derive(Args)]
pub struct Dismiss {
    name: String,
    /// Which of them, by address; left out: every one that has vanished
    replicas: Vec<String>,
    #[arg(long)]
    json: bool,
}

pub async fn dismiss(config: Config, dismiss: Dismiss) -> Result<Code, Stop> {
    let purpose = format!("dismiss {}", dismiss.name);
    request(&config, &dismiss.name, &purpose, Request::Dismiss { replicas: dismiss.replicas }, dismiss.json).await
}

/// Prints the accepted secrets, one a line: how it stands, its kid, the value.
pub async fn eject(config: Config, named: Named) -> Result<Code, Stop> {
    let purpose = format!("eject {}", named.name);
    request(&config, &named.name, &purpose, Request::Eject, named.json).await
}
