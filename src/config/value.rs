//! Single values: from the text in the file to what it means, with a reason and a way out where it means nothing.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Component, Path, PathBuf},
    time::Duration,
};

use reqwest::Url;

/// Why a text does not mean what it should, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct BadValue {
    pub reason: String,
    pub help: String,
}

impl BadValue {
    pub fn new(reason: impl Into<String>, help: impl Into<String>) -> BadValue {
        BadValue { reason: reason.into(), help: help.into() }
    }
}

/// `500ms`, `5s`, `15m`, `24h`, `30d`: one number and one unit.
pub fn duration(text: &str) -> Result<Duration, BadValue> {
    let help = "durations are written 500ms, 5s, 15m, 24h or 30d: one whole number, one unit";
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => DAY_MS,
        "" => return Err(BadValue::new(format!("`{text}` has no unit"), help)),
        _ => return Err(BadValue::new(format!("`{text}` is not a duration"), help)),
    };
    let number: u64 = number.parse().map_err(|_| BadValue::new(format!("`{text}` is not a duration"), help))?;
    match number.checked_mul(unit_ms) {
        Some(ms) if ms <= 3660 * DAY_MS => Ok(Duration::from_millis(ms)),
        _ => Err(BadValue::new(format!("`{text}` is longer than ten years"), help)),
    }
}

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// A duration as a person writes it: the largest unit that leaves no remainder.
pub fn duration_text(duration: Duration) -> String {
    let ms = duration.as_millis();
    let units = [("d", u128::from(DAY_MS)), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
    let fitting = units.iter().find(|(_, unit)| ms >= *unit && ms.is_multiple_of(*unit));
    fitting.map_or_else(|| "0s".to_owned(), |(name, unit)| format!("{}{name}", ms / unit))
}

/// `10MiB`, `512KiB`, or bytes. Between 1 KiB and 1 GiB.
pub fn size(text: &str) -> Result<usize, BadValue> {
    let help = "sizes are written 512KiB, 10MiB or as a number of bytes, from 1KiB to 1GiB";
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit: Option<usize> = match unit {
        "" | "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    let bytes = unit.and_then(|unit| number.parse::<usize>().ok()?.checked_mul(unit));
    bytes
        .filter(|bytes| (1 << 10..=1 << 30).contains(bytes))
        .ok_or_else(|| BadValue::new(format!("`{text}` is not a size"), help))
}

/// A whole number within bounds.
pub fn count(text: &str, least: u32, most: u32) -> Result<u32, BadValue> {
    let number = text.parse::<u32>().ok().filter(|n| (least..=most).contains(n));
    number.ok_or_else(|| BadValue::new(format!("`{text}` is not a number from {least} to {most}"), "write a whole number"))
}

/// The name of a webhook: used in paths and URLs.
pub fn webhook_name(text: &str) -> Result<String, BadValue> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if (1..=64).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with('-') {
        return Ok(text.to_owned());
    }
    Err(BadValue::new(
        format!("`{text}` cannot be the name of a webhook"),
        "names are 1 to 64 of a-z, 0-9 and `-`, not first: they stand in paths, URLs and commands",
    ))
}

/// The id that DialNexa gave a webhook: opaque, but it goes into a URL.
pub fn webhook_id(text: &str) -> Result<String, BadValue> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if (1..=128).contains(&text.len()) && text.bytes().all(allowed) && text.bytes().any(|b| b != b'.') {
        return Ok(text.to_owned());
    }
    Err(BadValue::new(
        format!("`{text}` cannot be the id of a webhook"),
        "take it as DialNexa shows it (letters, digits, `_`, `.`, `-`); `hookturn webhook list` prints them",
    ))
}

