//! What one run is: everything in it follows from the seed, and what a person takes away from it to find a cause.

#[cfg(feature = "mutants")]
use hookturn::{mutants, rotation::mutants as core};

use super::dice::Dice;

/// One kind of thing that goes wrong. A run draws its own mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// A PATCH that never arrives, or whose answer does not.
    Lost,
    /// Applied long after it was sent, also after a later one, also twice.
    Late,
    /// A 200 for something that was not done.
    LyingOk,
    /// 5xx and 429, at the PATCH and at the GET, and connections that are refused.
    Trouble,
    /// A clear refusal: of the value, of the API key, of the webhook.
    Refusal,
    /// DialNexa's senders take a new secret over one after the other.
    Propagation,
    /// Deliveries that are repeated near the end of their life, with the signature of long ago.
    Repeats,
    /// Somebody changes the secret at DialNexa by hand.
    ByHand,
    /// Replicas that do not refresh for a while.
    Stuck,
    /// Replicas that restart, or are down.
    Restarts,
    /// Replicas that come and go.
    Scaling,
    /// The consumer verifies, and then refuses what the new secret signed.
    Rejects,
    /// Reports and copies of deliveries get lost.
    Deaf,
    /// Calls of the keystore that fail, before or after their effect.
    Keystore,
    /// Reads of the keystore that are behind.
    Lag,
    /// Somebody puts the old content of the keystore back.
    Robot,
    /// Commits that fail, and those of which a crash tells later whether they were.
    Disk,
    /// Commits that take minutes.
    Stalls,
    /// The process dies, at any call.
    Crash,
    /// The process is asked to stop.
    Stops,
    /// The machine boots.
    Reboot,
    /// Another daemon takes over while this one is still there.
    Takeover,
    /// An older store is copied back.
    Restore,
    /// The anchor file is gone.
    Anchor,
    /// The machine sleeps.
    Suspend,
    /// Somebody sets the wall clock.
    WallClock,
    /// A life in which the doors are shut.
    Shut,
    /// Abort, rollback, supersede.
    Turns,
    /// The current secret has leaked.
    Emergency,
    /// Pause and resume.
    Pause,
    /// Somebody looks at the store beside the daemon, as `status` does where there is no socket.
    Onlooker,
}

impl Fault {
    pub const ALL: [Fault; 31] = [
        Fault::Lost,
        Fault::Late,
        Fault::LyingOk,
        Fault::Trouble,
        Fault::Refusal,
        Fault::Propagation,
        Fault::Repeats,
        Fault::ByHand,
        Fault::Stuck,
        Fault::Restarts,
        Fault::Scaling,
        Fault::Rejects,
        Fault::Deaf,
        Fault::Keystore,
        Fault::Lag,
        Fault::Robot,
        Fault::Disk,
        Fault::Stalls,
        Fault::Crash,
        Fault::Stops,
        Fault::Reboot,
        Fault::Takeover,
        Fault::Restore,
        Fault::Anchor,
        Fault::Suspend,
        Fault::WallClock,
        Fault::Shut,
        Fault::Turns,
        Fault::Emergency,
        Fault::Pause,
        Fault::Onlooker,
    ];

    pub fn parse(text: &str) -> Option<Fault> {
        Fault::ALL.into_iter().find(|fault| format!("{fault:?}").eq_ignore_ascii_case(text.trim()))
    }
}

/// How a replica is shown to accept the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    Probes,
    StatusFiles,
}

/// A configuration that promises less than the world keeps; for showing that it is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    ShortDrain,
    ShortQuarantine,
}

/// A rule that is broken on purpose, in the core or around it.
#[cfg(feature = "mutants")]
#[derive(Debug, Clone, Copy)]
pub enum Mutant {
    Core(core::Mutant),
    Shell(mutants::Mutant),
}

#[cfg(feature = "mutants")]
impl Mutant {
    /// Breaks it on this thread, or mends whatever is broken.
    pub fn set(mutant: Option<Mutant>) {
        core::set(match mutant {
            Some(Mutant::Core(mutant)) => Some(mutant),
            _ => None,
        });
        mutants::set(match mutant {
            Some(Mutant::Shell(mutant)) => Some(mutant),
            _ => None,
        });
    }
}

/// One run.
#[derive(Debug, Clone)]
pub struct Setup {
    pub seed: u64,
    /// Rotations until the faults stop.
    pub rotations: u64,
    pub faults: Vec<Fault>,
    #[cfg(feature = "mutants")]
    pub mutant: Option<Mutant>,
    pub webhooks: usize,
    pub replicas: usize,
    pub proof: Proof,
    pub report: bool,
    pub tap: bool,
    /// Replicas also count in status files, and those counts are a door.
    pub counters: bool,
    pub two_slots: bool,
    /// The planner begins rotations; otherwise a person does.
    pub planned: bool,
    /// As configured, in milliseconds.
    pub quarantine: u64,
    pub drain: u64,
    pub wait: u64,
    pub patch_timeout: u64,
    pub repeat_min: u64,
    pub repeat_max: u64,
    /// A read of the keystore takes up to.
    pub read_within: u64,
    /// Mean distance between two deliveries.
    pub gap: u64,
    /// What is true of DialNexa: a PATCH received is applied within, a sender takes it over within, a delivery ends within.
    pub apply_within: u64,
    pub propagate_within: u64,
    pub die_within: u64,
}

