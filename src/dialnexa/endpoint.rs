//! Where DialNexa is, and what a webhook id may look like in a path there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;

/// A checked `base_url`: `https`, or `http` to this very machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub(super) secure: bool,
    /// As it stands in a URL: an IPv6 address in brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// The path that every request begins with, without a slash at its end: `/v1`.
    prefix: String,
}

/// Why a base URL is not used. The text of the URL is not repeated: it might hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadBaseUrl {
    #[error("the base URL is no URL: {0}; the real one is https://api.dialnexa.com/v1")]
    NotAUrl(String),
    #[error("the base URL has the scheme {0:?}: only https is accepted, and http to a loopback address")]
    Scheme(String),
    #[error("the base URL is plain http to {0}: the API key and the secret would be readable on the way; say https")]
    Plain(String),
    #[error("the base URL has a {0}: leave it out")]
    Excess(&'static str),
}

/// Why an id cannot be a webhook's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a webhook id is 1 to {MAX_ID} letters, digits, '_', '-' or '.', and not only dots")]
pub struct BadId;

const MAX_ID: usize = 128;

/// DialNexa's ids are opaque (`wh_`, `whk_`, `webhook_` are all documented); this only keeps them from changing the path.
pub fn check_id(id: &str) -> Result<(), BadId> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    let sound = (1..=MAX_ID).contains(&id.len()) && id.bytes().all(allowed) && !id.bytes().all(|b| b == b'.');
    sound.then_some(()).ok_or(BadId)
}

impl Endpoint {
    pub fn parse(base_url: &str) -> Result<Endpoint, BadBaseUrl> {
        let url = Url::parse(base_url).map_err(|e| BadBaseUrl::NotAUrl(e.to_string()))?;
        let secure = match url.scheme() {
            "https" => true,
            "http" => false,
            other => return Err(BadBaseUrl::Scheme(other.to_owned())),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(BadBaseUrl::Excess("user name or password"));
        }
        if url.query().is_some() {
            return Err(BadBaseUrl::Excess("query"));
        }
        if url.fragment().is_some() {
            return Err(BadBaseUrl::Excess("fragment"));
        }
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(BadBaseUrl::NotAUrl("no host".to_owned()));
        };
        if !secure && !is_loopback(host) {
            return Err(BadBaseUrl::Plain(host.to_owned()));
        }
        Ok(Endpoint { secure, host: host.to_owned(), port, prefix: url.path().trim_end_matches('/').to_owned() })
    }

    /// The path of every webhook.
    pub(super) fn list_path(&self) -> String {
        format!("{}/user-webhooks", self.prefix)
    }

    /// The path of one webhook.
    pub(super) fn path(&self, id: &str) -> Result<String, BadId> {
        check_id(id)?;
        Ok(format!("{}/user-webhooks/{id}", self.prefix))
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", if self.secure { "https" } else { "http" }, self.authority())
    }

    /// For the `Host` header, and for messages.
    pub(super) fn authority(&self) -> String {
        let default = if self.secure { 443 } else { 80 };
        if self.port == default { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }

    /// The host without brackets, for a look-up and for TLS.
    pub(super) fn bare_host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Plain http to `localhost` goes to loopback whatever a resolver says.
    pub(super) fn pinned(&self) -> Option<Vec<SocketAddr>> {
        let here: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        (!self.secure && self.host == "localhost").then(|| here.map(|ip| SocketAddr::new(ip, self.port)).to_vec())
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn https_anywhere_and_http_to_loopback_are_accepted_and_nothing_else() {
        for good in [
            "https://api.dialnexa.com/v1",
            "https://api.dialnexa.com/v1/",
            "http://127.0.0.1:8080/v1",
            "http://[::1]:1",
            "http://localhost:9",
        ] {
            assert!(Endpoint::parse(good).is_ok(), "{good}");
        }
        assert_eq!(Endpoint::parse("http://api.dialnexa.com/v1"), Err(BadBaseUrl::Plain("api.dialnexa.com".to_owned())));
        assert_eq!(Endpoint::parse("http://127.0.0.1.nip.io"), Err(BadBaseUrl::Plain("127.0.0.1.nip.io".to_owned())));
        assert_eq!(Endpoint::parse("http://10.0.0.1"), Err(BadBaseUrl::Plain("10.0.0.1".to_owned())));
        assert_eq!(Endpoint::parse("ftp://localhost"), Err(BadBaseUrl::Scheme("ftp".to_owned())));
        assert!(matches!(Endpoint::parse("api.dialnexa.com"), Err(BadBaseUrl::NotAUrl(_))));
        for excess in ["https://u:hunter2@x/v1", "https://x/v1?a=b", "https://x/v1#a"] {
            let error = Endpoint::parse(excess).expect_err(excess);
            assert!(matches!(error, BadBaseUrl::Excess(_)));
            assert!(!error.to_string().contains("hunter2"));
        }
    }

    #[test]
    fn an_id_stays_one_segment_of_the_path() {
        let endpoint = Endpoint::parse("https://api.dialnexa.com/v1/").expect("endpoint");
        let path = endpoint.path("whk_c9v3nz8rq4pm").expect("path");
        assert_eq!(endpoint.url(&path), "https://api.dialnexa.com/v1/user-webhooks/whk_c9v3nz8rq4pm");
        for bad in ["", ".", "..", "a/b", "a?b", "a#b", "a%2fb", "a b", "a\r\nb", "ü", &"x".repeat(129)] {
            assert_eq!(endpoint.path(bad), Err(BadId), "{bad:?}");
        }
        for good in ["wh_abc123", "webhook_abc123", "a.b-c", &"x".repeat(128)] {
            assert_eq!(check_id(good), Ok(()), "{good:?}");
        }
    }
}
