use std::{cell::RefCell, fs};

use hookturn::{
    evidence::{Counters, StatusCounts},
    keystore::status::{StatusReport, read_status},
};
use tokio::runtime::Runtime;

thread_local! {
    static BENCH: RefCell<Option<(Runtime, tempfile::TempDir)>> = const { RefCell::new(None) };
}

/// A replica's status file, and after a line of `---` what it holds later.
///
/// It is a status or a problem, and counters that fall, leap or overflow count no delivery that was not.
pub fn status(data: &[u8]) {
    let at = data.windows(5).position(|line| line == b"\n---\n");
    let (first, later) = at.map_or((data, data), |at| (&data[..at], &data[at + 5..]));
    BENCH.with_borrow_mut(|bench| {
        let (runtime, dir) = bench.get_or_insert_with(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            (runtime, tempfile::tempdir().expect("a directory"))
        });
        let read = |data: &[u8]| {
            fs::write(dir.path().join("web-1.json"), data).expect("write");
            runtime.block_on(read_status(dir.path()))
        };
        let (first, later) = (read(first), read(later));
        for report in [&first, &later] {
            assert_eq!(report.files.len() + report.problems.len(), 1);
            for problem in &report.problems {
                assert!(!problem.reason.is_empty() && problem.reason.len() < 300);
            }
            for file in &report.files {
                let printable =
                    file.replica.len() <= 253 && !file.replica.is_empty() && !file.replica.chars().any(char::is_control);
                assert!(printable, "{:?}", file.replica);
            }
        }
        let (before, after) = (counts(&first), counts(&later));
        let mut counters = Counters::baseline(&before);
        assert!(counters.absorb(&before, |_| 0).is_empty(), "the same file again is no delivery");
        for rise in counters.absorb(&after, |_| 0) {
            let verified = |counts: &[StatusCounts]| {
                let keys = counts.iter().filter(|file| file.replica == rise.replica).flat_map(|file| &file.keys);
                keys.filter(|(kid, _)| *kid == rise.kid).map(|(_, verified)| *verified).max().unwrap_or(0)
            };
            assert!(verified(&after) > 0, "{} rose to nothing", rise.kid);
        }
        assert!(counters.absorb(&after, |_| u64::MAX).is_empty(), "what our own probes explain is no delivery");
    });
}

fn counts(report: &StatusReport) -> Vec<StatusCounts> {
    let counts = report.files.iter().map(|file| StatusCounts {
        replica: file.replica.clone(),
        started_at: file.started_at.to_rfc3339(),
        keys: file.keys.iter().map(|key| (key.kid, key.verified)).collect(),
    });
    counts.collect()
}
