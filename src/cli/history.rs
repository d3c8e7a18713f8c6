//! `history`: the journal, one sentence per line.

use clap::Args;

use super::{
    access::{Access, Need},
    exit::{Code, Stop},
    out, time,
};
use crate::{config::Config, store::JournalLine};

#[derive(Args)]
pub struct History {
    name: String,
    /// The newest lines
    #[arg(long, default_value_t = 200)]
    limit: u32,
    #[arg(long)]
    json: bool,
}

impl History {
    pub async fn run(self, config: Config) -> Result<Code, Stop> {
        let purpose = format!("history {}", self.name);
        let need = Need { purpose: &purpose, webhooks: std::slice::from_ref(&self.name), doors: false, read_only: true };
        let access = Access::open(&config, need).await?;
        let story = access.office().story(&self.name, self.limit).await;
        access.close().await;
        let journal = story?.journal;
        match (self.json, journal.is_empty()) {
            (true, _) => out::json(&journal)?,
            (false, true) => out::line("nothing has happened yet")?,
            (false, false) => out::line(&journal.iter().map(line).collect::<Vec<_>>().join("\n"))?,
        }
        Ok(Code::Done)
    }
}

/// `2026-05-03 12:00:01 +02:00  #3  schedule: rotation 3 began, its target is k_...`
pub fn line(line: &JournalLine) -> String {
    let rotation = if line.rotation == 0 { "--".to_owned() } else { format!("#{}", line.rotation) };
    format!("{}  {rotation:<4} {}: {}", time::at(line.at), line.actor, crate::daemon::words::note(&line.note))
}
