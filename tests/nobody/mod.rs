//! What an ordinary user of the machine may not do, where the tests run as root.

use std::{future::Future, panic::resume_unwind, thread};

use rustix::{
    process::{Gid, Uid, geteuid},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

pub const NOBODY: u32 = 65_534;

/// Runs it to its end on a thread that has given up root's rights, and so have all that it starts.
pub fn as_nobody<F: Future<Output = ()>>(work: impl FnOnce() -> F + Send) {
    let run = || {
        if geteuid().is_root() {
            let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
            set_thread_groups(&[]).expect("no groups");
            set_thread_res_gid(gid, gid, gid).expect("nobody's group");
            set_thread_res_uid(uid, uid, uid).expect("nobody");
        }
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime").block_on(work());
    };
    thread::scope(|scope| scope.spawn(run).join()).unwrap_or_else(|panic| resume_unwind(panic));
}