/// One hundred in so many runs have a given fault.
const SHARE: u64 = 30;

impl Setup {
    pub fn of(seed: u64) -> Setup {
        let mut dice = Dice::of(seed, "setup");
        let two_slots = dice.percent(15);
        let drawn = |fault: &Fault| Dice::of(seed, &format!("{fault:?}")).percent(SHARE);
        // A store and a keystore that were both put back have forgotten together what nobody else has.
        let possible = |fault: &Fault| match fault {
            Fault::Robot => !drawn(&Fault::Restore),
            _ => true,
        };
        let faults: Vec<Fault> = Fault::ALL.into_iter().filter(|fault| drawn(fault) && possible(fault)).collect();
        let has = |fault| faults.contains(&fault);
        let quarantine = dice.between(8_000, 30_000);
        let drain = dice.between(8_000, 40_000);
        let propagate_within = if has(Fault::Propagation) { dice.between(500, 3_000) } else { 0 };
        let proof = if !two_slots && dice.percent(35) { Proof::StatusFiles } else { Proof::Probes };
        let report = dice.percent(70);
        let tap = !report || dice.percent(30);
        let repeat_min = dice.between(1_000, 3_000);
        Setup {
            seed,
            rotations: 12,
            #[cfg(feature = "mutants")]
            mutant: None,
            webhooks: if dice.percent(20) { 2 } else { 1 },
            replicas: dice.between(1, 4) as usize,
            proof,
            report,
            tap,
            counters: !two_slots && dice.percent(30),
            two_slots,
            planned: dice.percent(30),
            quarantine,
            drain,
            wait: dice.between(300, 2_000),
            patch_timeout: quarantine / dice.between(2, 4),
            repeat_min,
            repeat_max: dice.between(repeat_min, 60_000),
            // Dense traffic is one of the mixtures: a switch proof needs one delivery, and every one more costs time.
            gap: if dice.percent(25) { dice.between(400, 2_500) } else { dice.between(2_500, 15_000) },
            // Half of the quarantine is for sending, half for applying; a little of it is lost to the commit in between.
            apply_within: (quarantine / 2).saturating_sub(propagate_within + 300),
            propagate_within,
            read_within: if dice.percent(10) { 1_800 } else { 20 },
            die_within: drain.saturating_sub(propagate_within + 100),
            faults,
        }
    }

    pub fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    pub fn without(&self, fault: Fault) -> Setup {
        let faults = self.faults.iter().copied().filter(|known| *known != fault).collect();
        Setup { faults, ..self.clone() }
    }

    /// With these faults beside its own, and without those that cannot go together with them.
    pub fn under(&self, faults: &[Fault]) -> Setup {
        let mut setup = self.clone();
        setup.faults.extend(faults.iter().filter(|fault| !self.has(**fault)));
        let asked = |fault| faults.contains(&fault);
        setup.faults.retain(|fault| match fault {
            Fault::Robot => !asked(Fault::Restore),
            Fault::Restore => !asked(Fault::Robot),
            _ => true,
        });
        setup.two_slots &= !asked(Fault::Restore);
        setup
    }

    /// The promise that the configuration makes is a tenth of what is true.
    pub fn wrong(&self, wrong: Wrong) -> Setup {
        let mut setup = self.clone();
        match wrong {
            Wrong::ShortDrain => setup.drain /= 10,
            Wrong::ShortQuarantine => {
                setup.quarantine /= 10;
                setup.patch_timeout = setup.patch_timeout.min(setup.quarantine / 2);
            }
        }
        setup
    }

    /// The line that plays this run again.
    pub fn replay(&self) -> String {
        let born = Setup::of(self.seed);
        let left_out: Vec<String> =
            born.faults.iter().filter(|fault| !self.has(**fault)).map(|fault| format!("{fault:?}")).collect();
        let added: Vec<String> =
            self.faults.iter().filter(|fault| !born.has(**fault)).map(|fault| format!("{fault:?}")).collect();
        let named = |name, faults: Vec<String>| match faults.is_empty() {
            true => String::new(),
            false => format!("{name}={} ", faults.join(",")),
        };
        let (without, with) = (named("HOOKTURN_WITHOUT", left_out), named("HOOKTURN_WITH", added));
        format!(
            "HOOKTURN_SEED={} {with}{without}HOOKTURN_ROTATIONS={} cargo test --profile simulation --features mutants --test simulation -- --nocapture replay",
            self.seed, self.rotations
        )
    }
}
