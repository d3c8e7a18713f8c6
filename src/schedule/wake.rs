//! The alarm clock: calls a function every so often, and does nothing else.
//!
//! The scheduler crate is trusted with this much only. It freezes the offset of a time zone at the time a job is made, its
//! "repeated" jobs can stop for ever after the process was suspended, and it polls the real clock; so it runs one cron job
//! in UTC, and when a webhook is due is decided by the planner.

use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

/// A running alarm clock. It stops with [`WakeUp::shutdown`], or when the runtime ends.
pub struct WakeUp {
    scheduler: JobScheduler,
}

/// The alarm clock cannot run: a pattern it does not take, or no timer. The planner is as well without it, only later.
#[derive(Debug, thiserror::Error)]
#[error("the wake-up timer `{pattern}` cannot run: {source}")]
pub struct WakeError {
    pattern: String,
    source: JobSchedulerError,
}

/// Calls `tx` whenever `every` comes: a cron expression in UTC with seconds first, as `*/15 * * * * *`. `tx` must not block.
pub async fn wake(every: &str, tx: impl Fn() + Send + Sync + 'static) -> Result<WakeUp, WakeError> {
    let failed = |source| WakeError { pattern: every.to_owned(), source };
    let scheduler = JobScheduler::new().await.map_err(failed)?;
    let job = Job::new(every, move |_, _| tx()).map_err(failed)?;
    scheduler.add(job).await.map_err(failed)?;
    scheduler.start().await.map_err(failed)?;
    Ok(WakeUp { scheduler })
}

impl WakeUp {
    /// Stops calling. Nothing waits for a call under way.
    pub async fn shutdown(mut self) {
        if let Err(e) = self.scheduler.shutdown().await {
            tracing::debug!(error = %e, "the wake-up timer did not stop cleanly");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn it_calls_again_and_again() {
        let (tx, mut rx) = tokio::sync::mpsc::unbounded_channel();
        let clock = wake("* * * * * *", move || tx.send(()).unwrap_or_default()).await.expect("an alarm clock");
        for _ in 0..2 {
            rx.recv().await.expect("a call");
        }
        clock.shutdown().await;
    }

    #[tokio::test]
    async fn a_pattern_it_does_not_take_is_said() {
        let error = wake("0 3 * *", || ()).await.err().expect("a refusal").to_string();
        assert!(error.contains("`0 3 * *`"), "{error}");
    }
}
