use super::{Kid, Secret};

/// How a key of a webhook stands right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// A consumer accepts it.
    Accepted,
    /// Retired: recognised, so that a late or replayed delivery can be named, and never accepted.
    Retired,
}

/// Every key that a delivery of one webhook may carry. Built by the writer loop, shared with the doors, never changed in place.
pub struct Keyring {
    keys: Vec<(Kid, Secret, Standing)>,
}

impl Keyring {
    pub fn new(keys: Vec<(Kid, Secret, Standing)>) -> Keyring {
        Keyring { keys }
    }

    pub fn iter(&self) -> impl Iterator<Item = (Kid, &Secret, Standing)> {
        self.keys.iter().map(|(kid, secret, standing)| (*kid, secret, *standing))
    }

    pub fn secret(&self, kid: Kid) -> Option<&Secret> {
        self.keys.iter().find(|(k, _, _)| *k == kid).map(|(_, secret, _)| secret)
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}
