//! Stands in for the running daemon until it is merged.

use std::sync::Arc;

use super::Office;
use crate::config::Config;

/// What a process takes on.
pub struct Options {
    pub purpose: String,
    pub only: Option<Vec<String>>,
    pub doors: bool,
    pub schedule: bool,
}

pub struct Daemon(Arc<dyn Office>);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the daemon is not part of this build")]
    NotBuilt,
}

impl StartError {
    pub fn exit(&self) -> u8 {
        70
    }
}

impl Daemon {
    pub async fn start(_config: Config, _options: Options) -> Result<Daemon, StartError> {
        Err(StartError::NotBuilt)
    }

    pub fn office(&self) -> Arc<dyn Office> {
        self.0.clone()
    }

    pub async fn wait(&self) {
        std::future::pending().await
    }

    pub async fn stop(self) {}
}
