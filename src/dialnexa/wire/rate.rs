use std::time::Duration;

use chrono::{DateTime, NaiveDateTime};
use http::HeaderMap;

/// The longest that an answer can make us wait: a header must not stop a rotation for a day.
pub const MAX_WAIT: Duration = Duration::from_secs(3600);

/// `X-RateLimit-Reset` was documented as Unix time and seen as seconds to go: from here on it is a time.
const EPOCH_FROM: u64 = 1_000_000_000;
const EPOCH_MILLIS_FROM: u64 = 100_000_000_000;
const DAY: u64 = 86_400;

/// How long an answer asks to wait: `Retry-After`, else `X-RateLimit-Reset`. At most [`MAX_WAIT`]; `None`: it does not say.
pub fn wait(headers: &HeaderMap) -> Option<Duration> {
    retry_after(headers).or_else(|| reset(headers))
}

/// `Retry-After`: seconds, or a date, which is taken against the answer's own `Date`, so that neither clock needs to be right.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = text(headers, "retry-after")?;
    let seconds = whole_seconds(value).or_else(|| Some(until(parse_date(value)?, now(headers)?)))?;
    Some(capped(seconds))
}

fn reset(headers: &HeaderMap) -> Option<Duration> {
    let stated = whole_seconds(text(headers, "x-ratelimit-reset").or_else(|| text(headers, "ratelimit-reset"))?)?;
    let seconds = match stated {
        0..=DAY => stated,
        EPOCH_MILLIS_FROM.. => until(i64::try_from(stated / 1000).ok()?, now(headers)?),
        EPOCH_FROM.. => until(i64::try_from(stated).ok()?, now(headers)?),
        // Neither a wait nor a time that makes sense.
        _ => return None,
    };
    Some(capped(seconds))
}

/// The provider's clock at this answer.
fn now(headers: &HeaderMap) -> Option<i64> {
    parse_date(text(headers, "date")?)
}

fn until(then: i64, now: i64) -> u64 {
    u64::try_from(then.saturating_sub(now)).unwrap_or(0)
}

fn capped(seconds: u64) -> Duration {
    Duration::from_secs(seconds).min(MAX_WAIT)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// Seconds, a fraction rounded up.
fn whole_seconds(value: &str) -> Option<u64> {
    let (whole, fraction) = value.split_once('.').unwrap_or((value, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let more = u64::from(fraction.bytes().any(|b| b != b'0'));
    // More digits than fit are just a very long time.
    Some(whole.parse::<u64>().unwrap_or(u64::MAX).saturating_add(more))
}

/// An HTTP date in any of the three forms that RFC 9110 asks a recipient to read, in Unix seconds.
fn parse_date(value: &str) -> Option<i64> {
    let obsolete = ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];
    let modern = DateTime::parse_from_rfc2822(value).ok().map(|date| date.timestamp());
    modern.or_else(|| {
        obsolete.iter().find_map(|form| NaiveDateTime::parse_from_str(value, form).ok()).map(|date| date.and_utc().timestamp())
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    const DATE: (&str, &str) = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
    const UNIX: u64 = 784_111_777;

    fn waits(pairs: &[(&'static str, &str)]) -> Option<u64> {
        let pairs =
            pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).expect("value")));
        wait(&pairs.collect()).map(|wait| wait.as_secs())
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_by_the_providers_own_clock() {
        assert_eq!(waits(&[("retry-after", "7")]), Some(7));
        assert_eq!(waits(&[("retry-after", "0")]), Some(0));
        assert_eq!(waits(&[("retry-after", "1.2")]), Some(2));
        for date in ["Sun, 06 Nov 1994 08:50:37 GMT", "Sunday, 06-Nov-94 08:50:37 GMT", "Sun Nov  6 08:50:37 1994"] {
            assert_eq!(waits(&[DATE, ("retry-after", date)]), Some(60), "{date}");
        }
        assert_eq!(waits(&[DATE, ("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT")]), Some(0));
        assert_eq!(waits(&[("retry-after", "Sun, 06 Nov 1994 08:50:37 GMT")]), None);
    }

    #[test]
    fn a_reset_is_seconds_to_go_if_small_and_unix_time_if_large() {
        assert_eq!(waits(&[("x-ratelimit-reset", "60")]), Some(60));
        let date = ("date", "Thu, 06 Aug 2026 10:00:00 GMT");
        assert_eq!(waits(&[date, ("x-ratelimit-reset", "1786010430")]), Some(30));
        assert_eq!(waits(&[date, ("x-ratelimit-reset", "1786010430500")]), Some(30));
        assert_eq!(waits(&[date, ("x-ratelimit-reset", "1786000000")]), Some(0));
        assert_eq!(waits(&[("x-ratelimit-reset", "1786010430")]), None);
        assert_eq!(waits(&[DATE, ("x-ratelimit-reset", &UNIX.to_string())]), None);
    }

    #[test]
    fn retry_after_goes_before_the_reset_and_nonsense_counts_as_nothing() {
        assert_eq!(waits(&[("retry-after", "3"), ("x-ratelimit-reset", "60")]), Some(3));
        assert_eq!(waits(&[("retry-after", "soon"), ("x-ratelimit-reset", "60")]), Some(60));
        for bad in ["", "-1", "soon", "1e3", "+5"] {
            assert_eq!(waits(&[("retry-after", bad)]), None, "{bad:?}");
        }
        assert_eq!(waits(&[]), None);
    }

    #[test]
    fn nobody_can_make_us_wait_longer_than_an_hour() {
        for long in ["86400", "999999999999999999999999"] {
            assert_eq!(waits(&[("retry-after", long)]), Some(3600));
        }
    }
}
