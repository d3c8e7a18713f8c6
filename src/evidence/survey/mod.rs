//! What a survey of a throw-away webhook saw, and what follows from it. Pure; `cli::survey` does the seeing.
//!
//! [`Observations`] are times and signatures. [`judge`](judge()) makes [`Findings`] of them, [`answers`](answers()) the answers to
//! what DialNexa's pages leave open. Nothing here is a secret, a body or a digest of one.

mod answers;
mod judge;

use serde::{Deserialize, Serialize};

pub use answers::{Answer, How, answers, roughly};
pub use judge::{Findings, Resigned, Retries, Switch, Trust, judge};

use crate::rotation::{Millis, PatchAnswer};

/// Everything that was seen. Times are milliseconds since the survey began.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Observations {
    /// The events that the webhook is subscribed to, as DialNexa says.
    pub events: Vec<String>,
    /// The PATCH of secret A, then that of secret B; the second one only where the first was seen to work.
    pub patches: Vec<Patched>,
    pub arrivals: Vec<Arrival>,
    /// A delivery was signed with the first so many characters of a secret, and no more of it.
    pub cut: Option<usize>,
    /// Requests that were not written down, because there were too many.
    pub dropped: u64,
    /// The webhook was switched off, and on again.
    pub pause: Option<Pause>,
    /// Another URL was sent, to see whether DialNexa asks it first.
    pub readdressed: Option<Readdressed>,
    pub ended_at: Millis,
    /// A person stopped it.
    pub interrupted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patched {
    /// Of the first request: a later one repeats it.
    pub sent_at: Millis,
    pub ended_at: Millis,
    pub answer: PatchAnswer,
    /// One line for a person.
    pub text: String,
}

/// One request to the receiver of the survey.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    pub at: Millis,
    /// Tries of one delivery have one number.
    pub delivery: u32,
    /// Its first try.
    pub first: bool,
    pub signed: Signed,
    /// The header that a signature came in, and whether `sha256=` was in front.
    pub header: Option<String>,
    pub prefixed: bool,
    pub event: Option<String>,
    pub user_agent: Option<String>,
    /// What the survey answered.
    pub answered: u16,
    /// The body is that of the first try, byte for byte.
    pub same_body: bool,
}

/// Which secret signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signed {
    /// By the secret of the first PATCH.
    A,
    /// By that of the second.
    B,
    /// By a secret of an earlier survey of this webhook.
    Earlier,
    /// Something signed it, and it is none that the survey knows.
    Other,
    /// No signature, or none that can be read.
    Unsigned,
}

/// Both answers came from DialNexa.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    pub off_at: Millis,
    pub on_at: Millis,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readdressed {
    pub at: Millis,
    /// Until when a request to the new URL was waited for.
    pub until: Millis,
    /// DialNexa took the new URL, or what it said.
    pub taken: Result<(), String>,
}

impl Signed {
    pub fn name(self) -> &'static str {
        match self {
            Signed::A => "A",
            Signed::B => "B",
            Signed::Earlier => "an earlier survey's",
            Signed::Other => "unknown",
            Signed::Unsigned => "-",
        }
    }
}

impl Arrival {
    /// DialNexa asks whether somebody is there.
    pub fn is_verification(&self) -> bool {
        self.event.as_deref() == Some("verification")
            || self.user_agent.as_deref().is_some_and(|agent| agent.to_ascii_lowercase().contains("verification"))
    }

    /// One of the survey's own two secrets signed it: nobody else can have made it.
    pub fn genuine(&self) -> bool {
        matches!(self.signed, Signed::A | Signed::B)
    }
}
