//! Threads that serve connections, one for each core.
//!
//! Each has a runtime of its own, and connections to the consumers of its own: all that a delivery needs happens on one core,
//! and no thread has to wake another.

use std::{hint::black_box, io, thread, time::Duration};

use tokio::{runtime, time::sleep};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::receive::Gateway;
use crate::evidence::Hand;

const TIDY_EVERY: Duration = Duration::from_secs(1);
const ONE_LARGE_BLOCK: usize = 4 * 1024 * 1024;

pub(super) struct Crew {
    pub hands: Vec<Hand<Gateway>>,
    /// The threads end with it.
    pub end: DropGuard,
}

impl Crew {
    /// # Errors
    /// The system gives no more threads.
    pub fn start(gateway: impl Fn() -> Gateway) -> io::Result<Crew> {
        keep_memory();
        let (mut hands, end) = (Vec::new(), CancellationToken::new());
        for number in 1..=thread::available_parallelism().map_or(2, usize::from) {
            let (gateway, end) = (gateway(), end.clone());
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            hands.push(Hand::new(runtime.handle().clone(), gateway.clone()));
            thread::Builder::new().name(format!("gateway-{number}")).spawn(move || runtime.block_on(tidy(gateway, end)))?;
        }
        Ok(Crew { hands, end: end.drop_guard() })
    }
}

/// glibc gives freed memory back to the system, a few buffers at a time, and has to ask for it again with the next delivery, page
/// by page. After one large block was freed it keeps up to twice as much as that for each thread (mallopt(3),
/// `M_MMAP_THRESHOLD`). Nothing is written to the block, so it is never in memory.
fn keep_memory() {
    drop(black_box(Vec::<u8>::with_capacity(ONE_LARGE_BLOCK)));
}

/// Until the end; what else there is to do on this thread, connections bring.
async fn tidy(gateway: Gateway, end: CancellationToken) {
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            () = sleep(TIDY_EVERY) => gateway.tidy(),
        }
    }
}
