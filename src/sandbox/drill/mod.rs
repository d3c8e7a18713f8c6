//! The crash drill: the real program, a real store and real HTTP, and a death at every boundary under every provider fault.
//!
//! Each cell of the table is one rotation. The program dies once at the cell's boundary, is started again, and has to finish;
//! then the logs of everybody else are judged ([`judge`]). Beside the table there are rotations under SIGKILL at random times
//! ([`kills`]) and a few plays with a person or a robot in them ([`scenario`]). Cells run side by side, each lane with a
//! sandbox, a directory and a store of its own that live on from cell to cell.

mod fault;
mod judge;
mod kills;
mod lane;
mod plan;
mod report;
mod scenario;
mod worker;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};

pub use report::{CellReport, Figures, Report, Verdict};

use self::{
    judge::Failure,
    kills::Pattern,
    lane::{Lane, Ride},
    plan::{Cell, Work},
};
use super::SandboxError;

/// What to drill.
#[derive(Debug, Clone)]
pub struct DrillOptions {
    /// The program that is killed.
    pub program: PathBuf,
    /// Cells die at every count of their boundary, not at one that is drawn.
    pub long: bool,
    /// Only cells whose name has this in it.
    pub cells: Option<String>,
    /// Random kills, at least so many.
    pub kills: u32,
    /// Not at random, but each so long after a start.
    pub kill_every: Option<Duration>,
    /// What is drawn is drawn from this. Times of processes are not repeated by it.
    pub seed: u64,
    /// Cells at once.
    pub lanes: usize,
    /// A rotation that is not over by then is stuck.
    pub patience: Duration,
}

/// Why the drill could not be held.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    #[error("no directory for the drill: {0}")]
    Directory(#[source] io::Error),
    #[error("a sandbox does not start: {0}")]
    Sandbox(#[from] SandboxError),
    #[error("no cell has {0:?} in its name; try `after-patch`, `apply-late`, `before-commit/none`, `kills` or `robot`")]
    NoSuchCell(String),
}

/// A drill, laid out and not begun.
pub struct Drill {
    options: DrillOptions,
    cells: Vec<Cell>,
    kills: Vec<Pattern>,
}

impl Drill {
    /// # Errors
    /// No cell has the asked name.
    pub fn new(options: DrillOptions) -> Result<Drill, DrillError> {
        let cells = plan::cells(&options);
        let wanted = |name: &str| options.cells.as_deref().is_none_or(|part| name.contains(part));
        let kills = if options.kills > 0 { kills::patterns(options.cells.as_deref(), options.kill_every) } else { Vec::new() };
        match (&options.cells, cells.iter().any(|cell| wanted(&cell.name)) || !kills.is_empty()) {
            (Some(part), false) => Err(DrillError::NoSuchCell(part.clone())),
            _ => Ok(Drill { cells: cells.into_iter().filter(|cell| wanted(&cell.name)).collect(), kills, options }),
        }
    }

    /// Cells, the random kills not counted.
    pub fn cells(&self) -> usize {
        self.cells.len()
    }

    /// Holds it. `told` hears of every cell as it ends.
    ///
    /// # Errors
    /// The surroundings are missing. What the program does wrong is in the report.
    pub async fn run(self, told: impl Fn(&CellReport) + Send + Sync + 'static) -> Result<Report, DrillError> {
        let root = tempfile::Builder::new().prefix("hookturn-drill-").tempdir().map_err(DrillError::Directory)?;
        let begun = Instant::now();
        let stage = Arc::new(Stage {
            root: root.path().to_owned(),
            waiting: Mutex::new(shuffled(self.cells, self.options.seed)),
            kills_left: AtomicU32::new(self.options.kills),
            patterns: self.kills,
            kill_cells: AtomicU32::new(0),
            lanes: AtomicU32::new(0),
            reports: Mutex::default(),
            figures: Mutex::default(),
            options: self.options,
            told: Box::new(told),
        });
        let mut lanes = tokio::task::JoinSet::new();
        for _ in 0..stage.options.lanes.max(1) {
            lanes.spawn(stage.clone().perform());
        }
        while let Some(ended) = lanes.join_next().await {
            ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        }
        let cells = std::mem::take(&mut *stage.reports.lock().unwrap_or_else(PoisonError::into_inner));
        let figures = *stage.figures.lock().unwrap_or_else(PoisonError::into_inner);
        let report = Report::new(&stage.options, cells, figures, begun.elapsed());
        if report.failed() > 0 {
            // The directories of failed cells are for a person to look at.
            let _ = root.keep();
        }
        Ok(report)
    }
}

fn shuffled(mut cells: Vec<Cell>, seed: u64) -> Vec<Cell> {
    let mut draw = StdRng::seed_from_u64(seed);
    for at in (1..cells.len()).rev() {
        cells.swap(at, draw.random_range(0..=at));
    }
    cells
}

/// What all lanes share.
struct Stage {
    root: PathBuf,
    options: DrillOptions,
    waiting: Mutex<Vec<Cell>>,
    patterns: Vec<Pattern>,
    kills_left: AtomicU32,
    kill_cells: AtomicU32,
    lanes: AtomicU32,
    reports: Mutex<Vec<CellReport>>,
    figures: Mutex<Figures>,
    told: Box<dyn Fn(&CellReport) + Send + Sync>,
}

impl Stage {
    /// Cell after cell in one lane, until none is left. A lane with a failed cell is left as it is, and another one opened.
    async fn perform(self: Arc<Self>) -> Result<(), DrillError> {
        let mut lane: Option<Lane> = None;
        while let Some(cell) = self.next() {
            let mut used = match lane.take() {
                Some(lane) if !cell.work.wants_fresh_lane() => lane,
                other => {
                    close(other).await;
                    self.open().await?
                }
            };
            let begun = Instant::now();
            let outcome = cell.perform(&mut used, self.options.long).await;
            let clean = outcome.is_ok() && !cell.work.wants_fresh_lane();
            self.ended(&cell, &used, outcome, begun);
            match clean {
                true => lane = Some(used),
                false => used.shut().await,
            }
        }
        close(lane).await;
        Ok(())
    }

    fn next(&self) -> Option<Cell> {
        let cell = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
        cell.or_else(|| {
            let number =
                (self.kills_left.load(Ordering::Relaxed) > 0).then(|| self.kill_cells.fetch_add(1, Ordering::Relaxed))?;
            kills::cell(self.options.seed, number, &self.patterns)
        })
    }

    async fn open(&self) -> Result<Lane, DrillError> {
        let number = self.lanes.fetch_add(1, Ordering::Relaxed);
        let dir = self.root.join(format!("lane-{number}"));
        Lane::open(dir, self.options.program.clone(), self.options.patience).await
    }

    fn ended(&self, cell: &Cell, lane: &Lane, outcome: Result<Ride, Failure>, begun: Instant) {
        let ride = match &outcome {
            Ok(ride) => *ride,
            Err(failure) => failure.ride,
        };
        if matches!(cell.work, Work::Kills(_)) {
            let left = |left: u32| Some(left.saturating_sub(ride.kills.max(1)));
            let _ = self.kills_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
        }
        self.figures.lock().unwrap_or_else(PoisonError::into_inner).add(&ride);
        let report = CellReport::new(cell, lane.dir(), outcome, begun.elapsed());
        (self.told)(&report);
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
    }
}

async fn close(lane: Option<Lane>) {
    if let Some(lane) = lane {
        let dir = lane.dir().to_owned();
        lane.shut().await;
        // Nothing of it is wanted any more; what cannot be removed goes with the drill's directory.
        let _ = std::fs::remove_dir_all(dir);
    }
}
