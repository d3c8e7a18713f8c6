//! A disk that fails under a daemon that runs.

use std::{path::Path, process::Command, time::Duration};

use hookturn::{daemon::Request, sandbox::consumer::Behaviour};

use crate::{
    all, ask_in_the_background, long, print,
    rig::{self, Moment, Rig},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Every sync fails with EIO.
    FailingSyncs,
    /// The kernel has remounted the file system read-only.
    ReadOnly,
    /// No space is left, and the disk is so small that none was kept back.
    Full,
    /// No space is left but for the reserve.
    FullButForTheReserve,
}

const ALL: [Fault; 4] = [Fault::FailingSyncs, Fault::ReadOnly, Fault::Full, Fault::FullButForTheReserve];

impl Fault {
    /// The size of the file system that it needs, in MiB.
    fn small_disk(self) -> Option<u32> {
        match self {
            Fault::FailingSyncs | Fault::ReadOnly => None,
            Fault::Full => Some(3),
            Fault::FullButForTheReserve => Some(24),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_disk_that_fails_under_a_rotation_stops_it_until_it_works_again() {
    let library = tempfile::tempdir().expect("a directory");
    let Some(preload) = rig::preload("tests/store/failing_sync.c", library.path()) else { return };
    let mut cells = Vec::new();
    for (row, fault) in ALL.into_iter().enumerate() {
        if fault.small_disk().is_some() && !rustix::process::geteuid().is_root() {
            println!("skipped: {fault:?} needs root, for a small file system");
            continue;
        }
        let chosen = |column: &usize| long() || (row + column).is_multiple_of(2);
        cells.extend((0..5).filter(chosen).map(|column| (fault, Moment::ALL[column])));
    }
    let outcomes = all(cells, |(fault, moment)| cell(fault, moment, preload.clone())).await;
    print(&ALL.map(|fault| format!("{fault:?}")), &outcomes, |(fault, moment)| (format!("{fault:?}"), *moment));
}

async fn cell(fault: Fault, moment: Moment, preload: std::path::PathBuf) -> String {
    let mut rig = Rig::new().await;
    let (fails, read_only) = (rig.dir.path().join("sync-fails"), rig.dir.path().join("disk-readonly"));
    rig.environment = vec![("LD_PRELOAD", preload), ("SYNC_FAILS", fails.clone()), ("DISK_READONLY", read_only.clone())];
    let small = fault.small_disk().map(|size| SmallDisk::mount(&rig.state(), size));
    rig.settle_in().await;
    rig.reach(moment).await;
    match fault {
        Fault::FailingSyncs => std::fs::write(&fails, "").expect("write"),
        Fault::ReadOnly => std::fs::write(&read_only, "").expect("write"),
        Fault::Full | Fault::FullButForTheReserve => fill(&rig),
    }
    let patches = rig.sandbox.handle().patches().len();
    rig.behave(Behaviour::Good);
    rig.traffic(true);
    if moment == Moment::Idle {
        ask_in_the_background(&rig);
    }
    if fault == Fault::FullButForTheReserve {
        goes_on_with_the_reserve(&mut rig).await;
        rig.kill().await;
        drop(small);
        return "goes on, then refuses".to_owned();
    }
    let said = rig.until("a word about the store", |_, status| status.diagnosis.as_deref() == Some("store-unreachable")).await;
    let detail = said.detail.clone().unwrap_or_default();
    let named = match fault {
        Fault::FailingSyncs => detail.contains("the disk failed"),
        Fault::ReadOnly => detail.contains("read-only") || detail.contains("the disk failed"),
        Fault::Full | Fault::FullButForTheReserve => detail.contains("no space left"),
    };
    assert!(named, "{fault:?}: {detail}");
    assert_eq!(said.exit_code(), 3, "a monitor hears of it: {said:?}\n{}", rig.log());
    tokio::time::sleep(Duration::from_millis(800)).await;
    // One may have been on its way when the disk failed.
    let since = rig.sandbox.handle().patches().len() - patches;
    assert!(since <= 1, "{since} PATCHes went out that are not on record");
    match fault {
        Fault::FailingSyncs => std::fs::remove_file(&fails).expect("remove"),
        Fault::ReadOnly => std::fs::remove_file(&read_only).expect("remove"),
        Fault::Full | Fault::FullButForTheReserve => make_space(&rig),
    }
    rig.until("the rotation goes on", |_, status| status.rotation >= 1 && status.completed == status.rotation).await;
    rig.ends_well().await;
    rig.kill().await;
    drop(small);
    "waits, then goes on".to_owned()
}

/// What is under way is finished, nothing new is begun, and a person is told; until there is space again.
async fn goes_on_with_the_reserve(rig: &mut Rig) {
    rig.until("the end of the rotation", |_, status| {
        status.rotation >= 1 && status.completed == status.rotation && status.diagnosis.as_deref() == Some("disk-full")
    })
    .await;
    assert!(!rig.database(".reserve").exists(), "it was given up");
    let refused = rig.ask(Request::Rotate { compromised: false, unconfirmed: false }).await;
    assert!(refused.as_ref().is_err_and(|text| text.contains("make space")), "{refused:?}");
    make_space(rig);
    rig.until("the reserve is made again", |_, status| status.diagnosis.is_none()).await;
    assert!(rig.database(".reserve").exists());
    rig.rotate().await;
    rig.ends_well().await;
}

fn make_space(rig: &Rig) {
    std::fs::remove_file(rig.state().join("other-data")).expect("remove");
}

/// A file system of a few MiB over a directory, for as long as it lives.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(dir: &Path, size: u32) -> SmallDisk {
        std::fs::create_dir(dir).expect("a directory");
        let output =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}m,mode=0700"), "tmpfs"]).arg(dir).output();
        let output = output.expect("mount");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        SmallDisk(dir.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn fill(rig: &Rig) {
    use std::io::Write;
    let mut file = std::fs::File::create(rig.state().join("other-data")).expect("create");
    while file.write_all(&[0; 4096]).is_ok() {}
}
