//! A client for DialNexa, for the commands that ask it themselves.

use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::{
    config::Config,
    daemon,
    dialnexa::{Client, Provider, Settings},
    secret::Secret,
};

use super::{
    access,
    exit::{Code, Stop},
};

const TIMEOUT: Duration = Duration::from_secs(15);

/// The one that the configuration names.
pub fn client(config: &Config) -> Result<Arc<dyn Provider>, Stop> {
    config.dialnexa.api_key.read().map_err(|error| access::missing(config, &error))?;
    Ok(daemon::provider(config)?)
}

/// Before there is a configuration.
pub fn client_for(base_url: String, api_key: Secret, ca_file: Option<PathBuf>) -> Result<Client, Stop> {
    let settings = Settings { base_url, api_key, ca_file, timeout: TIMEOUT };
    Client::new(settings).map_err(|error| Stop::new(Code::Config, error.to_string()))
}
