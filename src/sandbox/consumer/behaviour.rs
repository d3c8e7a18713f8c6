use serde::{Deserialize, Serialize};

/// What a replica does, switched at run time. In JSON: `{"kind": "slow", "ms": 300}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Behaviour {
    /// Verifies the raw bytes with every listed key, then parses: 401 on no match, 400 on what is not JSON, 200 otherwise.
    #[default]
    Good,
    /// Keeps the keys it has, whatever the file says.
    NeverReloads,
    /// 400 for what is not JSON, before any key is tried.
    ParsesFirst,
    /// 200 to everything.
    DoesNotVerify,
    /// Tries the keys in the state `current` only.
    RefusesTheNew,
    /// Goes back to the keys that it loaded first.
    FallsBackToOld,
    /// Verifies, and then answers this status all the same.
    Fails { status: u16 },
    /// After so many refused signatures in a row, 403 to everybody for `ms`.
    Bans { after: u32, ms: u64 },
    /// Every connection is closed without a byte; no file is read or written.
    Down,
    /// Answers so much later.
    Slow { ms: u64 },
}
