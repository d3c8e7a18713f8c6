//! A machine that sleeps in mid-rotation: the boot clock goes on, and nobody listens meanwhile.

use std::time::{Duration, Instant};

use hookturn::daemon::Request;

use super::{
    backend::{KeystoreKind, StoreKind},
    judge, settle_in,
    world::{Life, World},
};

const HOUR: Duration = Duration::from_secs(3_600);
/// What was watched and not put on record yet when a status was made.
const GATHERED: u64 = 500;

#[tokio::test(flavor = "multi_thread")]
async fn an_hour_of_sleep_in_the_drain_is_no_hour_of_watching() {
    let world = World::new(KeystoreKind::Json, StoreKind::Memory);
    let life = rotating(&world).await;
    let left = until(&world, &life, |status| status.drain_left_ms).await;
    let since = world.awake();
    world.suspend(HOUR);
    until(&world, &life, |status| (status.phase != "drain").then_some(())).await;
    let watched = world.awake() - since;
    assert!(watched + GATHERED >= left, "{left} ms were left, and it was awake for {watched}");
    until(&world, &life, |status| (status.completed == 1).then_some(())).await;
    life.kill().await;
    judge(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_sleeps_all_the_time_still_rotates_and_loses_nothing() {
    for store in StoreKind::ALL {
        let world = World::new(KeystoreKind::Json, store);
        let life = rotating(&world).await;
        let mut turn = 0u32;
        until(&world, &life, |status| {
            turn += 1;
            // A moment, a night: both beyond and within quarantine and drain.
            if turn.is_multiple_of(7) {
                world.suspend([Duration::from_millis(300), 8 * HOUR][usize::from(turn.is_multiple_of(2))]);
            }
            (status.completed == 1 && status.phase == "idle").then_some(())
        })
        .await;
        life.kill().await;
        judge(&world).await;
    }
}

async fn rotating(world: &World) -> Life {
    settle_in(world).await;
    world.plan.begin(None);
    let life = world.begin().await.expect("no fault");
    let began = life.ask(Request::Rotate { compromised: false, unconfirmed: true }).await;
    began.expect("an answer").expect("a rotation begins");
    life
}

/// Lets deliveries come until the status says so. None of them may be refused, and nothing be held.
async fn until<T>(world: &World, life: &Life, mut so: impl FnMut(&hookturn::daemon::Status) -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        let status = life.status().await.expect("a status");
        assert_eq!(status.hold, None, "{status:#?}");
        if let Some(found) = so(&status) {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(120), "it does not end: {status:#?}");
        world.deliver(life).await;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}
