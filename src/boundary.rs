//! The moments at which a crash could tear something apart, and a way to die at each of them on purpose.
//!
//! The crash drill (`hookturn drill`, docs/testing.md) starts the real program with `HOOKTURN_DIE_AT=NAME:COUNT`; it then aborts
//! when it reaches that boundary for the COUNT-th time, as a kill at that very instruction would. Without the variable
//! [`reach`] is one load and one branch.
//!
//! The drill goes through [`Boundary::ALL`], which the enumeration writes itself, and fails where one of them is never reached:
//! what is added here is drilled from that day on, and cannot be forgotten in the code.

use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use rustix::process::{Resource, Rlimit, setrlimit};

/// The variable that arms a process.
pub const DIE_AT: &str = "HOOKTURN_DIE_AT";

macro_rules! boundaries {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A moment between two things that must not be taken for one.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Boundary {
            $($(#[$doc])* $variant,)*
        }

        impl Boundary {
            /// Every one, in the order of a rotation.
            pub const ALL: &[Boundary] = &[$(Boundary::$variant),*];

            pub fn name(self) -> &'static str {
                match self {
                    $(Boundary::$variant => $name,)*
                }
            }
        }
    };
}

boundaries! {
    /// Decided, and nothing of it is in the store.
    BeforeCommit = "before-commit",
    /// Every row is written, the transaction is not committed.
    InCommit = "in-commit",
    /// In the store; nobody was told and nothing was begun.
    AfterCommit = "after-commit",
    /// In the store, and the witness outside of it does not know yet.
    BeforeAnchor = "before-anchor",
    /// Both know; no effect was begun.
    AfterAnchor = "after-anchor",
    /// Done, and whoever asked for it was not told.
    BeforeReply = "before-reply",
    BeforeKeystoreWrite = "before-keystore-write",
    /// The new content lies beside the old one.
    KeystoreWritten = "keystore-written",
    /// The new content is in place, its directory is not synced.
    KeystoreRenamed = "keystore-renamed",
    AfterKeystoreWrite = "after-keystore-write",
    BeforeKeystoreRead = "before-keystore-read",
    AfterKeystoreRead = "after-keystore-read",
    BeforeQuestion = "before-question",
    /// The bodies of a probe are on record, none was sent.
    ProbeBooked = "probe-booked",
    /// One replica has answered, and nobody knows.
    AfterProbe = "after-probe",
    AfterQuestion = "after-question",
    BeforeConnect = "before-connect",
    AfterConnect = "after-connect",
    /// The intent is committed, the PATCH is not sent.
    BeforePatch = "before-patch",
    /// DialNexa has answered, and nobody knows.
    AfterPatch = "after-patch",
    BeforeInspect = "before-inspect",
    AfterInspect = "after-inspect",
}

impl Boundary {
    pub fn named(name: &str) -> Option<Boundary> {
        Boundary::ALL.iter().copied().find(|boundary| boundary.name() == name)
    }
}

impl fmt::Display for Boundary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Passes a boundary; does not return where the process was told to die there.
pub fn reach(boundary: Boundary) {
    static ORDER: OnceLock<Option<Order>> = OnceLock::new();
    let Some(order) = ORDER.get_or_init(Order::of_environment) else { return };
    if order.boundary == boundary && order.left.fetch_sub(1, Ordering::Relaxed) == 1 {
        die(boundary);
    }
}

/// Where to die.
struct Order {
    boundary: Boundary,
    left: AtomicU32,
}

impl Order {
    fn of_environment() -> Option<Order> {
        let text = std::env::var(DIE_AT).ok()?;
        let order = Order::parse(&text);
        if order.is_none() {
            // A drill that cannot be held must not look like one that was survived.
            eprintln!("hookturn: {DIE_AT}={text}: NAME:COUNT is expected, with a NAME of: {}", names());
            std::process::exit(64);
        }
        order
    }

    fn parse(text: &str) -> Option<Order> {
        let (name, count) = text.split_once(':')?;
        let count = count.parse().ok().filter(|count| *count > 0)?;
        Some(Order { boundary: Boundary::named(name)?, left: AtomicU32::new(count) })
    }
}

fn names() -> String {
    Boundary::ALL.iter().map(|boundary| boundary.name()).collect::<Vec<_>>().join(", ")
}

/// No destructor runs and nothing is flushed. No core either: it would hold secrets.
fn die(boundary: Boundary) -> ! {
    eprintln!("hookturn: dying at {boundary}, as {DIE_AT} says");
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_boundary_is_found_by_its_name_and_no_two_have_one() {
        for boundary in Boundary::ALL {
            assert_eq!(Boundary::named(boundary.name()), Some(*boundary));
        }
    }

    #[test]
    fn an_order_names_a_boundary_and_a_count() {
        let order = Order::parse("after-patch:3").map(|order| (order.boundary, order.left.into_inner()));
        assert_eq!(order, Some((Boundary::AfterPatch, 3)));
        for wrong in ["after-patch", "after-patch:0", "after-patch:x", "nowhere:1", ""] {
            assert!(Order::parse(wrong).is_none(), "{wrong}");
        }
    }
}
