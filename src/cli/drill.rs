//! `drill`: this very program, killed at every boundary under every provider fault, and at random; then everybody's logs judged.

use std::{
    io::{self, IsTerminal},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use clap::Args;

use super::{
    exit::{Code, Stop},
    out,
};
use crate::{
    config,
    sandbox::drill::{Drill as Plan, DrillError, DrillOptions, Report, Verdict},
};

/// Random kills where nothing is said, and in the long mode.
const KILLS: u32 = 100;
const KILLS_LONG: u32 = 3_000;
/// Where the output is a log, a line now and then says that it goes on.
const SAY_EVERY: usize = 100;

#[derive(Args)]
pub struct Drill {
    /// Die at every count of each boundary, not at one that is drawn, and 3000 random kills: hours
    #[arg(long)]
    long: bool,
    /// Only cells with this in their name, as `after-patch`, `before-commit/apply-late`, `kills` or `play/robot`
    #[arg(long, value_name = "PART")]
    cells: Option<String>,
    /// Random SIGKILLs [default: 100; 3000 with --long]
    #[arg(long, value_name = "N")]
    kills: Option<u32>,
    /// Kill each life of the random kills so long after its start, as `40ms`, instead of at random
    #[arg(long, value_name = "TIME", value_parser = duration)]
    kill_every: Option<Duration>,
    /// Draw what was drawn before
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// Cells at once, each with a sandbox of its own
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    lanes: Option<u16>,
    #[arg(long)]
    json: bool,
}

impl Drill {
    pub async fn run(self) -> Result<Code, Stop> {
        let program = std::env::current_exe()
            .map_err(|error| Stop::new(Code::Unreachable, format!("this program cannot be found: {error}")))?;
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        let options = DrillOptions {
            program,
            long: self.long,
            cells: self.cells,
            kills: self.kills.unwrap_or(if self.long { KILLS_LONG } else { KILLS }),
            kill_every: self.kill_every,
            seed: self.seed.unwrap_or_else(|| rand::random_range(0..1_000_000)),
            // A cell waits for most of its time.
            patience: PATIENCE,
            lanes: self.lanes.map_or(processors * LANES_PER_PROCESSOR, usize::from),
        };
        let (seed, kills) = (options.seed, options.kills);
        let drill = Plan::new(options)?;
        eprintln!("drill: {} cells, {kills} random kills, seed {seed}", drill.cells());
        let (ended, live) = (AtomicUsize::new(0), io::stderr().is_terminal());
        let told = move |cell: &crate::sandbox::drill::CellReport| {
            let ended = ended.fetch_add(1, Ordering::Relaxed) + 1;
            match &cell.verdict {
                Verdict::Survived if live => eprint!("\r{ended} done "),
                Verdict::Survived if ended.is_multiple_of(SAY_EVERY) => eprintln!("{ended} done"),
                Verdict::Survived => {}
                Verdict::NotReached => eprintln!("\r{}: NOT REACHED", cell.name),
                Verdict::Failed { why, .. } => eprintln!("\r{}: FAILED: {why}", cell.name),
            }
        };
        let report = tokio::select! {
            report = drill.run(told) => report?,
            _ = tokio::signal::ctrl_c() => return Err(Stop::new(Code::NotYet, "interrupted")),
        };
        if live {
            eprintln!();
        }
        match self.json {
            true => out::json(&report)?,
            false => out::line(&text(&report))?,
        }
        Ok(if report.failed() == 0 { Code::Done } else { Code::PersonNeeded })
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    config::duration(text).map_err(|bad| format!("{}: {}", bad.reason, bad.help))
}

const LANES_PER_PROCESSOR: usize = 7;
/// A rotation takes two seconds here, and more where it is killed again and again or the machine has much else to do.
const PATIENCE: Duration = Duration::from_secs(120);

impl From<DrillError> for Stop {
    fn from(error: DrillError) -> Stop {
        match error {
            DrillError::NoSuchCell(_) => Stop::usage(error.to_string()),
            DrillError::Sandbox(error) => error.into(),
            DrillError::Directory(_) => Stop::new(Code::Unreachable, error.to_string()),
        }
    }
}

fn text(report: &Report) -> String {
    let mut lines = table(report);
    for part in ["play/", "kills/"] {
        let of: Vec<_> = report.cells.iter().filter(|cell| cell.name.starts_with(part)).collect();
        if of.is_empty() {
            continue;
        }
        let survived = of.iter().filter(|cell| cell.verdict == Verdict::Survived).count();
        lines.push(format!(
            "{part:<8}{survived} of {} survived, {} deaths",
            of.len(),
            of.iter().map(|cell| cell.deaths).sum::<u32>()
        ));
    }
    lines.push(String::new());
    let f = report.figures;
    lines.push(format!(
        "{} rotations, {} starts, {} deaths at a boundary, {} kills, {} holds resumed, {} PATCHes; {} deliveries in {} tries",
        f.rotations, f.starts, f.aborts, f.kills, f.holds, f.patches, f.deliveries, f.tries
    ));
    if f.unanswered + f.late > 0 {
        lines.push(format!(
            "the machine was slow: {} tries got no answer and were repeated, {} took longer than the drain and do not count",
            f.unanswered, f.late
        ));
    }
    lines.push(format!("seed {}, {:.0} s", report.seed, report.seconds));
    for cell in &report.cells {
        match &cell.verdict {
            Verdict::Survived => {}
            Verdict::NotReached => lines.push(format!("{}: the program never came there: nothing was shown", cell.name)),
            Verdict::Failed { why, directory } => lines.push(format!("{}: {why}\n  everything lies in {directory}", cell.name)),
        }
    }
    lines.push(match report.failed() {
        0 => format!("All {} cells: every genuine delivery was accepted, every rotation came to its end.", report.cells.len()),
        failed => format!("{failed} of {} cells FAILED.", report.cells.len()),
    });
    lines.join("\n")
}

/// Boundary by fault, with a letter for each fault. Empty where no cell of it was drilled.
fn table(report: &Report) -> Vec<String> {
    let used = |row: &String| report.faults.iter().any(|fault| report.verdict(row, fault).is_some());
    let rows: Vec<&String> = report.boundaries.iter().filter(|row| used(row)).collect();
    if rows.is_empty() {
        return Vec::new();
    }
    let letters: Vec<char> = ('a'..='z').chain('A'..='Z').take(report.faults.len()).collect();
    let mut lines = vec![format!("{:<22}{}", "", letters.iter().map(|letter| format!(" {letter}")).collect::<String>())];
    for row in rows {
        let marks = report.faults.iter().map(|fault| match report.verdict(row, fault) {
            Some(Verdict::Survived) => " .",
            Some(Verdict::NotReached) => " -",
            Some(Verdict::Failed { .. }) => " F",
            None => "  ",
        });
        lines.push(format!("{row:<22}{}", marks.collect::<String>()));
    }
    lines.push("\n. survived   F failed   - the program never came there".to_owned());
    let legend: Vec<String> = letters.iter().zip(&report.faults).map(|(letter, fault)| format!("{letter} {fault:<22}")).collect();
    lines.extend(legend.chunks(4).map(|line| line.concat().trim_end().to_owned()));
    lines.push(String::new());
    lines
}
