//! A client for DialNexa, for the commands that ask it themselves.

use std::time::Duration;

use crate::{
    config::Config,
    dialnexa::{Client, Settings},
    secret::Secret,
};

use super::{
    access,
    exit::{Code, Stop},
};

const TIMEOUT: Duration = Duration::from_secs(15);

pub fn client(config: &Config, purpose: &str) -> Result<Client, Stop> {
    let api_key = config.dialnexa.api_key.read().map_err(|error| access::missing(config, purpose, &error))?;
    let wrong = |text: String| Stop::new(Code::Config, text);
    let api_key = Secret::parse(&api_key).map_err(|_| {
        wrong(format!("{}: not an API key: it is longer than one, or holds white space", config.dialnexa.api_key))
    })?;
    client_for(config.dialnexa.base_url.clone(), api_key, config.dialnexa.ca_file.clone())
}

pub fn client_for(base_url: String, api_key: Secret, ca_file: Option<std::path::PathBuf>) -> Result<Client, Stop> {
    let settings = Settings { base_url, api_key, ca_file, timeout: TIMEOUT };
    Client::new(settings).map_err(|error| Stop::new(Code::Config, error.to_string()))
}
