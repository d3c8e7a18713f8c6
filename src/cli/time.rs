//! Times and lengths of time, as a person reads them.

use chrono::{DateTime, Local, Utc};

pub use crate::daemon::words::span;

/// `2026-05-03 12:00:01 +02:00`
pub fn at(unix_millis: i64) -> String {
    local(unix_millis).map_or_else(|| "?".to_owned(), |at| at.format("%Y-%m-%d %H:%M:%S %:z").to_string())
}

/// `12:00:01`
pub fn of_day(at: DateTime<Utc>) -> String {
    at.with_timezone(&Local).format("%H:%M:%S").to_string()
}

/// `12:00:01` today, else with the day.
pub fn brief(unix_millis: i64, now: DateTime<Utc>) -> String {
    match local(unix_millis) {
        Some(at) if at.date_naive() == now.with_timezone(&Local).date_naive() => at.format("%H:%M:%S").to_string(),
        _ => at(unix_millis),
    }
}

/// `2026-05-03 12:00:01 +02:00 (in 3 h 5 min)`, `(5 s ago)`
pub fn at_and_distance(unix_millis: i64, now: DateTime<Utc>) -> String {
    format!("{} ({})", at(unix_millis), distance(unix_millis, now))
}

/// `in 3 h 5 min`, `5 s ago`, `just now`
pub fn distance(unix_millis: i64, now: DateTime<Utc>) -> String {
    let ahead = unix_millis.saturating_sub(now.timestamp_millis());
    match ahead {
        -999..=999 => "just now".to_owned(),
        1000.. => format!("in {}", span(ahead.unsigned_abs())),
        _ => format!("{} ago", span(ahead.unsigned_abs())),
    }
}

fn local(unix_millis: i64) -> Option<DateTime<Local>> {
    DateTime::from_timestamp_millis(unix_millis).map(|at| at.with_timezone(&Local))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_show_their_two_greatest_units() {
        for (ms, text) in
            [(0, "0 s"), (40, "40 ms"), (59_999, "59 s"), (61_000, "1 min 1 s"), (3_600_000, "1 h"), (90_061_000, "1 d 1 h")]
        {
            assert_eq!(span(ms), text);
        }
        let now = DateTime::UNIX_EPOCH;
        assert_eq!(distance(5000, now), "in 5 s");
        assert_eq!(distance(-5000, now), "5 s ago");
        assert_eq!(distance(10, now), "just now");
    }
}
