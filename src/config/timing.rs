//! Cron expressions and weekly windows: what they say, and which instants they mean in a time zone.
//!
//! Everything here is pure. Instants go in and come out as UTC; wall clocks are only looked at in between, so that a
//! clock that is put forward or back can neither repeat an instant nor step back behind it.

use std::{fmt, ops::RangeInclusive, sync::Arc};

use chrono::{DateTime, Datelike, Duration, SubsecRound, Timelike, Utc, Weekday};
use chrono_tz::Tz;
use croner::parser::{CronParser, Seconds, Year};

use super::value::BadValue;

/// A cron expression of 5 fields (or 6, with seconds first), evaluated in a time zone that the caller names.
#[derive(Clone)]
pub struct Cron {
    text: String,
    pattern: Arc<croner::Cron>,
}

/// A span of the day on some days of the week, by the wall clock: `Mon-Thu 09:00-16:00`, `22:00-02:00`, `Sat,Sun 00:00-24:00`.
///
/// A window that crosses midnight belongs to the day on which it opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    text: String,
    /// By days from Monday.
    days: [bool; 7],
    /// Minutes of the day. `opens < closes` within one day, `opens > closes` across midnight; `closes` may be 1440.
    opens: u32,
    closes: u32,
}

impl Cron {
    pub fn parse(text: &str) -> Result<Cron, BadValue> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let (day_of_month, day_of_week) = match fields.len() {
            5 => (fields[2], fields[4]),
            6 => (fields[3], fields[5]),
            n => {
                return Err(BadValue::new(
                    format!("a cron expression has 5 fields (or 6, with seconds first), this one has {n}"),
                    "the fields are: minute hour day-of-month month day-of-week; \"0 10 * * 2\" is Tuesdays at 10:00",
                ));
            }
        };
        let is_set = |field: &str| field != "*" && field != "?";
        if is_set(day_of_month) && is_set(day_of_week) {
            return Err(BadValue::new(
                "the day of the month and the day of the week are both set, which cron programs read in different ways",
                "leave one of them `*` and say the other with `only_between`: \
                 schedule = \"0 10 1 * *\" with only_between = \"Mon-Thu 09:00-16:00\"",
            ));
        }
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let pattern = parser.parse(text).map_err(|e| {
            BadValue::new(
                format!("not a cron expression: {}", e.to_string().trim_end_matches('.')),
                "ranges: minute 0-59, hour 0-23, day-of-month 1-31, month 1-12 or JAN-DEC, day-of-week 0-7 or SUN-SAT",
            )
        })?;
        Ok(Cron { text: text.to_owned(), pattern: Arc::new(pattern) })
    }

    /// The first time after `after` (never at it) that the expression names in `tz`. `None`: there is none.
    ///
    /// A fixed time that a clock put forward skips comes at the first instant after the gap; one that a clock put back
    /// repeats comes once.
    pub fn next_after(&self, tz: Tz, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let mut from = after.trunc_subsecs(0);
        // One turn is enough for a correct library; that time moves on is not left to it.
        for _ in 0..Self::TURNS {
            let next = self.pattern.find_next_occurrence(&from.with_timezone(&tz), false).ok()?.with_timezone(&Utc);
            if next > after {
                return Some(next);
            }
            from += Duration::hours(1);
        }
        None
    }

    const TURNS: u32 = 48;

    /// The shortest time between two of the next `n` occurrences after `from`. `None`: there are not two.
    pub fn shortest_gap(&self, tz: Tz, from: DateTime<Utc>, n: usize) -> Option<Duration> {
        let times = std::iter::successors(self.next_after(tz, from), |last| self.next_after(tz, *last)).take(n);
        let times: Vec<_> = times.collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).min()
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Window {
    pub fn parse(text: &str) -> Result<Window, BadValue> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (days, hours) = match words.as_slice() {
            [hours] => ([true; 7], *hours),
            [days, hours] => (days_of(days)?, *hours),
            _ => return Err(not_a_window(format!("`{text}` is not a window"))),
        };
        let (opens, closes) = hours.split_once('-').ok_or_else(|| not_a_window(format!("`{hours}` is not a span of the day")))?;
        let (opens, closes) = (minute_of(opens, 0..=1439)?, minute_of(closes, 1..=1440)?);
        if opens == closes {
            return Err(not_a_window(format!("the window {hours} is empty")));
        }
        Ok(Window { text: text.to_owned(), days, opens, closes })
    }

    /// Whether the window is open at `at`, by the wall clock of `tz`.
    pub fn contains(&self, tz: Tz, at: DateTime<Utc>) -> bool {
        let wall = at.with_timezone(&tz);
        let minute = wall.hour() * 60 + wall.minute();
        let today = self.days[day_index(wall.weekday())];
        if self.opens < self.closes {
            return today && (self.opens..self.closes).contains(&minute);
        }
        let yesterday = self.days[day_index(wall.weekday().pred())];
        (today && minute >= self.opens) || (yesterday && minute < self.closes)
    }

    /// The first instant at or after `from` at which the window is open. `None`: not within 15 days, which is longer than
    /// any window stays shut (one opening can fall into the hour that a clock put forward skips).
    pub fn next_open(&self, tz: Tz, from: DateTime<Utc>) -> Option<DateTime<Utc>> {
        if self.contains(tz, from) {
            return Some(from);
        }
        // A window opens on a whole minute, or where a clock jumps: looking at each minute sees both.
        let first = from.with_second(0)?.with_nanosecond(0)?;
        (1..=15 * 24 * 60).map(|minute| first + Duration::minutes(minute)).find(|at| self.contains(tz, *at))
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cron").field(&self.text).finish()
    }
}

