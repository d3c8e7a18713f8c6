//! One run, from adoption to the last judgement.

use std::{sync::Arc, time::Duration};

use hookturn::{
    daemon::Request,
    rotation::{Current, Note, Phase, Record, Replay},
    store::{EventLog, JournalLine},
};

use super::{
    counts::Counts,
    dialnexa::By,
    host::Host,
    person,
    setup::{Fault, Setup},
    time::sleep,
    world::{Hook, World},
};

/// What came of a run.
pub struct Outcome {
    /// What was wrong. `None`: nothing.
    pub verdict: Option<String>,
    /// Of every line of the world's log.
    pub hash: u64,
    pub counts: Counts,
    pub tail: Vec<String>,
}

/// Plays one run.
pub fn play(setup: &Setup) -> Outcome {
    in_a_world(setup, async |world| {
        run(&world).await;
        let judge = &world.judge;
        Outcome { verdict: judge.verdict(), hash: judge.hash(), counts: judge.counts(), tail: judge.tail() }
    })
}

/// How long a process takes to start, in the world's time.
pub fn starts_within(setup: &Setup) -> u64 {
    in_a_world(setup, async |world| {
        let mut host = Host::new(world.clone());
        let daemon = host.start(&super::life::Life::new(0), false).await;
        assert!(daemon.is_some(), "{:?}", world.judge.verdict());
        world.ran()
    })
}

/// Runs something in a runtime of its own, whose time passes when nothing else is to be done.
fn in_a_world<Came>(setup: &Setup, what: impl AsyncFnOnce(Arc<World>) -> Came) -> Came {
    #[cfg(feature = "mutants")]
    super::setup::Mutant::set(setup.mutant);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let shm = std::path::Path::new("/dev/shm");
    let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.expect("a directory");
    runtime.block_on(async { what(World::new(setup, dir.path().to_owned())).await })
}

/// So long a rotation may take on average before the faults are stopped for it.
const LONGEST: u64 = 400_000;
/// So long it may take to finish when nothing goes wrong any more.
const TO_FINISH: u64 = 7_200_000;
const TO_ANSWER: Duration = Duration::from_secs(60);
/// Of the machine's time.
const TO_SHRINK: Duration = Duration::from_secs(60);

async fn run(world: &Arc<World>) {
    world.judge.log(|| format!("{:?}", world.setup));
    let mut host = Host::new(world.clone());
    host.adopt().await;
    world.begin();
    person::begin(world, &host.office);
    host.onlook();
    let (rotations, until) = (world.setup.rotations, world.setup.rotations * LONGEST);
    host.live_until(|world| world.judge.counts().rotations >= rotations || world.ran() > until).await;
    world.calm_down();
    world.machine.set_wall(0);
    let last = finish(world.clone(), host.office.clone());
    let last = tokio::spawn(last);
    host.live_until(|_| last.is_finished()).await;
}

type Counter = Arc<std::sync::Mutex<Option<Arc<dyn hookturn::daemon::Office>>>>;

/// What is under way is let finish; then one more rotation of each webhook, after which everything must be as it should.
async fn finish(world: Arc<World>, office: Counter) {
    let deadline = world.ran() + TO_FINISH;
    for hook in &world.hooks {
        if !settled(&world, hook, 0, deadline).await {
            return;
        }
        let before = world.judge.record(hook).map_or(0, |record| record.rotations);
        while world.judge.record(hook).is_none_or(|record| record.rotations == before) {
            if world.ran() > deadline {
                return world.judge.condemn(format!("{}: no rotation can be begun", hook.name));
            }
            let office = office.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            if let Some(office) = office {
                // A process that is gone meanwhile does not answer.
                let asked = office.perform(&hook.name, Request::Rotate { compromised: false, unconfirmed: true }, "the end");
                if let Ok(answer) = tokio::time::timeout(TO_ANSWER, asked).await {
                    hook.log(|| format!("the last rotation: {}", answer.map_or_else(|failure| failure.text, |reply| reply.text)));
                }
            }
            sleep(1_000).await;
        }
        if !settled(&world, hook, before + 1, deadline).await {
            return;
        }
    }
    // Whatever is still on its way comes to its end.
    sleep(world.setup.die_within + world.setup.quarantine + 1_000).await;
    for hook in &world.hooks {
        for wrong in at_the_end(&world, hook).await {
            world.judge.condemn(format!("{}: at the end {wrong}", hook.name));
        }
    }
}

