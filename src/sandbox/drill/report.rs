use std::{path::Path, time::Duration};

use serde::Serialize;

use super::{
    DrillOptions,
    fault::Trouble,
    judge::Failure,
    lane::Ride,
    plan::{Cell, Moment, Work},
};

/// What came of a drill.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub seed: u64,
    pub long: bool,
    pub seconds: f64,
    pub figures: Figures,
    /// The table's rows and columns. A cell's place in it is its name, `ROW/COLUMN`.
    pub boundaries: Vec<String>,
    pub faults: Vec<String>,
    /// In the order of their names.
    pub cells: Vec<CellReport>,
}

/// One cell, one play, or one rotation under random kills.
#[derive(Debug, Clone, Serialize)]
pub struct CellReport {
    pub name: String,
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Times that the program died.
    pub deaths: u32,
    pub seconds: f64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "verdict")]
pub enum Verdict {
    Survived,
    /// The program never came to the boundary: nothing was shown.
    NotReached,
    /// What was wrong, and where everything lies that could tell why.
    Failed {
        why: String,
        directory: String,
    },
}

/// Sums over all cells.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Figures {
    pub rotations: u64,
    /// Times that the program was started.
    pub starts: u64,
    /// Deaths at a boundary, and by a signal at a random time.
    pub aborts: u64,
    pub kills: u64,
    /// Holds that were left through `resume`.
    pub holds: u64,
    pub patches: u64,
    pub deliveries: u64,
    /// Tries of deliveries, the repeated ones too.
    pub tries: u64,
    /// Tries whose answer the provider never got, as under a heavy load of the machine; each was repeated and accepted.
    pub unanswered: u64,
    /// Tries that were refused, and had taken longer than the drain allows for: the machine was too slow for the drill.
    pub late: u64,
}

impl Report {
    pub(super) fn new(options: &DrillOptions, mut cells: Vec<CellReport>, figures: Figures, took: Duration) -> Report {
        cells.sort_by(|a, b| a.name.cmp(&b.name));
        Report {
            seed: options.seed,
            long: options.long,
            seconds: took.as_secs_f64(),
            figures,
            boundaries: Moment::all().map(|moment| moment.to_string()).collect(),
            faults: Trouble::all().map(Trouble::name).collect(),
            cells,
        }
    }

    /// Cells that did not survive, or showed nothing.
    pub fn failed(&self) -> usize {
        self.cells.iter().filter(|cell| cell.verdict != Verdict::Survived).count()
    }

    pub fn verdict(&self, boundary: &str, fault: &str) -> Option<&Verdict> {
        let name = format!("{boundary}/{fault}");
        let at = self.cells.binary_search_by(|cell| cell.name.cmp(&name)).ok()?;
        Some(&self.cells[at].verdict)
    }
}

impl CellReport {
    pub(super) fn new(cell: &Cell, dir: &Path, outcome: Result<Ride, Failure>, took: Duration) -> CellReport {
        let (verdict, ride) = match outcome {
            Ok(ride) if ride.reached || !matches!(cell.work, Work::Die(..)) => (Verdict::Survived, ride),
            Ok(ride) => (Verdict::NotReached, ride),
            Err(Failure { why, ride }) => (Verdict::Failed { why, directory: dir.display().to_string() }, ride),
        };
        CellReport { name: cell.name.clone(), verdict, deaths: ride.aborts + ride.kills, seconds: took.as_secs_f64() }
    }
}

impl Figures {
    pub(super) fn add(&mut self, ride: &Ride) {
        self.rotations += u64::from(ride.rotations);
        self.starts += u64::from(ride.starts);
        self.aborts += u64::from(ride.aborts);
        self.kills += u64::from(ride.kills);
        self.holds += u64::from(ride.holds);
        self.patches += ride.patches;
        self.deliveries += ride.deliveries;
        self.tries += ride.tries;
        self.unanswered += ride.unanswered;
        self.late += ride.late;
    }
}

impl Ride {
    pub(super) fn add(&mut self, other: Ride) {
        self.rotations += other.rotations;
        self.starts += other.starts;
        self.aborts += other.aborts;
        self.kills += other.kills;
        self.holds += other.holds;
        self.deliveries += other.deliveries;
        self.tries += other.tries;
        self.unanswered += other.unanswered;
        self.late += other.late;
        self.patches += other.patches;
        self.reached |= other.reached;
    }
}