/// DialNexa's address, without a trailing slash.
pub fn base_url(text: &str) -> Result<String, BadValue> {
    let url = http_url(text)?;
    if url.scheme() == "http" && !is_loopback(&url) {
        return Err(BadValue::new(
            "plain http would send the API key and the secrets unencrypted",
            "write https://; http:// is accepted for a loopback address only (127.0.0.1, [::1], localhost)",
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(BadValue::new(
            "the base URL has a `?` or `#` part",
            "end it with the path, as in https://api.dialnexa.com/v1",
        ));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// The address of one replica.
pub fn probe_url(text: &str) -> Result<String, BadValue> {
    http_url(text).map(|url| url.to_string())
}

/// Where the gateway passes deliveries on: without TLS, a host of the same machine or of a network that is trusted.
pub fn upstream_url(text: &str) -> Result<String, BadValue> {
    let url = http_url(text)?;
    if url.scheme() != "http" {
        let help = "write http://127.0.0.1:9000/hook; a consumer behind TLS needs a proxy of yours in between";
        return Err(BadValue::new("the gateway speaks plain http to the consumer", help));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(BadValue::new("the upstream has a `?` or `#` part", "the query is the one that each delivery comes with"));
    }
    Ok(url.to_string())
}

fn http_url(text: &str) -> Result<Url, BadValue> {
    let help = "write it as https://host/path, or http://127.0.0.1:9000/path";
    let url = Url::parse(text).map_err(|e| BadValue::new(format!("this is not a URL: {e}"), help))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(BadValue::new("this is not an http or https URL", help));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(BadValue::new("a user or password in a URL ends up in logs", "take it out; hookturn sends no such login"));
    }
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || literal.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// `ADDRESS:PORT`, or `off`.
pub fn listen_address(text: &str) -> Result<Option<SocketAddr>, BadValue> {
    if text == "off" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        BadValue::new(
            format!("`{text}` is not an address to listen on"),
            "write an IP address and a port, as 127.0.0.1:8780 or [::1]:8780 (names are not looked up), or \"off\"",
        )
    })
}

/// `unix:PATH`, or `off`.
pub fn admin_socket(text: &str, base: &Path) -> Result<Option<PathBuf>, BadValue> {
    if text == "off" {
        return Ok(None);
    }
    unix_socket(text, base, "a control socket", "write it as unix:/run/hookturn/admin.sock, or \"off\"").map(Some)
}

/// `unix:PATH`.
pub fn answers_socket(text: &str, base: &Path) -> Result<PathBuf, BadValue> {
    unix_socket(text, base, "a socket", "write it as unix:/var/lib/hookturn/answers.sock")
}

fn unix_socket(text: &str, base: &Path, what: &str, help: &str) -> Result<PathBuf, BadValue> {
    let path = text.strip_prefix("unix:").filter(|path| !path.is_empty());
    let path = path.ok_or_else(|| BadValue::new(format!("`{text}` is not {what}"), help))?;
    let path = resolved(base, path);
    // sun_path of unix(7): 108 bytes with the NUL.
    if path.as_os_str().len() > 107 {
        return Err(BadValue::new(format!("a socket's path has at most 107 bytes, {} has more", path.display()), help));
    }
    Ok(path)
}

/// `sqlite:PATH`.
pub fn store_path(text: &str, base: &Path) -> Result<PathBuf, BadValue> {
    let help = "write it as sqlite:/var/lib/hookturn/hookturn.db";
    if text.starts_with("postgres:") || text.starts_with("postgresql:") {
        return Err(BadValue::new("a PostgreSQL store is not in this version", help));
    }
    match text.strip_prefix("sqlite:") {
        Some(path) if path.starts_with(':') || path.contains('?') => {
            Err(BadValue::new("the store must be a file that survives a restart", help))
        }
        Some(path) if !path.is_empty() => Ok(resolved(base, path)),
        _ => Err(BadValue::new("this is not a store", help)),
    }
}

/// A path as the rest of the program sees it: absolute where the file's directory is, `.` and `..` taken out by name.
pub fn resolved(base: &Path, path: &str) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in base.join(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if clean.file_name().is_some() => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}

/// The program of a command: a bare name is looked up in `PATH`, anything with a slash is a path.
pub fn program(base: &Path, text: &str) -> String {
    if text.contains('/') { resolved(base, text).display().to_string() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_one_number_and_one_unit() {
        for (text, ms) in [("500ms", 500), ("5s", 5000), ("15m", 900_000), ("24h", 86_400_000), ("30d", 2_592_000_000), ("0s", 0)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "5", "s", "1h30m", "1.5h", "-5s", "5 s", "5S", "5w", "4000d", "99999999999999999999d", "+5s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_duration_is_said_in_its_largest_unit() {
        for text in ["500ms", "90s", "15m", "25h", "30d", "0s"] {
            assert_eq!(duration(text).map(duration_text).as_deref(), Ok(text));
        }
    }

    #[test]
    fn plain_http_is_for_loopback_only() {
        assert_eq!(base_url("https://api.dialnexa.com/v1/").as_deref(), Ok("https://api.dialnexa.com/v1"));
        for good in ["http://127.0.0.1:9/v1", "http://localhost:9", "http://[::1]:9"] {
            assert!(base_url(good).is_ok(), "{good}");
        }
        for bad in
            ["http://api.dialnexa.com", "http://127.0.0.1.example", "http://localhost.example", "ftp://x", "x", "https://a?b"]
        {
            assert!(base_url(bad).is_err(), "{bad}");
        }
        assert!(probe_url("http://10.0.0.7:9000/hook").is_ok());
        let login = probe_url("http://me:pw@host/").expect_err("a login");
        assert!(!login.reason.contains("pw") && !login.help.contains("pw"));
    }

    #[test]
    fn sizes_names_ids_and_stores_have_bounds() {
        assert_eq!(size("10MiB"), Ok(10 << 20));
        assert_eq!(size("2048"), Ok(2048));
        assert!(size("10MB").is_err() && size("1").is_err() && size("2GiB").is_err());
        assert!(webhook_name("billing-2").is_ok());
        assert!(webhook_name("Billing").is_err() && webhook_name("").is_err() && webhook_name("-c").is_err());
        assert!(webhook_id("whk_c9v3.n-8").is_ok());
        assert!(webhook_id("a/b").is_err() && webhook_id("..").is_err() && webhook_id("").is_err());
        let base = Path::new("/etc/hookturn");
        assert_eq!(store_path("sqlite:../x.db", base), Ok("/etc/x.db".into()));
        assert!(store_path("sqlite::memory:", base).is_err() && store_path("postgres://x", base).is_err());
    }
}
