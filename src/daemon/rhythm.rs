//! How often deliveries come, learned from what was seen and kept across restarts, so that silence is judged by the webhook's
//! own pattern and not by a number that fits nobody.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::store::UnixMillis;

/// Gaps are forgotten by halves beyond so many: the pattern of last month weighs less than that of today.
const GAPS: u32 = 1_000;
/// The longest silence of each day is remembered for so many days: four weekends.
const DAYS: i64 = 28;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// What was watched for less than this may still have a weekend before it.
const SETTLED_MS: i64 = 8 * DAY_MS;
/// The alarm of a webhook that is not known for long: a weekend is no alarm.
const UNKNOWN_MS: u64 = 3 * DAY_MS as u64;
/// No silence is unusual before that.
pub(super) const UNUSUAL_MS: u64 = 10 * 60 * 1000;

/// The pattern of one webhook's genuine deliveries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Rhythm {
    first: Option<UnixMillis>,
    pub last: Option<UnixMillis>,
    /// By the power of two of their length in milliseconds: how many gaps there were, and their sum.
    gaps: BTreeMap<u8, (u32, u64)>,
    /// Of each day the longest silence that ended on it.
    silences: BTreeMap<i64, u64>,
    /// Nobody listened before. A gap that reaches back beyond it is no gap of the webhook's.
    #[serde(skip)]
    watched_since: UnixMillis,
}

impl Rhythm {
    /// From now on somebody listens.
    pub fn watch(&mut self, now: UnixMillis) {
        self.watched_since = now;
    }

    /// The wall clock was set back: silence is counted from now.
    pub fn set_back(&mut self, now: UnixMillis) {
        self.last = self.last.map(|last| last.min(now));
        self.watched_since = now;
    }

    /// A genuine delivery came, with a body that was not seen before.
    pub fn beat(&mut self, now: UnixMillis) {
        self.first.get_or_insert(now);
        if let Some(last) = self.last.replace(now)
            && last >= self.watched_since
        {
            // The wall clock was set back: nothing is learned from that.
            if let Ok(gap) = u64::try_from(now - last) {
                self.learn(gap, now);
            }
        }
    }

    fn learn(&mut self, gap: u64, now: UnixMillis) {
        let bucket = self.gaps.entry(u8::try_from(gap.max(1).ilog2()).unwrap_or(u8::MAX)).or_default();
        *bucket = (bucket.0 + 1, bucket.1.saturating_add(gap));
        if self.gaps.values().map(|(count, _)| count).sum::<u32>() > GAPS {
            for (count, sum) in self.gaps.values_mut() {
                let half = *count / 2;
                (*count, *sum) = (half, *sum / u64::from((*count).max(1)) * u64::from(half));
            }
            self.gaps.retain(|_, (count, _)| *count > 0);
        }
        let today = now.div_euclid(DAY_MS);
        let longest = self.silences.entry(today).or_default();
        *longest = gap.max(*longest);
        self.silences.retain(|day, _| *day > today - DAYS);
    }

    /// The usual distance between two deliveries: the mean of the gaps about the median one.
    pub fn usual(&self) -> Option<u64> {
        let half = self.gaps.values().map(|(count, _)| count).sum::<u32>().div_ceil(2);
        let mut below = 0;
        let median = self.gaps.values().find(|(count, _)| {
            below += count;
            below >= half
        });
        median.map(|(count, sum)| sum / u64::from((*count).max(1)))
    }

    /// How long nothing has come while somebody listened.
    pub fn silence(&self, now: UnixMillis) -> u64 {
        let from = self.last.map_or(self.watched_since, |last| last.max(self.watched_since));
        u64::try_from(now - from).unwrap_or(0)
    }

    /// How long a silence may be before a person should know: half as long again as the longest one of the last four weeks.
    pub fn patience(&self) -> u64 {
        let longest = self.silences.values().max().map_or(0, |longest| longest.saturating_mul(3) / 2);
        let known_for = self.first.zip(self.last).map_or(0, |(first, last)| last - first);
        longest.max(if known_for >= SETTLED_MS { UNUSUAL_MS } else { UNKNOWN_MS })
    }

    /// It was never silent for so long in the last four weeks.
    pub fn unheard_of(&self, now: UnixMillis) -> bool {
        self.silence(now) > self.silences.values().max().copied().unwrap_or(0)
    }

    /// Deliveries that should have come by now did not: what corroborates a finding that anybody could forge.
    pub fn missed(&self, now: UnixMillis) -> bool {
        self.usual().is_some_and(|usual| self.silence(now) > (usual.saturating_mul(4)).max(5_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;
    const HOUR: i64 = 60 * MINUTE;

    fn every(gap: i64, times: i64) -> Rhythm {
        let mut rhythm = Rhythm::default();
        (0..=times).for_each(|at| rhythm.beat(at * gap));
        rhythm
    }

    #[test]
    fn the_usual_distance_is_that_of_most_gaps() {
        assert_eq!(Rhythm::default().usual(), None);
        let mut rhythm = every(40 * MINUTE, 50);
        assert_eq!(rhythm.usual(), Some(40 * 60_000));
        let last = 50 * 40 * MINUTE;
        rhythm.beat(last + 60 * HOUR);
        rhythm.beat(last + 60 * HOUR + 1);
        assert_eq!(rhythm.usual(), Some(40 * 60_000), "a weekend and a burst change nothing");
    }

    #[test]
    fn a_new_pattern_wins_in_the_end() {
        let mut rhythm = every(1_000, 5_000);
        let then = 5_000 * 1_000;
        (1..=1_500).for_each(|at| rhythm.beat(then + at * HOUR));
        assert_eq!(rhythm.usual(), Some(3_600_000));
    }

    #[test]
    fn patience_is_the_longest_silence_and_half_and_a_weekend_while_little_is_known() {
        assert_eq!(Rhythm::default().patience(), UNKNOWN_MS);
        assert_eq!(every(MINUTE, 60).patience(), UNKNOWN_MS, "known for an hour");
        let mut busy = every(MINUTE, 9 * 24 * 60);
        assert_eq!(busy.patience(), UNUSUAL_MS);
        let last = busy.last.expect("a last one");
        busy.beat(last + 60 * HOUR);
        assert_eq!(busy.patience(), 90 * 3_600_000);
        let back = last + 60 * HOUR;
        (1..=29 * 24).for_each(|hour| busy.beat(back + hour * HOUR));
        assert_eq!(busy.patience(), 90 * 60_000, "the long one is forgotten after four weeks");
    }

    #[test]
    fn what_nobody_watched_is_no_silence() {
        let mut rhythm = every(MINUTE, 10);
        let stored = serde_json::to_string(&rhythm).expect("JSON");
        rhythm = serde_json::from_str(&stored).expect("a rhythm");
        rhythm.watch(100 * HOUR);
        assert_eq!(rhythm.silence(100 * HOUR + 5), 5);
        assert!(!rhythm.missed(100 * HOUR + 4 * MINUTE) && rhythm.missed(100 * HOUR + 5 * MINUTE));
        rhythm.beat(101 * HOUR);
        assert_eq!(rhythm.usual(), Some(60_000));
        assert_eq!(rhythm.silence(101 * HOUR + 7), 7);
        rhythm.beat(HOUR);
        assert_eq!(rhythm.usual(), Some(60_000), "a clock that was set back teaches nothing");
        rhythm.set_back(MINUTE);
        assert_eq!((rhythm.silence(MINUTE + 3), rhythm.last), (3, Some(MINUTE)));
    }
}
