//! The event log: what is in it, what is not, and that it can be worked out again.

use hookturn::rotation::{Difference, Entry, Event, Op, Recorder, Replay};

use crate::case::{Case, Q, delivery};

fn tick(elapsed: u64) -> Event {
    Event::Tick { elapsed, observed: elapsed }
}

/// Takes the event and notes it.
fn take(case: &mut Case, recorder: &mut Recorder, event: Event) {
    let before = (case.record.clone(), case.volatile.clone());
    case.take(event.clone());
    recorder.note(before, &event, &case.effects, (&case.record, &case.volatile));
}

fn waiting() -> (Case, Recorder) {
    let case = Case::drain();
    let mut recorder = Recorder::begin(&case.record);
    recorder.hand_over();
    (case, recorder)
}

#[test]
fn ticks_that_come_to_nothing_are_one_and_what_changes_nothing_is_none() {
    let (mut case, mut recorder) = waiting();
    for _ in 0..5 {
        take(&mut case, &mut recorder, tick(1_000));
    }
    assert_eq!(recorder.waiting(), 1);
    take(&mut case, &mut recorder, Event::RoundEnded { round: 77 });
    assert_eq!(recorder.waiting(), 1, "nobody waited for that");
    let log = recorder.hand_over();
    assert_eq!(log, [Entry::Took { event: tick(5_000), effects: vec![], record: None }]);
    // What was handed over is not touched again.
    take(&mut case, &mut recorder, tick(1_000));
    take(&mut case, &mut recorder, Event::Seen(delivery("x")));
    take(&mut case, &mut recorder, tick(1_000));
    assert_eq!(recorder.waiting(), 3);
}

#[test]
fn a_tick_that_banks_credit_joins_those_before_it_and_no_other_after() {
    let (mut case, mut recorder) = waiting();
    take(&mut case, &mut recorder, tick(9_000));
    take(&mut case, &mut recorder, tick(1_000));
    take(&mut case, &mut recorder, tick(1_000));
    let log = recorder.hand_over();
    assert_eq!(log.len(), 2, "{log:?}");
    assert!(matches!(&log[0], Entry::Took { event, record: Some(_), .. } if *event == tick(10_000)));
    assert!(matches!(&log[1], Entry::Took { event, record: None, .. } if *event == tick(1_000)));
}

#[test]
fn a_tick_after_one_that_changed_the_record_is_another() {
    for before in [&[][..], &[1_000]] {
        let mut case = Case::patch();
        case.pass(30_000);
        let mut recorder = Recorder::begin(&case.record);
        recorder.hand_over();
        for elapsed in before {
            take(&mut case, &mut recorder, tick(*elapsed));
        }
        take(&mut case, &mut recorder, tick(Q));
        assert!(case.record.open.is_empty() && case.effects.is_empty(), "it ends a quarantine and nothing else");
        assert_eq!(recorder.waiting(), 1);
        take(&mut case, &mut recorder, tick(1_000));
        assert_eq!(recorder.waiting(), 2);
    }
}

#[test]
fn ticks_whose_sum_comes_to_something_else_stay_apart() {
    let (mut case, mut recorder) = waiting();
    take(&mut case, &mut recorder, Event::Tick { elapsed: 1_000, observed: 5_000 });
    take(&mut case, &mut recorder, Event::Tick { elapsed: 1_000, observed: 0 });
    assert_eq!((recorder.waiting(), case.volatile.accrued.observed), (2, 1_000));
}

#[test]
fn a_wish_that_changes_nothing_but_the_record_is_in_the_log() {
    let (mut case, mut recorder) = waiting();
    take(&mut case, &mut recorder, Event::Op(Op::Pause));
    let log = recorder.hand_over();
    assert_eq!(log, [Entry::Took { event: Event::Op(Op::Pause), effects: vec![], record: Some(Box::new(case.record)) }]);
}

#[test]
fn after_every_500_events_the_log_may_be_cut() {
    let (mut case, mut recorder) = waiting();
    let starts = |log: &[Entry]| log.iter().filter(|entry| matches!(entry, Entry::Start { .. })).count();
    for n in 1..=1_000 {
        take(&mut case, &mut recorder, Event::Roster { replicas: (0..(n % 2)).map(hookturn::rotation::ReplicaId).collect() });
        if n == 499 {
            assert_eq!(starts(&recorder.hand_over()), 0);
        }
    }
    assert_eq!(starts(&recorder.hand_over()), 2);
}

#[test]
fn a_replay_counts_events_and_lives_and_says_where_it_parts() {
    let mut case = Case::idle();
    let mut recorder = Recorder::begin(&case.record);
    case.volatile = Default::default();
    let boot = Event::Boot { policy: case.policy, identity: 1, restored: false, dark: 0 };
    take(&mut case, &mut recorder, boot.clone());
    let mut log = recorder.hand_over();
    let mut second = Recorder::begin(&case.record);
    case.volatile = Default::default();
    take(&mut case, &mut second, boot);
    take(&mut case, &mut second, Event::Roster { replicas: vec![hookturn::rotation::ReplicaId(3)] });
    log.extend(second.hand_over());
    let mut replay = Replay::default();
    for entry in &log {
        replay.take(entry).expect("the same");
    }
    assert_eq!((replay.lives(), replay.events(), replay.record()), (2, 3, Some(&case.record)));

    let Entry::Took { event, effects, .. } = &log[1] else { panic!("{log:?}") };
    let took = |record| Entry::Took { event: event.clone(), effects: effects.clone(), record };
    assert_eq!(Replay::default().take(&took(None)), Err(Difference::NoStart));
    let mut other = case.record.clone();
    other.seq += 1;
    let mut replay = Replay::default();
    replay.take(&log[0]).expect("a start");
    assert!(matches!(replay.take(&took(Some(Box::new(other.clone())))), Err(Difference::OtherRecord { .. })));
    let start = |record, volatile| Entry::Start { record: Box::new(record), volatile: Box::new(volatile) };
    assert!(matches!(replay.take(&start(other, Default::default())), Err(Difference::OtherStart { .. })));
    let known = case.volatile.clone();
    assert!(known.booted);
    assert!(matches!(replay.take(&start(case.record.clone(), known)), Err(Difference::OtherVolatile { .. })));
    let nothing = Entry::Took { event: event.clone(), effects: vec![], record: None };
    assert!(effects.is_empty() || matches!(replay.take(&nothing), Err(Difference::OtherEffects { .. })));
}
