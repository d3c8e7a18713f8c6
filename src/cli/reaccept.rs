//! `reaccept`: lets late retries in that are signed with a retired secret. It is accepted, and never sent anywhere.

use clap::Args;

use super::{
    exit::{Code, Stop},
    operate,
};
use crate::{
    config::{self, Config},
    daemon::Request,
};

#[derive(Args)]
pub struct Reaccept {
    name: String,
    /// For how long, as 24h; at most 30d
    #[arg(long = "for", value_name = "DURATION")]
    for_: String,
    /// Which retired secret; left out: the newest
    #[arg(long)]
    kid: Option<String>,
    #[arg(long)]
    json: bool,
}

impl Reaccept {
    pub async fn run(self, config: Config) -> Result<Code, Stop> {
        let length =
            config::duration(&self.for_).map_err(|bad| Stop::new(Code::Usage, format!("--for: {}; {}", bad.reason, bad.help)))?;
        let for_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        let purpose = format!("reaccept {}", self.name);
        operate::request(&config, &self.name, &purpose, Request::Reaccept { kid: self.kid, for_ms }, self.json).await
    }
}
