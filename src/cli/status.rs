//! `status`: where every webhook is.

use chrono::{DateTime, Utc};
use clap::Args;

use super::{
    access::{Access, Need, known},
    exit::{Code, Stop},
    out, survey, time,
};
use crate::{
    config::Config,
    daemon::{self, Clock},
};

#[derive(Args)]
pub struct Status {
    /// One webhook only, with everything that is known of it
    name: Option<String>,
    /// For monitoring: exit 0 all well, 1 something needs a person, 3 something is waiting unusually long
    #[arg(long)]
    check: bool,
    #[arg(long)]
    json: bool,
}

impl Status {
    pub async fn run(self, config: Config) -> Result<Code, Stop> {
        let names: Vec<String> = self.name.iter().cloned().collect();
        let access = Access::open(&config, Need { purpose: "status", webhooks: &names, doors: false, read_only: true }).await?;
        let statuses = self.asked(&access).await;
        let daemon_runs = access.daemon_runs();
        access.close().await;
        let statuses = statuses?;
        self.print(&config, &statuses).await?;
        if !daemon_runs && !self.json {
            eprintln!("hookturn: no daemon is running: this is what the store says");
        }
        Ok(if self.check { worst(&statuses) } else { Code::Done })
    }

    async fn asked(&self, access: &Access) -> Result<Vec<daemon::Status>, Stop> {
        match &self.name {
            Some(name) => Ok(vec![access.status_of(name).await?]),
            None => Ok(access.office().status().await?),
        }
    }

    async fn print(&self, config: &Config, statuses: &[daemon::Status]) -> Result<(), Stop> {
        let now = Clock::system().now();
        match (self.json, &self.name, statuses) {
            (true, Some(_), [status]) => out::json(status),
            (true, ..) => out::json(&statuses),
            (false, _, []) => out::line("no webhook is configured yet"),
            (false, Some(name), [status]) => {
                let surveyed = survey::beside(config, known(config, name)?).await;
                let surveyed = surveyed.iter().map(|line| format!("\n  {line}"));
                out::line(&(detailed(status, now) + &surveyed.collect::<String>()))
            }
            (false, ..) => out::line(&table(statuses, now)),
        }
    }
}

/// The worst of all, where what needs a person comes before what only waits.
fn worst(statuses: &[daemon::Status]) -> Code {
    statuses.iter().fold(Code::Done, |worst, status| match status.exit_code() {
        0 => worst,
        3 => worst.worse(Code::NotYet),
        _ => worst.worse(Code::PersonNeeded),
    })
}

/// One line per webhook, and under it what is not as it should be.
fn table(statuses: &[daemon::Status], now: DateTime<Utc>) -> String {
    let rows: Vec<[String; 4]> = statuses.iter().map(|status| row(status, now)).collect();
    let heads = ["WEBHOOK", "PHASE", "SINCE", "NEXT DUE"].map(str::to_owned);
    let width = |column: usize| rows.iter().chain([&heads]).map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2), width(3)];
    let aligned = |row: &[String; 4]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines = vec![aligned(&heads)];
    for (status, row) in statuses.iter().zip(&rows) {
        lines.push(aligned(row));
        lines.extend(remarks(status, now).into_iter().map(|remark| format!("  {remark}")));
    }
    lines.join("\n")
}

fn row(status: &daemon::Status, now: DateTime<Utc>) -> [String; 4] {
    let since = status.since.map(|at| time::distance(at, now)).unwrap_or_default();
    let due = status.next_due.map_or_else(|| "on demand".to_owned(), |at| time::at_and_distance(at, now));
    [status.name.clone(), phase(status), since, due]
}

pub fn phase(status: &daemon::Status) -> String {
    match (&status.hold, &status.held_phase) {
        (Some(hold), Some(held)) => format!("hold in {held}: {hold}"),
        (Some(hold), None) => format!("hold: {hold}"),
        (None, _) if status.paused && status.phase == "idle" => "paused".to_owned(),
        (None, _) if status.paused => format!("{}, paused", status.phase),
        (None, _) => status.phase.clone(),
    }
}