impl PartialEq for Cron {
    fn eq(&self, other: &Cron) -> bool {
        self.text == other.text
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// `Mon-Thu`, `Sat,Sun`, `Fri-Mon,Wed`.
fn days_of(text: &str) -> Result<[bool; 7], BadValue> {
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut day, last) = (day_of(first)?, day_of(last)?);
        days[day_index(day)] = true;
        while day != last {
            day = day.succ();
            days[day_index(day)] = true;
        }
    }
    Ok(days)
}

fn day_of(text: &str) -> Result<Weekday, BadValue> {
    text.parse().map_err(|_| not_a_window(format!("`{text}` is not a day of the week")))
}

fn day_index(day: Weekday) -> usize {
    day.num_days_from_monday() as usize
}

/// `HH:MM` as minutes of the day.
fn minute_of(text: &str, allowed: RangeInclusive<u32>) -> Result<u32, BadValue> {
    let two_digits = |s: &str| (s.len() == 2 && s.bytes().all(|b| b.is_ascii_digit())).then(|| s.parse::<u32>().ok()).flatten();
    text.split_once(':')
        .and_then(|(hour, minute)| Some((two_digits(hour)?, two_digits(minute).filter(|m| *m < 60)?)))
        .map(|(hour, minute)| hour * 60 + minute)
        .filter(|minute| allowed.contains(minute))
        .ok_or_else(|| not_a_window(format!("`{text}` is not a time of the day here")))
}

fn not_a_window(reason: String) -> BadValue {
    BadValue::new(reason, "write it as \"Mon-Thu 09:00-16:00\", \"Sat,Sun 00:00-24:00\" or, for every day, \"22:00-02:00\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    #[test]
    fn a_cron_expression_says_what_is_wrong_with_it() {
        for (text, phrase) in [
            ("0 3 * *", "has 4"),
            ("@daily", "has 1"),
            ("0 0 3 * * * 2026", "has 7"),
            ("0 10 13 * 5", "both set"),
            ("0 25 * * *", "not a cron expression"),
            ("0 10 * * fish", "not a cron expression"),
        ] {
            let bad = Cron::parse(text).expect_err(text);
            assert!(bad.reason.contains(phrase), "{text}: {}", bad.reason);
            assert!(!bad.help.is_empty());
        }
        for good in ["0 10 * * 2", "30 0 10 * * 2", "*/5 * ? * MON-FRI", "0 0 1 * ?"] {
            assert!(Cron::parse(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn a_fixed_time_in_the_skipped_hour_comes_right_after_it_and_one_in_the_repeated_hour_once() {
        let cron = Cron::parse("30 2 * * *").expect("cron");
        let paris = chrono_tz::Europe::Paris;
        assert_eq!(cron.next_after(paris, utc("2026-03-28T12:00:00Z")), Some(utc("2026-03-29T01:00:00Z")));
        let first = cron.next_after(paris, utc("2026-10-24T12:00:00Z")).expect("next");
        assert_eq!(first, utc("2026-10-25T00:30:00Z"));
        assert_eq!(cron.next_after(paris, first), Some(utc("2026-10-26T01:30:00Z")));
    }

    #[test]
    fn a_date_that_never_comes_is_no_date() {
        let cron = Cron::parse("0 0 30 2 *").expect("cron");
        assert_eq!(cron.next_after(Tz::UTC, utc("2026-01-01T00:00:00Z")), None);
    }

    #[test]
    fn a_window_across_midnight_belongs_to_the_day_it_opens_on() {
        let window = Window::parse("Fri 22:00-02:00").expect("window");
        assert!(window.contains(Tz::UTC, utc("2026-11-20T22:00:00Z")), "Friday evening");
        assert!(window.contains(Tz::UTC, utc("2026-11-21T01:59:59Z")), "Saturday before two");
        assert!(!window.contains(Tz::UTC, utc("2026-11-21T02:00:00Z")));
        assert!(!window.contains(Tz::UTC, utc("2026-11-20T01:00:00Z")), "Friday before two belongs to Thursday");
    }

    #[test]
    fn a_window_opens_when_the_wall_clock_says_so_or_jumps_into_it() {
        let paris = chrono_tz::Europe::Paris;
        let open = |text: &str, from: &str| Window::parse(text).expect("window").next_open(paris, utc(from));
        assert_eq!(open("Mon-Thu 09:00-16:00", "2026-11-20T17:00:30Z"), Some(utc("2026-11-23T08:00:00Z")));
        assert_eq!(open("02:30-04:00", "2026-03-29T00:10:00Z"), Some(utc("2026-03-29T01:00:00Z")), "put forward to 03:00");
        assert_eq!(open("01:00-02:30", "2026-10-25T00:30:00Z"), Some(utc("2026-10-25T01:00:00Z")), "put back to 02:00");
        assert_eq!(open("Sun 02:00-03:00", "2026-03-23T00:00:00Z"), Some(utc("2026-04-05T00:00:00Z")), "skipped once");
    }

    #[test]
    fn a_window_says_what_is_wrong_with_it() {
        for (text, phrase) in [
            ("Mon-Thu", "`Mon`"),
            ("Mon 09:00", "not a span"),
            ("Mon Tue 09:00-16:00", "not a window"),
            ("Moon 09:00-16:00", "`Moon`"),
            ("9:00-16:00", "`9:00`"),
            ("09:00-25:00", "`25:00`"),
            ("24:00-01:00", "`24:00`"),
            ("09:00-09:00", "empty"),
        ] {
            let bad = Window::parse(text).expect_err(text);
            assert!(bad.reason.contains(phrase), "{text}: {}", bad.reason);
        }
        assert!(Window::parse("Sat,Sun 00:00-24:00").is_ok());
        assert!(Window::parse("Fri-Mon,Wed 09:00-09:01").is_ok());
    }
}
