//! The DialNexa client against real servers on loopback: what it sends, what it makes of each answer, and that the PATCH of a
//! secret is one request on one connection whatever the other end does.

#[path = "dialnexa/contradictions.rs"]
mod contradictions;
#[path = "dialnexa/line.rs"]
mod line;
#[path = "dialnexa/peer.rs"]
mod peer;
#[path = "dialnexa/rest.rs"]
mod rest;
#[path = "dialnexa/site.rs"]
mod site;
#[path = "dialnexa/tls.rs"]
mod tls;

use std::time::Duration;

use hookturn::{
    dialnexa::{Client, ClientError, Settings},
    secret::Secret,
};

pub const KEY: &str = "key_7d1:sk-hunter2-hunter2";
pub const SECRET: &str = "whsec_Zk9tXq3vB7nL2mR8pW4sY6uA1cE5gH0j";
pub const ID: &str = "whk_c9v3nz8rq4pm";

/// Long enough never to be the reason, short enough not to hang a broken test.
pub const AMPLE: Duration = Duration::from_secs(60);

pub fn secret(text: &str) -> Secret {
    Secret::parse(text).unwrap_or_else(|e| panic!("{e}"))
}

pub fn settings(base_url: &str) -> Settings {
    Settings { base_url: base_url.to_owned(), api_key: secret(KEY), ca_file: None, timeout: AMPLE }
}

pub fn client(base_url: &str) -> Client {
    made(settings(base_url)).unwrap_or_else(|e| panic!("{e}"))
}

pub fn made(settings: Settings) -> Result<Client, ClientError> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::new(settings)
}

/// Nothing that a person reads may hold any of these.
pub fn assert_no_secret(text: &str) {
    for part in ["hunter2", "key_7d1", &SECRET[6..14], &SECRET[SECRET.len() - 8..]] {
        assert!(!text.contains(part), "{part} is in {text:?}");
    }
    assert!(text.chars().count() <= 400 && !text.chars().any(char::is_control), "{text:?}");
}
