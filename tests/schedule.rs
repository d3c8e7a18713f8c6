//! What a schedule means in every time zone, on the days on which clocks are put forward and back, and after a past of
//! missed, early and repeated runs.

use chrono::{DateTime, Duration, Timelike, Utc};
use chrono_tz::Tz;
use hookturn::{
    config::{Cron, Rule, Schedule, Window},
    schedule::{Plan, is_due, next_due},
};
use proptest::prelude::*;

fn utc(text: &str) -> DateTime<Utc> {
    text.parse().expect("a time")
}

fn cron(text: &str) -> Cron {
    Cron::parse(text).expect("a cron expression")
}

fn window(text: &str) -> Window {
    Window::parse(text).expect("a window")
}

fn schedule(rule: Rule) -> Schedule {
    Schedule { rule, timezone: Tz::UTC, window: None, jitter: std::time::Duration::ZERO }
}

fn every(days: u64) -> Schedule {
    schedule(Rule::Every(std::time::Duration::from_secs(days * 86_400)))
}

fn due(schedule: &Schedule, completed: Option<&str>, previous: Option<&str>, now: &str) -> Option<DateTime<Utc>> {
    next_due(schedule, completed.map(utc), previous.map(utc), utc(now), 0.0).map(|due| due.at)
}

/// Zones with large, small, half-hour, whole-day and southern changes, and some without any.
const ZONES: [Tz; 12] = [
    Tz::UTC,
    Tz::Europe__Paris,
    Tz::America__New_York,
    Tz::America__St_Johns,
    Tz::America__Santiago,
    Tz::Australia__Lord_Howe,
    Tz::Australia__Sydney,
    Tz::Africa__Casablanca,
    Tz::Asia__Kathmandu,
    Tz::Pacific__Apia,
    Tz::Pacific__Chatham,
    Tz::Antarctica__Troll,
];

fn zone() -> impl Strategy<Value = Tz> {
    prop_oneof![proptest::sample::select(&ZONES[..]), proptest::sample::select(&chrono_tz::TZ_VARIANTS[..])]
}

/// Any second from 2010 to 2037, half of the time within the hours around a change of Paris or New York.
fn instant() -> impl Strategy<Value = DateTime<Utc>> {
    let changes = ["2026-03-29T01:00:00Z", "2026-10-25T01:00:00Z", "2026-03-08T07:00:00Z", "2026-11-01T06:00:00Z"];
    let near =
        (proptest::sample::select(changes.map(utc).to_vec()), -10_000i64..10_000).prop_map(|(at, s)| at + Duration::seconds(s));
    let any = (1_262_304_000i64..2_114_380_800).prop_map(|s| DateTime::from_timestamp(s, 0).expect("a time"));
    prop_oneof![near, any]
}

