//! The life of one process. It ends at a call of the world, before or after that has its effect: what a process does between
//! two calls nobody can see, so there is no other place where dying would make a difference.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio_util::sync::CancellationToken;

use super::time::sleep;

pub struct Life {
    /// Calls until it dies; 0: not by itself.
    fuse: AtomicU64,
    dead: AtomicBool,
    ended: CancellationToken,
}

impl Life {
    pub fn new(fuse: u64) -> Arc<Life> {
        Arc::new(Life { fuse: AtomicU64::new(fuse), dead: AtomicBool::new(false), ended: CancellationToken::new() })
    }

    pub fn kill(&self) {
        self.dead.store(true, Ordering::Relaxed);
        self.ended.cancel();
    }

    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Where the process touches the world. One that is dead does not come back from here.
    pub async fn boundary(&self) {
        if !self.is_dead() && self.fuse.load(Ordering::Relaxed) > 0 && self.fuse.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.kill();
        }
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
    }

    /// A call that is under way for so long. What it carries may arrive although the process has died meanwhile.
    pub async fn underway(&self, ms: u64) {
        self.boundary().await;
        if ms > 0 {
            sleep(ms).await;
        }
    }
}