/// What a person should see without asking.
pub fn remarks(status: &daemon::Status, now: DateTime<Utc>) -> Vec<String> {
    let mut remarks = Vec::new();
    if !status.adopted {
        remarks.push(format!("no secret was adopted yet: hookturn adopt {}", status.name));
    }
    if let Some(waiting_for) = &status.waiting_for {
        let until =
            status.until.map(|at| format!(", until {} at the latest", time::at_and_distance(at, now))).unwrap_or_default();
        let long = if status.overdue { " (unusually long)" } else { "" };
        remarks.push(format!("waits for {waiting_for}{until}{long}"));
    }
    for again in &status.reaccepted {
        let until = now.timestamp_millis() + i64::try_from(again.left_ms).unwrap_or(0);
        let paused = if status.phase == "idle" { "" } else { " (counted while no rotation is under way)" };
        remarks.push(format!("accepts the retired {} again, until {}{paused}", again.kid, time::at_and_distance(until, now)));
    }
    if status.hold.is_some() {
        remarks.extend(status.detail.clone());
    }
    remarks.extend(status.findings.iter().map(|finding| format!("{}: {}", finding.word, finding.text)));
    let said = |word: &str| status.findings.iter().any(|finding| finding.word == word);
    if !said("keystore-unreachable") {
        remarks.extend(status.keystore_trouble.iter().map(|trouble| format!("keystore: {trouble}")));
    }
    if !said("provider-unreachable") {
        remarks.extend(status.provider_trouble.iter().map(|trouble| format!("DialNexa: {trouble}")));
    }
    if status.deliveries.lost > 0 {
        remarks.push(format!(
            "LOST: {} deliveries were answered by the gateway in place of the consumer (its log says why); DialNexa may try them again",
            status.deliveries.lost
        ));
    }
    if status.unproven {
        remarks.push("unproven: no replica can show that it accepts a new secret (preflight.unproven = \"accept\")".to_owned());
    }
    if status.hold.is_some() {
        remarks.extend(status.ways_out.iter().map(|way| format!("way out: {way}")));
    }
    remarks
}

fn detailed(status: &daemon::Status, now: DateTime<Utc>) -> String {
    let mut lines = vec![format!("{} ({}): {}", status.name, status.id, phase(status))];
    lines.extend(remarks(status, now).into_iter().map(|remark| format!("  {remark}")));
    for (label, value) in facts(status, now) {
        lines.push(format!("  {label:<16}{value}"));
    }
    lines.extend(replicas(status, now).into_iter().map(|line| format!("  {line}")));
    lines.join("\n")
}

fn facts(status: &daemon::Status, now: DateTime<Utc>) -> Vec<(&'static str, String)> {
    let when = |at: Option<i64>| at.map_or_else(|| "never".to_owned(), |at| time::at_and_distance(at, now));
    let mut facts = vec![
        ("current", status.current.clone().unwrap_or_else(|| "not known to hookturn".to_owned())),
        (
            "keystore",
            format!("{}, generation {}, accepts {}", status.keystore_place, status.generation, listed(&status.accepted)),
        ),
        ("retired", listed(&status.retired)),
        ("rotations", format!("{} completed, the newest has number {}", status.completed, status.rotation)),
        ("last completed", when(status.last_completed_at)),
        ("next due", status.next_due.map_or_else(|| "on demand only".to_owned(), |at| time::at_and_distance(at, now))),
        ("last delivery", delivery(status, now)),
    ];
    if let Some(target) = &status.target {
        facts.insert(1, ("target", target.clone()));
    }
    for open in &status.open {
        facts.push(("may be applied", format!("a request with {} for another {}", open.kid, time::span(open.left_ms))));
    }
    if let Some(left) = status.drain_left_ms {
        facts.push(("drain", format!("{} of watched time left", time::span(left))));
    }
    facts
}

pub fn delivery(status: &daemon::Status, now: DateTime<Utc>) -> String {
    match status.last_delivery_at {
        None => "none has verified yet".to_owned(),
        Some(at) => format!(
            "{}, under {}, through {}{}",
            time::at_and_distance(at, now),
            status.last_delivery_kid.as_deref().unwrap_or("an unknown key"),
            status.last_delivery_door.as_deref().unwrap_or("an unknown door"),
            status.usual_gap_ms.map(|gap| format!("; usually one comes every {}", time::span(gap))).unwrap_or_default(),
        ),
    }
}

pub fn replicas(status: &daemon::Status, now: DateTime<Utc>) -> Vec<String> {
    let line = |replica: &daemon::ReplicaStatus| {
        let since = replica.since.map(|at| format!(", {}", time::distance(at, now))).unwrap_or_default();
        let answer = if replica.answer.is_empty() { String::new() } else { format!(" ({})", replica.answer) };
        let gone = if replica.vanished { ", no longer listed" } else { "" };
        format!("replica {}: {}{answer}{since}{gone}", replica.name, replica.verdict)
    };
    status.replicas.iter().map(line).collect()
}

pub fn listed(kids: &[String]) -> String {
    if kids.is_empty() { "nothing".to_owned() } else { kids.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_named_before_a_long_wait() {
        let held = daemon::Status { hold: Some("restored".into()), adopted: true, ..daemon::Status::default() };
        let long = daemon::Status { overdue: true, adopted: true, ..daemon::Status::default() };
        let well = daemon::Status { adopted: true, ..daemon::Status::default() };
        assert_eq!(worst(&[well.clone(), long.clone()]), Code::NotYet);
        assert_eq!(worst(&[held, long]), Code::PersonNeeded);
        assert_eq!(worst(&[well]), Code::Done);
    }

    #[test]
    fn an_unproven_and_an_unadopted_webhook_say_so_in_the_table() {
        let status = daemon::Status { name: "billing".into(), phase: "idle".into(), unproven: true, ..daemon::Status::default() };
        let table = table(&[status], DateTime::UNIX_EPOCH);
        assert!(table.contains("hookturn adopt billing") && table.contains("unproven"), "{table}");
    }
}
