//! What a monitor can alarm on. Made from the statuses at each scrape, so that it cannot differ from what `status` says.

use std::fmt;

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::daemon::{DeliveryCounts, Status, WORDS};

pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const PHASES: [&str; 7] = ["idle", "push", "patch", "drain", "retire", "abort", "hold"];

type Labels = Vec<(&'static str, String)>;

/// OpenMetrics text.
pub(super) fn render(statuses: &[Status]) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("hookturn");
    phases(&mut registry, statuses);
    diagnoses(&mut registry, statuses);
    flags(&mut registry, statuses);
    times(&mut registry, statuses);
    counts(&mut registry, statuses);
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

fn phases(registry: &mut Registry, statuses: &[Status]) {
    let phase = Family::<Labels, Gauge>::default();
    registry.register("phase", "1 for the phase that the webhook is in, 0 for the others", phase.clone());
    let hold = Family::<Labels, Gauge>::default();
    registry.register("hold", "1 while a person is needed; the reason is a label", hold.clone());
    for status in statuses {
        for name in PHASES {
            let labels = vec![("webhook", status.name.clone()), ("phase", name.to_owned())];
            phase.get_or_create(&labels).set((status.phase == name).into());
        }
        let reason = status.hold.clone().unwrap_or_else(|| "none".to_owned());
        hold.get_or_create(&vec![("webhook", status.name.clone()), ("reason", reason)]).set(status.hold.is_some().into());
    }
}

fn diagnoses(registry: &mut Registry, statuses: &[Status]) {
    let diagnosis = Family::<Labels, Gauge>::default();
    registry.register("diagnosis", "1 for each word that `explain` has for what is wrong", diagnosis.clone());
    for status in statuses {
        for word in WORDS {
            let found = status.findings.iter().any(|finding| finding.word == word);
            let labels = vec![("webhook", status.name.clone()), ("word", word.to_owned())];
            diagnosis.get_or_create(&labels).set(found.into());
        }
    }
}

fn flags(registry: &mut Registry, statuses: &[Status]) {
    type Flag = (&'static str, &'static str, fn(&Status) -> bool);
    let flags: [Flag; 7] = [
        ("adopted", "1 once a secret was adopted", |s| s.adopted),
        ("confirmed", "1 once a genuine delivery has verified under the current secret", |s| s.confirmed),
        ("paused", "1 while a person has asked for nothing new to be begun", |s| s.paused),
        ("overdue", "1 while it waits unusually long", |s| s.overdue),
        ("unproven", "1 where no replica can show that it accepts a new secret", |s| s.unproven),
        ("keystore_trouble", "1 while the keystore cannot be read or written", |s| s.keystore_trouble.is_some()),
        ("provider_trouble", "1 while DialNexa cannot be asked", |s| s.provider_trouble.is_some()),
    ];
    for (name, help, is_set) in flags {
        gauges(registry, name, help, statuses, |status| Some(is_set(status).into()));
    }
}

fn times(registry: &mut Registry, statuses: &[Status]) {
    let seconds = |at: Option<i64>| at.map(|ms| ms / 1000);
    gauges(registry, "next_due_timestamp_seconds", "when the next rotation is due", statuses, |s| seconds(s.next_due));
    gauges(registry, "last_completed_timestamp_seconds", "when the newest rotation was completed", statuses, |s| {
        seconds(s.last_completed_at)
    });
    gauges(registry, "phase_since_timestamp_seconds", "since when it has been in its phase", statuses, |s| seconds(s.since));
    gauges(registry, "last_delivery_timestamp_seconds", "when the newest delivery verified", statuses, |s| {
        seconds(s.last_delivery_at)
    });
    gauges(
        registry,
        "unusual_silence_seconds",
        "from how long on a silence is unusual, by the webhook's own pattern",
        statuses,
        |s| i64::try_from(s.unusual_silence_ms / 1000).ok(),
    );
}

fn counts(registry: &mut Registry, statuses: &[Status]) {
    // Completed rotations and attempts are read from the store: they survive a restart, as a counter should.
    counters(registry, "rotations_completed", "rotations completed", statuses, |s| s.completed);
    counters(registry, "attempts", "PATCH requests with a secret", statuses, |s| s.attempts);
    let deliveries = Family::<Labels, Counter>::default();
    registry.register("deliveries", "deliveries seen since the process began, by what they verified under", deliveries.clone());
    for status in statuses {
        for (kind, count) in by_kind(&status.deliveries) {
            let labels = vec![("webhook", status.name.clone()), ("kind", kind.to_owned())];
            deliveries.get_or_create(&labels).inc_by(count);
        }
    }
}

fn by_kind(counts: &DeliveryCounts) -> [(&'static str, u64); 9] {
    [
        ("current", counts.current),
        ("target", counts.target),
        ("other", counts.other),
        ("retired", counts.retired),
        ("unverified", counts.unverified),
        ("rejected_by_consumer", counts.rejected_by_consumer),
        ("probe", counts.probes),
        ("lost", counts.lost),
        ("ignored", counts.ignored),
    ]
}

fn gauges(registry: &mut Registry, name: &str, help: &str, statuses: &[Status], value: impl Fn(&Status) -> Option<i64>) {
    let family = Family::<Labels, Gauge>::default();
    registry.register(name, help, family.clone());
    for status in statuses {
        if let Some(value) = value(status) {
            family.get_or_create(&vec![("webhook", status.name.clone())]).set(value);
        }
    }
}

fn counters(registry: &mut Registry, name: &str, help: &str, statuses: &[Status], value: impl Fn(&Status) -> u64) {
    let family = Family::<Labels, Counter>::default();
    registry.register(name, help, family.clone());
    for status in statuses {
        family.get_or_create(&vec![("webhook", status.name.clone())]).inc_by(value(status));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::Finding;

    #[test]
    fn a_scrape_names_the_phase_the_hold_and_the_deliveries() {
        let status = Status {
            name: "billing".into(),
            phase: "hold".into(),
            hold: Some("keystore-contested".into()),
            completed: 3,
            next_due: Some(1_700_000_000_000),
            deliveries: DeliveryCounts { target: 2, ..DeliveryCounts::default() },
            findings: vec![Finding { word: "keystore-contested".into(), text: "...".into(), person: true }],
            ..Status::default()
        };
        let text = render(&[status]).expect("text");
        for line in [
            "hookturn_phase{webhook=\"billing\",phase=\"hold\"} 1",
            "hookturn_phase{webhook=\"billing\",phase=\"idle\"} 0",
            "hookturn_hold{webhook=\"billing\",reason=\"keystore-contested\"} 1",
            "hookturn_diagnosis{webhook=\"billing\",word=\"keystore-contested\"} 1",
            "hookturn_diagnosis{webhook=\"billing\",word=\"still-old\"} 0",
            "hookturn_rotations_completed_total{webhook=\"billing\"} 3",
            "hookturn_deliveries_total{webhook=\"billing\",kind=\"target\"} 2",
            "hookturn_next_due_timestamp_seconds{webhook=\"billing\"} 1700000000",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} not in\n{text}");
        }
        assert!(!text.contains("last_completed_timestamp_seconds{"), "what is not known is left out\n{text}");
    }
}
