//! The next due time of a webhook, as a pure function of its schedule and its past.
//!
//! What never happens: a rotation because hookturn was started, enabled, upgraded or given another schedule; two rotations
//! to make up for two missed ones; a due time that moves because somebody looked.

use std::time::Duration;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use crate::config::{Rule, Schedule, Window};

/// A due time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    pub at: DateTime<Utc>,
    /// How much later than rule and jitter alone, because the window is shut until then.
    pub window_shift: Duration,
    /// How much of it was the dice.
    pub jitter: Duration,
}

/// What the caller keeps of a webhook's schedule across restarts (one memo in the store).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The schedule it was made for, in words. Another one in the configuration makes a new plan.
    pub schedule: String,
    /// `None`: on demand only.
    pub due: Option<DateTime<Utc>>,
    pub jitter_ms: u64,
}

impl Plan {
    /// The plan as of now: the kept one wherever it still stands, else a new one. Safe to call at any time and as often as
    /// one likes: at start, after a rotation has ended, after the configuration was read again.
    ///
    /// `adopted` is when the webhook was adopted, `last_ended` when its last rotation ended, however it ended and whoever
    /// asked for it. `draw` is a random number in 0..1 and only used for a new plan.
    pub fn revised(
        kept: Option<&Plan>,
        schedule: &Schedule,
        adopted: Option<DateTime<Utc>>,
        last_ended: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
        draw: f64,
    ) -> Plan {
        let words = schedule.to_string();
        let kept = kept.filter(|plan| plan.schedule == words);
        let previous = kept.and_then(|plan| plan.due);
        match next_due(schedule, last_ended.or(adopted), previous, now, draw) {
            None => Plan { schedule: words, due: None, jitter_ms: 0 },
            Some(due) if Some(due.at) == previous => kept.cloned().unwrap_or_default(),
            Some(due) => Plan { schedule: words, due: Some(due.at), jitter_ms: millis(due.jitter) },
        }
    }

    /// Whether a rotation is to begin now.
    pub fn is_due(&self, schedule: &Schedule, now: DateTime<Utc>) -> bool {
        self.due.is_some_and(|due| is_due(due, now, schedule.window.as_ref(), schedule.timezone))
    }
}

/// When `schedule` is due next. `None`: on demand only (or a date that never comes).
///
/// - `last_completed`: when the last rotation ended, or the webhook was adopted.
/// - `previous_due`: the due time that was answered before for this very schedule, if it is kept. It is answered again
///   until a rotation has ended after it, so a missed one is caught up once, however many were missed.
/// - `jitter_draw`: a random number in 0..1, drawn anew by the caller; used only where the answer is a new one.
///
/// Without a `previous_due` the answer lies after `now`, whatever the past was.
pub fn next_due(
    schedule: &Schedule,
    last_completed: Option<DateTime<Utc>>,
    previous_due: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
    jitter_draw: f64,
) -> Option<Due> {
    // What lies ahead of the clock was noted by a clock that has been set back since.
    let last_completed = last_completed.filter(|at| *at <= now);
    let kept = previous_due.filter(|due| *due <= latest(schedule, now) && stands(&schedule.rule, *due, last_completed));
    if let Some(kept) = kept {
        return Some(Due { at: kept, window_shift: Duration::ZERO, jitter: Duration::ZERO });
    }
    let base = match (&schedule.rule, last_completed) {
        (Rule::Every(_), Some(completed)) => {
            after(schedule, completed).filter(|at| *at > now).or_else(|| after(schedule, now))?
        }
        _ => after(schedule, now)?,
    };
    let jitter = schedule.jitter.mul_f64(if jitter_draw.is_finite() { jitter_draw.clamp(0.0, 1.0) } else { 0.0 });
    placed(schedule, base, jitter)
}

/// The next time after `from` by the rule alone.
fn after(schedule: &Schedule, from: DateTime<Utc>) -> Option<DateTime<Utc>> {
    match &schedule.rule {
        Rule::Never => None,
        Rule::Every(period) => from.checked_add_signed(chrono::Duration::from_std(*period).ok()?),
        Rule::Cron(cron) => cron.next_after(schedule.timezone, from),
    }
}

/// No due time that was worked out until `now` lies after this.
fn latest(schedule: &Schedule, now: DateTime<Utc>) -> DateTime<Utc> {
    // A window opens every week, and the second placing may miss it once more.
    const WINDOWS: chrono::Duration = chrono::Duration::days(15);
    let jitter = chrono::Duration::from_std(schedule.jitter).ok();
    let latest =
        after(schedule, now).zip(jitter).and_then(|(at, jitter)| at.checked_add_signed(jitter)?.checked_add_signed(WINDOWS));
    latest.unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// Whether `due` may be begun at `now`: its time has come and the window is open.
pub fn is_due(due: DateTime<Utc>, now: DateTime<Utc>, window: Option<&Window>, tz: Tz) -> bool {
    due <= now && window.is_none_or(|window| window.contains(tz, now))
}

/// Whether a due time answered before is still the one.
fn stands(rule: &Rule, due: DateTime<Utc>, last_completed: Option<DateTime<Utc>>) -> bool {
    let Some(completed) = last_completed else { return !matches!(rule, Rule::Never) };
    let served = completed >= due;
    match rule {
        Rule::Never => false,
        // The calendar does not care for a run on demand.
        Rule::Cron(_) => !served,
        // A run on demand in between begins the period anew.
        Rule::Every(period) => {
            let period_over = chrono::Duration::from_std(*period).ok().and_then(|period| completed.checked_add_signed(period));
            !served && period_over.is_some_and(|at| at <= due)
        }
    }
}

/// Into the window first, so that the jitter also spreads those who wait for its opening; then into it again, should the
/// jitter lead out of it.
fn placed(schedule: &Schedule, base: DateTime<Utc>, jitter: Duration) -> Option<Due> {
    let jitter_by = chrono::Duration::from_std(jitter).ok()?;
    let unshifted = base.checked_add_signed(jitter_by)?;
    let at = match &schedule.window {
        None => unshifted,
        Some(window) => {
            let opened = window.next_open(schedule.timezone, base)?;
            window.next_open(schedule.timezone, opened.checked_add_signed(jitter_by)?)?
        }
    };
    Some(Due { at, window_shift: (at - unshifted).to_std().unwrap_or_default(), jitter })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
