//! A DialNexa look-alike, a sample consumer and traffic between them, all of it real HTTP on loopback.

mod http;
pub mod provider;
mod signing;

use std::{io, net::SocketAddr};

/// Why a part of the sandbox does not start.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("cannot listen on {addr}")]
    Bind {
        addr: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("the HTTP client does not start")]
    Client(#[source] reqwest::Error),
}
