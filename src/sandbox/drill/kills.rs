//! SIGKILL at random times, in patterns that a person with a grudge would think of.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    fault::Trouble,
    judge::Failure,
    lane::{Lane, Mood, Plan, Ride},
    plan::{Cell, Work},
    worker::{Fate, Kind},
};

/// When the lives of one rotation end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pattern {
    /// Whenever.
    Anytime,
    /// While it starts, several times in a row.
    AtStart,
    /// At some time, and again before it is quite up.
    Twice,
    /// Again and again after the same time, which is 50 to 500 ms.
    Metronome,
    /// So fast that it hardly comes up; now and then it gets a moment.
    Dense,
    /// Whenever a PATCH arrives.
    InPatch,
    /// Some lives are ended by SIGTERM.
    Orderly,
    /// Stopped for a while first, now and then for longer than the quarantine.
    Frozen,
    /// Stopped, and not killed: it goes on seconds later, and another daemon has tried to take its place.
    Stalled,
    /// As the metronome, at the beat that a person has asked for.
    Every(Duration),
}

const ALL: [Pattern; 9] = [
    Pattern::Anytime,
    Pattern::AtStart,
    Pattern::Twice,
    Pattern::Metronome,
    Pattern::Dense,
    Pattern::InPatch,
    Pattern::Orderly,
    Pattern::Frozen,
    Pattern::Stalled,
];

impl Pattern {
    fn name(self) -> &'static str {
        match self {
            Pattern::Anytime => "anytime",
            Pattern::AtStart => "at-start",
            Pattern::Twice => "twice",
            Pattern::Metronome => "metronome",
            Pattern::Dense => "dense",
            Pattern::InPatch => "in-patch",
            Pattern::Orderly => "orderly",
            Pattern::Frozen => "frozen",
            Pattern::Stalled => "stalled",
            Pattern::Every(_) => "every",
        }
    }

    fn fates(self, long: bool, draw: &mut StdRng) -> Vec<Fate> {
        let mut ms = |from: u64, to: u64| Duration::from_millis(draw.random_range(from..to));
        let kill = Fate::KillAfter;
        match self {
            Pattern::Anytime => (0..4).map(|_| kill(ms(0, 1_500))).collect(),
            Pattern::AtStart => (0..6).map(|_| kill(ms(0, 150))).collect(),
            Pattern::Twice => (0..3).flat_map(|_| [kill(ms(100, 1_200)), kill(ms(0, 60))]).collect(),
            Pattern::Metronome => vec![kill(ms(50, 500)); if long { 40 } else { 12 }],
            Pattern::Dense => (0..24).map(|nth| if nth % 8 == 7 { kill(ms(200, 800)) } else { kill(ms(20, 50)) }).collect(),
            Pattern::InPatch => vec![Fate::KillInPatch; 4],
            Pattern::Orderly => (0..2).flat_map(|_| [Fate::TermAfter(ms(0, 1_500)), kill(ms(0, 1_500))]).collect(),
            Pattern::Frozen => (0..3).map(|_| Fate::FreezeAndKill(ms(50, 1_200), ms(10, 1_500))).collect(),
            Pattern::Stalled => vec![Fate::Stall(ms(50, 1_500), ms(500, 4_000))],
            Pattern::Every(beat) => vec![kill(beat); if long { 200 } else { 40 }],
        }
    }

    pub(super) async fn perform(self, lane: &mut Lane, long: bool, draw: &mut StdRng) -> Result<Ride, Failure> {
        let one_shot = draw.random_ratio(1, 2) && self != Pattern::Stalled;
        let kind = if one_shot { Kind::OneShot } else { Kind::Daemon };
        let trouble = if draw.random_ratio(1, 2) { Trouble::drawn(draw) } else { Trouble::NONE };
        let fates = self.fates(long, draw);
        let plan = Plan { kind, fates, trouble, mood: Mood::drawn(draw) };
        lane.rotate(plan, draw).await
    }
}

/// The random kills that a filter leaves.
pub(super) fn patterns(filter: Option<&str>, every: Option<Duration>) -> Vec<Pattern> {
    let all = every.map_or_else(|| ALL.to_vec(), |beat| vec![Pattern::Every(beat)]);
    all.into_iter().filter(|pattern| filter.is_none_or(|part| format!("kills/{}", pattern.name()).contains(part))).collect()
}

/// The rotation number `number` under random kills of one of the `patterns`.
pub(super) fn cell(seed: u64, number: u32, patterns: &[Pattern]) -> Option<Cell> {
    let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(u64::from(number));
    let drawn = StdRng::seed_from_u64(seed).random_range(0..patterns.len().max(1));
    let pattern = *patterns.get(drawn)?;
    Some(Cell { name: format!("kills/{}/{number}", pattern.name()), work: Work::Kills(pattern), seed })
}
