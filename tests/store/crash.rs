//! A process that is killed while it commits. The child is this test binary, run again.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Command, Stdio},
};

use hookturn::store::{Anchor, AnchorState, Change, Store};

use crate::fixtures::*;

const STORE: &str = "HOOKTURN_TEST_STORE";

#[test]
fn a_process_killed_while_committing_has_kept_every_commit_that_returned() {
    if let Some(path) = std::env::var_os(STORE) {
        return commit_for_ever(path.as_ref());
    }
    let place = InFile::new();
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let mut acknowledged = 0;
    for round in 1..=6 {
        acknowledged = acknowledged.max(kill_after(&place.path(), 3 * round));
        let stored = runtime.block_on(check(&place, acknowledged));
        acknowledged = stored;
    }
}

/// Everything of the last commit is there or nothing of it, and it is the last acknowledged one or the one after.
async fn check(place: &InFile, acknowledged: u64) -> u64 {
    let store = place.sqlite().await;
    let stored = store.webhook("billing").await.expect("read").expect("stored");
    let seq = stored.record.seq;
    assert!(seq == acknowledged || seq == acknowledged + 1, "{acknowledged} acknowledged, {seq} stored");
    assert_eq!(store.secrets("billing").await.expect("read").len() as u64, seq);
    assert_eq!(store.attempts("billing", u32::MAX).await.expect("read").len() as u64, seq);
    assert_eq!(store.journal("billing", None, 1).await.expect("read")[0].seq, seq);
    let AnchorState::Read(anchor) = Anchor::load(&place.beside(".anchor"), &store.id()) else { panic!("an anchor") };
    assert!(!anchor.older_than(&stored), "the anchor never runs ahead");
    store.close().await;
    seq
}

/// Starts the child and kills it once it has acknowledged so many commits. Says the last acknowledged one.
fn kill_after(path: &Path, commits: usize) -> u64 {
    let mut child = Command::new(std::env::current_exe().expect("exe"))
        .args(["crash::a_process_killed_while_committing_has_kept_every_commit_that_returned", "--exact", "--nocapture"])
        .env(STORE, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("spawn");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout"));
    let mut last = 0;
    let mut seen = 0;
    let mut line = String::new();
    while seen < commits && lines.read_line(&mut line).expect("read") > 0 {
        if let Some(seq) = acknowledged(&line) {
            (last, seen) = (seq, seen + 1);
        }
        line.clear();
    }
    child.kill().expect("kill");
    child.wait().expect("wait");
    let mut rest = String::new();
    lines.read_to_string(&mut rest).expect("read");
    assert!(seen == commits, "the child ended by itself: {rest}");
    rest.lines().filter_map(acknowledged).next_back().unwrap_or(last)
}

fn acknowledged(line: &str) -> Option<u64> {
    line.trim().strip_prefix("acknowledged ")?.parse().ok()
}

/// The child. Commits as the daemon does: the store, the anchor, then the effect, which is a line here.
fn commit_for_ever(path: &Path) {
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(async {
        let store = try_open(path).await.expect("open");
        let mut place = path.as_os_str().to_owned();
        place.push(".anchor");
        let mut anchor = match Anchor::load(place.as_ref(), &store.id()) {
            AnchorState::Read(anchor) => anchor,
            AnchorState::Missing => Anchor::at(place.as_ref(), &store.id()),
            AnchorState::Unreadable { reason } => panic!("{reason}"),
        };
        let first = seq(&store, "billing").await.unwrap_or(0) + 1;
        for seq in first.. {
            let name = format!("k_{seq}");
            let change = Change {
                secrets: vec![secret(&name, b"sealed")],
                attempts: vec![attempt(seq, &name)],
                journal: vec![line(1, seq)],
                ..with_record("billing", seq)
            };
            store.commit(one(change)).await.expect("commit");
            anchor.advance(&[("billing", seq, 1)]).expect("advance");
            let mut stdout = std::io::stdout().lock();
            writeln!(stdout, "\nacknowledged {seq}").and_then(|()| stdout.flush()).expect("write");
        }
    });
}
