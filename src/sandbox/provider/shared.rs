use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::task::JoinHandle;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{
    ProviderOptions,
    world::{Later, World},
};
use crate::{
    sandbox::{SandboxError, http},
    secret::Secret,
};

/// What the doors of the provider and its tasks have in common.
pub(super) struct Shared {
    pub(super) api_key: Secret,
    pub(super) weak_api_key: Option<Secret>,
    pub(super) client: reqwest::Client,
    /// Goes into every body, so that no two runs make the same one.
    pub(super) run: String,
    world: Mutex<World>,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

impl Shared {
    pub(super) fn new(mut options: ProviderOptions) -> Result<Shared, SandboxError> {
        Ok(Shared {
            api_key: options.api_key.clone(),
            weak_api_key: options.weak_api_key.take(),
            // Each try has a time-out of its own; this one only catches what that one misses.
            client: http::client(Duration::from_secs(120))?,
            run: format!("{:08x}", rand::random::<u32>()),
            world: Mutex::new(World::new(options)),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }

    /// The world, for as long as the guard lives: never across an await.
    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        // A panic under the lock is a bug of a test or of ours; the counts are worth reading all the same.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs something until it is done (`Some`) or the provider stops (`None`).
    pub(super) fn spawn<F>(&self, work: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        let stopping = self.stopping.clone();
        self.tasks.spawn(stopping.run_until_cancelled_owned(work))
    }

    /// Waits for the time of a change, and lets it happen.
    pub(super) fn apply_later(self: Arc<Self>, later: Later) {
        let shared = self.clone();
        self.spawn(async move {
            tokio::time::sleep(later.after).await;
            shared.world().arrive(later);
        });
    }

    pub(super) async fn stop(&self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    pub(super) fn abandon_on_drop(&self) -> DropGuard {
        self.stopping.clone().drop_guard()
    }
}
