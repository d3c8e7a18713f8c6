//! Reading a request's body within bounds of size, time and memory.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Reason;

/// A whole body, and the memory it was granted.
pub(super) struct Held {
    pub(super) bytes: Bytes,
    granted: Option<OwnedSemaphorePermit>,
}

/// Why there is no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoBody {
    TooLarge,
    /// The other side went away, or wrote something that is not HTTP.
    CutOff,
    TooSlow,
    /// All bodies together would need more memory than they may have.
    NoMemory,
}

/// Reads a body of at most `cap` bytes within `time`; each byte of it takes a permit of `memory`. A `Content-Length` over
/// the cap is refused before anything is read, and is never believed for an allocation.
pub(super) async fn read(body: Body, cap: usize, time: Duration, memory: &Arc<Semaphore>) -> Result<Held, NoBody> {
    if body.size_hint().lower() > cap as u64 {
        return Err(NoBody::TooLarge);
    }
    tokio::time::timeout(time, collect(body, cap, memory)).await.unwrap_or(Err(NoBody::TooSlow))
}

async fn collect(mut body: Body, cap: usize, memory: &Arc<Semaphore>) -> Result<Held, NoBody> {
    let mut bytes = BytesMut::new();
    let mut granted: Option<OwnedSemaphorePermit> = None;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| NoBody::CutOff)?.into_data() else { continue };
        if data.len() > cap - bytes.len() {
            return Err(NoBody::TooLarge);
        }
        let wanted = u32::try_from(data.len()).map_err(|_| NoBody::TooLarge)?;
        let more = Arc::clone(memory).try_acquire_many_owned(wanted).map_err(|_| NoBody::NoMemory)?;
        match &mut granted {
            Some(granted) => granted.merge(more),
            None => granted = Some(more),
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Held { bytes: bytes.freeze(), granted })
}

impl NoBody {
    /// What it is counted as; running out of memory is ours, not the sender's.
    pub(super) fn reason(self) -> Option<Reason> {
        match self {
            NoBody::TooLarge => Some(Reason::TooLarge),
            NoBody::CutOff | NoBody::TooSlow => Some(Reason::Incomplete),
            NoBody::NoMemory => None,
        }
    }
}

impl Held {
    /// The bytes, and what must be kept for as long as they are.
    pub(super) fn into_parts(self) -> (Bytes, Option<OwnedSemaphorePermit>) {
        (self.bytes, self.granted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(3600);

    async fn read_with(body: &'static [u8], cap: usize, memory: usize) -> Result<Held, NoBody> {
        read(Body::from(body), cap, TIME, &Arc::new(Semaphore::new(memory))).await
    }

    #[tokio::test]
    async fn a_body_of_exactly_the_cap_is_read_and_one_byte_more_is_not() {
        assert_eq!(read_with(b"12345", 5, 100).await.map(|held| held.bytes).ok().as_deref(), Some(&b"12345"[..]));
        assert_eq!(read_with(b"123456", 5, 100).await.err(), Some(NoBody::TooLarge));
        assert_eq!(read_with(b"", 5, 0).await.map(|held| held.bytes.len()).ok(), Some(0));
    }

    #[tokio::test]
    async fn memory_is_granted_for_as_long_as_the_body_is_held() {
        let memory = Arc::new(Semaphore::new(8));
        let first = read(Body::from("12345"), 5, TIME, &memory).await.expect("fits");
        assert_eq!(read(Body::from("12345"), 5, TIME, &memory).await.err(), Some(NoBody::NoMemory));
        drop(first);
        assert_eq!(memory.available_permits(), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_given_up() {
        let never = Body::new(http_body_util::StreamBody::new(futures_util::stream::pending::<
            Result<hyper::body::Frame<Bytes>, std::convert::Infallible>,
        >()));
        assert_eq!(read(never, 5, TIME, &Arc::new(Semaphore::new(8))).await.err(), Some(NoBody::TooSlow));
    }
}
