//! What `src/rotation` needs of the rest of hookturn: the type of a key id.

#![forbid(unsafe_code)]

pub mod rotation;

pub mod secret {
    mod kid;

    pub use kid::{BadKid, Kid};

    /// As in the whole crate.
    #[derive(Debug, thiserror::Error)]
    #[error("the operating system gives no random numbers")]
    pub struct NoRandomness(#[source] rand::rngs::SysError);
}