async fn settled(world: &World, hook: &Hook, rotation: u64, deadline: u64) -> bool {
    let idle = |record: &Record| record.phase == Phase::Idle && !record.paused && record.rotations >= rotation;
    while !world.judge.record(hook).is_some_and(|record| idle(&record)) {
        if world.ran() > deadline {
            let record = world.judge.record(hook);
            world.judge.condemn(format!("{}: nothing goes wrong any more, and it does not finish: {record:?}", hook.name));
            return false;
        }
        sleep(2_000).await;
    }
    true
}

async fn at_the_end(world: &World, hook: &Hook) -> Vec<String> {
    let mut wrong = Vec::new();
    let Some(stored) = world.disk.stored(&hook.name).await else { return vec!["nothing is stored".to_owned()] };
    let record = stored.record;
    let Current::Known(kid) = record.current else { return vec!["no secret is current".to_owned()] };
    let secrets = world.disk.secrets(&hook.name).await;
    let sealed = secrets.iter().find(|stored| stored.kid == kid).map(|stored| &stored.sealed);
    let secret = sealed.and_then(|sealed| world.sealing.open(&hook.name, kid, sealed).ok());
    let signs = hook.signer.newest();
    if !secret.as_ref().is_some_and(|secret| secret.same_as(&signs.secret)) || signs.by != By::Hookturn {
        wrong.push(format!("DialNexa signs with {}, and {kid} is current", hook.name_of(&signs.secret)));
    }
    if record.accepted.len() != 1 || !record.accepted.contains(kid) {
        wrong.push(format!("{:?} are accepted, and {kid} is current", record.accepted));
    }
    let there = hook.shelf.newest();
    let kids: Vec<_> = there.contents.keys.iter().map(|key| key.kid).collect();
    let right = there.contents.generation == record.generation && kids == [kid];
    if there.foreign || !right {
        let generation = record.generation;
        wrong.push(format!("the keystore holds {kids:?} as {}, not {kid} as {generation}", there.contents.generation));
    }
    wrong.extend(journal(&world.disk.journal(&hook.name).await));
    wrong.extend(world.disk.event_log(&hook.name).await.and_then(|log| replayed(&log)));
    wrong
}

/// The event log, worked out again, leads to what is on the disk.
fn replayed(log: &EventLog) -> Option<String> {
    let mut replay = Replay::default();
    for logged in &log.entries {
        let taken = serde_json::from_value(logged.entry.clone()).map_err(|error| error.to_string());
        if let Err(difference) = taken.and_then(|entry| replay.take(&entry).map_err(|difference| difference.to_string())) {
            return Some(format!("the event log, at {}: {difference}", logged.number));
        }
    }
    (replay.record() != Some(&log.record)).then(|| "the event log leads to another record".to_owned())
}

/// A journal tells a story that can have happened.
fn journal(lines: &[JournalLine]) -> Vec<String> {
    let mut wrong = Vec::new();
    let (mut seq, mut begun, mut completed) = (0, 0, 0);
    for line in lines {
        if line.seq < seq {
            wrong.push(format!("the journal goes back from {seq} to {}", line.seq));
        }
        seq = line.seq;
        match line.note {
            Note::RotationBegan { number, .. } if number <= begun => wrong.push(format!("rotation {number} begins twice")),
            Note::RotationBegan { number, .. } => begun = number,
            Note::Completed { number, .. } if number <= completed || number > begun => {
                wrong.push(format!("rotation {number} ends, after {completed} ended and {begun} began"));
            }
            Note::Completed { number, .. } => completed = number,
            _ => {}
        }
    }
    wrong
}

/// Leaves out what is not needed for it to go wrong: whole faults first, then rotations. What it has after a while must do.
pub fn shrink(failing: &Setup) -> (Setup, Outcome) {
    let began = std::time::Instant::now();
    let mut best = failing.clone();
    let mut outcome = play(&best);
    loop {
        let mut candidates: Vec<Setup> = best.faults.iter().map(|fault: &Fault| best.without(*fault)).collect();
        candidates
            .extend([best.rotations / 2, best.rotations.saturating_sub(1)].map(|rotations| Setup { rotations, ..best.clone() }));
        let smaller =
            candidates.into_iter().filter(|setup| setup.rotations > 0).take_while(|_| began.elapsed() < TO_SHRINK).find_map(
                |setup| {
                    let outcome = play(&setup);
                    (outcome.verdict.is_some()
                        && setup.rotations + setup.faults.len() as u64 != best.rotations + best.faults.len() as u64)
                        .then_some((setup, outcome))
                },
            );
        match smaller {
            Some((setup, smaller)) => (best, outcome) = (setup, smaller),
            None => return (best, outcome),
        }
    }
}
