//! What is drilled: the cells of the table, and the plays.

use std::fmt;

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    DrillOptions,
    fault::Trouble,
    judge::Failure,
    kills::Pattern,
    lane::{Lane, Mood, Plan, Ride},
    scenario::Scenario,
    worker::{Fate, Kind},
};
use crate::boundary::Boundary;

/// One entry of the drill, performed in one lane.
pub(super) struct Cell {
    pub(super) name: String,
    pub(super) work: Work,
    pub(super) seed: u64,
}

pub(super) enum Work {
    Die(Moment, Trouble),
    Kills(Pattern),
    Play(Scenario),
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    At(Boundary),
    /// SIGKILL while DialNexa works on the PATCH: nothing in the program marks this moment.
    InPatch,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Moment::At(boundary) => boundary.name(),
            Moment::InPatch => "patch-under-way",
        })
    }
}

impl Moment {
    pub(super) fn all() -> impl Iterator<Item = Moment> {
        Boundary::ALL.iter().copied().map(Moment::At).chain([Moment::InPatch])
    }

    /// Counts that a rotation without a fault comes to; the draw is from these.
    fn counts(self) -> u32 {
        match self {
            Moment::At(Boundary::BeforeCommit | Boundary::InCommit | Boundary::AfterCommit) => 16,
            Moment::At(Boundary::ProbeBooked | Boundary::AfterProbe) => 6,
            Moment::At(Boundary::BeforeAnchor | Boundary::AfterAnchor) => 3,
            Moment::At(
                Boundary::BeforeKeystoreWrite
                | Boundary::KeystoreWritten
                | Boundary::KeystoreRenamed
                | Boundary::AfterKeystoreWrite
                | Boundary::BeforeQuestion
                | Boundary::AfterQuestion,
            ) => 2,
            _ => 1,
        }
    }

    fn fate(self, count: u32) -> Fate {
        match self {
            Moment::At(boundary) => Fate::DieAt(boundary, count),
            Moment::InPatch => Fate::KillInPatch,
        }
    }
}

pub(super) fn cells(options: &DrillOptions) -> Vec<Cell> {
    let table = Moment::all().flat_map(|moment| {
        Trouble::all().map(move |trouble| (format!("{moment}/{}", trouble.name()), Work::Die(moment, trouble)))
    });
    let plays = Scenario::ALL.iter().map(|play| (format!("play/{}", play.name()), Work::Play(*play)));
    let numbered = (0u64..).zip(table.chain(plays));
    numbered.map(|(at, (name, work))| Cell { name, work, seed: options.seed.wrapping_add(at) }).collect()
}

impl Work {
    /// A play leaves its lane as no other cell could use it.
    pub(super) fn wants_fresh_lane(&self) -> bool {
        matches!(self, Work::Play(_))
    }
}

impl Cell {
    pub(super) async fn perform(&self, lane: &mut Lane, long: bool) -> Result<Ride, Failure> {
        let mut draw = StdRng::seed_from_u64(self.seed);
        match &self.work {
            Work::Die(moment, trouble) if long => every_count(lane, *moment, *trouble, &mut draw).await,
            Work::Die(moment, trouble) => one_count(lane, *moment, *trouble, &mut draw).await,
            Work::Kills(pattern) => pattern.perform(lane, long, &mut draw).await,
            Work::Play(scenario) => scenario.perform(lane, &mut draw).await,
        }
    }
}

/// Dies at a drawn count of the boundary. A fault may make a rotation shorter than the draw: then at its first one.
async fn one_count(lane: &mut Lane, moment: Moment, trouble: Trouble, draw: &mut StdRng) -> Result<Ride, Failure> {
    let count = draw.random_range(1..=moment.counts());
    let mut ride = die(lane, moment, count, trouble, draw).await?;
    if !ride.reached && count > 1 {
        ride.add(die(lane, moment, 1, trouble, draw).await?);
    }
    Ok(ride)
}

/// Rotation after rotation, each dies one count later than the last, until one is done before it comes to that.
async fn every_count(lane: &mut Lane, moment: Moment, trouble: Trouble, draw: &mut StdRng) -> Result<Ride, Failure> {
    let mut all = Ride::default();
    for count in 1.. {
        let ride = die(lane, moment, count, trouble, draw).await?;
        all.add(ride);
        if !ride.reached || moment == Moment::InPatch {
            break;
        }
    }
    Ok(all)
}

async fn die(lane: &mut Lane, moment: Moment, count: u32, trouble: Trouble, draw: &mut StdRng) -> Result<Ride, Failure> {
    // The one-shot command's own preflight would take a fault that is meant for the look before the retire.
    let kind = if !trouble.spoils_a_look() && draw.random_ratio(1, 3) { Kind::OneShot } else { Kind::Daemon };
    let plan = Plan { kind, fates: vec![moment.fate(count)], trouble, mood: Mood::drawn(draw) };
    lane.rotate(plan, draw).await
}