fn pattern() -> impl Strategy<Value = String> {
    let minute = prop_oneof![(0..60u32).prop_map(|m| m.to_string()), Just("*/15".to_owned()), Just("5,35".to_owned())];
    let hour = prop_oneof![(0..24u32).prop_map(|h| h.to_string()), Just("*".to_owned()), Just("1-3".to_owned())];
    let days = prop_oneof![
        Just("* * *".to_owned()),
        (1..29u32).prop_map(|d| format!("{d} * *")),
        Just("L * *".to_owned()),
        (0..8u32).prop_map(|d| format!("* * {d}")),
        Just("* */3 MON-FRI".to_owned()),
        Just("* * 2#1".to_owned()),
    ];
    (minute, hour, days).prop_map(|(minute, hour, days)| format!("{minute} {hour} {days}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_next_time_of_a_cron_expression_lies_after_the_one_before(
        pattern in pattern(), tz in zone(), start in instant(), nanos in 0u32..1_000_000_000,
    ) {
        let cron = cron(&pattern);
        let mut last = start.with_nanosecond(nanos).expect("a time");
        for _ in 0..12 {
            let next = cron.next_after(tz, last);
            prop_assert!(next.is_some_and(|next| next > last), "{pattern} {tz}: {next:?} after {last}");
            last = next.expect("just looked at");
        }
    }

    #[test]
    fn asking_a_little_later_gives_the_same_time_until_it_has_come(
        pattern in pattern(), tz in zone(), start in instant(), part in 0.0f64..1.0,
    ) {
        let cron = cron(&pattern);
        let next = cron.next_after(tz, start).expect("a time");
        let later = start + Duration::seconds(((next - start).num_seconds() as f64 * part) as i64);
        prop_assume!(later < next);
        prop_assert_eq!(cron.next_after(tz, later), Some(next), "{} {}", pattern, tz);
    }

    #[test]
    fn a_window_opens_at_the_first_minute_that_it_contains(
        days in proptest::sample::select(vec!["", "Mon-Thu ", "Sat,Sun ", "Fri "]),
        opens in 0u32..1440, length in 1u32..1440, tz in zone(), from in instant(),
    ) {
        let closes = if (opens + length) % 1440 == 0 { 1440 } else { (opens + length) % 1440 };
        prop_assume!(opens != closes);
        let time = |m: u32| format!("{:02}:{:02}", m / 60, m % 60);
        let window = window(&format!("{days}{}-{}", time(opens), time(closes)));
        let open = window.next_open(tz, from);
        prop_assert!(open.is_some_and(|open| open >= from && window.contains(tz, open)), "{window} {tz} {from}: {open:?}");
        let open = open.expect("just looked at");
        prop_assert_eq!(window.next_open(tz, open), Some(open));
        if open > from {
            prop_assert!(!window.contains(tz, open - Duration::nanoseconds(1)));
            prop_assert!(!window.contains(tz, from));
        }
    }

    #[test]
    fn a_new_due_time_is_never_in_the_past_and_always_in_the_window(
        pattern in proptest::option::of(pattern()), period in 1u64..90, past in 0i64..10_000, tz in zone(), now in instant(),
        draw in 0.0f64..1.0, jitter in 0u64..200_000, windowed in any::<bool>(),
    ) {
        let mut schedule = pattern.map_or_else(|| every(period), |pattern| schedule(Rule::Cron(cron(&pattern))));
        schedule.timezone = tz;
        schedule.jitter = std::time::Duration::from_secs(jitter);
        schedule.window = windowed.then(|| window("Mon-Thu 09:00-16:00"));
        let completed = now - Duration::hours(past);
        let due = next_due(&schedule, Some(completed), None, now, draw).expect("a due time");
        prop_assert!(due.at > now, "{schedule} at {now}: {due:?}");
        prop_assert!(!is_due(due.at, now, schedule.window.as_ref(), tz));
        prop_assert!(is_due(due.at, due.at, schedule.window.as_ref(), tz));
        // Looking again, with other dice, moves nothing, also long after it was missed.
        for later in [now, due.at, due.at + Duration::days(400)] {
            let again = next_due(&schedule, Some(completed), Some(due.at), later, 1.0 - draw).expect("a due time");
            prop_assert_eq!(again.at, due.at);
        }
    }
}

#[test]
fn the_hour_that_comes_twice_has_every_run_of_a_repeating_pattern_once_and_in_order() {
    let half_hours = cron("*/30 2 * * *");
    let times = std::iter::successors(Some(utc("2026-10-25T00:00:00Z") - Duration::seconds(1)), |last| {
        half_hours.next_after(Tz::Europe__Paris, *last)
    });
    let times: Vec<_> = times.skip(1).take(5).map(|at| at.to_rfc3339()).collect();
    let expected =
        ["2026-10-25T00:00:00", "2026-10-25T00:30:00", "2026-10-25T01:00:00", "2026-10-25T01:30:00", "2026-10-26T01:00:00"];
    assert_eq!(times, expected.map(|at| format!("{at}+00:00")));
}

#[test]
fn the_first_rotation_is_a_whole_period_after_adoption() {
    assert_eq!(due(&every(30), Some("2026-11-01T10:00:00Z"), None, "2026-11-01T10:00:05Z"), Some(utc("2026-12-01T10:00:00Z")));
    let tuesdays = schedule(Rule::Cron(cron("0 10 * * 2")));
    assert_eq!(due(&tuesdays, None, None, "2026-11-24T10:00:00Z"), Some(utc("2026-12-01T10:00:00Z")), "not at this very minute");
    assert_eq!(due(&schedule(Rule::Never), None, Some("2020-01-01T00:00:00Z"), "2026-11-24T10:00:00Z"), None);
}

#[test]
fn a_shorter_period_does_not_make_an_old_webhook_due_at_once() {
    let now = "2026-11-24T10:00:00Z";
    assert_eq!(due(&every(30), Some("2026-01-01T00:00:00Z"), None, now), Some(utc("2026-12-24T10:00:00Z")));
    assert_eq!(due(&every(30), Some("2026-11-20T00:00:00Z"), None, now), Some(utc("2026-12-20T00:00:00Z")), "the past counts");
}

#[test]
fn however_many_were_missed_one_is_caught_up() {
    let tuesdays = schedule(Rule::Cron(cron("0 10 * * 2")));
    let (last, missed, back) = ("2026-09-29T10:30:00Z", "2026-10-06T10:00:00Z", "2026-11-24T09:00:00Z");
    let kept = due(&tuesdays, Some(last), Some(missed), back);
    assert_eq!(kept, Some(utc(missed)), "seven were missed");
    assert!(is_due(utc(missed), utc(back), None, Tz::UTC));
    // It ran, and the next one is the next one.
    assert_eq!(
        due(&tuesdays, Some("2026-11-24T09:20:00Z"), Some(missed), "2026-11-24T09:20:00Z"),
        Some(utc("2026-11-24T10:00:00Z"))
    );
}

#[test]
fn a_missed_run_waits_for_the_window() {
    let working = window("Mon-Thu 09:00-16:00");
    let missed = utc("2026-11-19T10:00:00Z");
    assert!(!is_due(missed, utc("2026-11-20T12:00:00Z"), Some(&working), Tz::UTC), "a Friday");
    assert!(is_due(missed, utc("2026-11-23T09:00:00Z"), Some(&working), Tz::UTC), "the Monday after");
}

#[test]
fn a_run_on_demand_moves_a_period_but_not_the_calendar() {
    let (planned, on_demand) = ("2026-12-01T10:00:00Z", "2026-11-24T12:00:00Z");
    let tuesdays = schedule(Rule::Cron(cron("0 10 * * 2")));
    assert_eq!(due(&tuesdays, Some(on_demand), Some(planned), on_demand), Some(utc(planned)));
    assert_eq!(due(&every(30), Some(on_demand), Some(planned), on_demand), Some(utc("2026-12-24T12:00:00Z")));
}

#[test]
fn jitter_spreads_those_who_wait_for_the_window_to_open() {
    let mut weekly = schedule(Rule::Cron(cron("0 3 * * 6")));
    weekly.window = Some(window("Mon-Thu 09:00-16:00"));
    weekly.jitter = std::time::Duration::from_secs(7200);
    let at = |draw: f64| next_due(&weekly, None, None, utc("2026-11-24T10:00:00Z"), draw).expect("a due time");
    assert_eq!(at(0.0).at, utc("2026-11-30T09:00:00Z"), "Saturday at three is Monday at nine");
    assert_eq!(at(0.5).at, utc("2026-11-30T10:00:00Z"));
    assert_eq!(at(0.5).window_shift.as_secs(), 2 * 86_400 + 6 * 3600);
    assert_eq!(at(0.5).jitter.as_secs(), 3600);
    assert_eq!(at(f64::NAN).at, at(0.0).at, "bad dice are no dice");
}

#[test]
fn a_plan_survives_a_restart_and_an_edited_schedule_makes_another() {
    let mut monthly = every(30);
    monthly.jitter = std::time::Duration::from_secs(7200);
    let (adopted, now) = (Some(utc("2026-11-01T00:00:00Z")), utc("2026-11-01T00:00:00Z"));
    let plan = Plan::revised(None, &monthly, adopted, None, now, 0.25);
    assert_eq!((plan.due, plan.jitter_ms), (Some(utc("2026-12-01T00:30:00Z")), 1_800_000));

    let kept: Plan = serde_json::from_str(&serde_json::to_string(&plan).expect("json")).expect("a plan");
    let much_later = utc("2027-03-01T00:00:00Z");
    assert_eq!(Plan::revised(Some(&kept), &monthly, adopted, None, much_later, 0.9), plan, "down for three months");
    assert!(plan.is_due(&monthly, much_later));

    let edited = Plan::revised(Some(&kept), &every(7), adopted, None, much_later, 0.9);
    assert_eq!(edited.due, Some(utc("2027-03-08T00:00:00Z")), "never at once");
    let off = Plan::revised(Some(&kept), &schedule(Rule::Never), adopted, None, much_later, 0.9);
    assert!(off.due.is_none() && !off.is_due(&schedule(Rule::Never), much_later));
}

#[test]
fn a_clock_that_ran_years_ahead_and_was_set_back_does_not_put_the_next_rotation_off_for_years() {
    let (now, ahead) = (utc("2026-08-06T10:00:00Z"), utc("2031-01-01T00:00:00Z"));
    for schedule in [every(30), schedule(Rule::Cron(cron("0 10 * * 2")))] {
        let noted = next_due(&schedule, Some(ahead), None, ahead, 0.0).expect("a due time").at;
        let due = next_due(&schedule, Some(ahead), Some(noted), now, 0.0).expect("a due time").at;
        assert!(due > now && due <= now + Duration::days(31), "{schedule}: {due}");
        let again = next_due(&schedule, Some(ahead), Some(due), now + Duration::hours(1), 0.9).expect("a due time").at;
        assert_eq!(again, due, "{schedule}: and it stays");
    }
}
