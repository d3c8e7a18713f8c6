//! What happened, in numbers.

use std::fmt;

use hookturn::rotation::Note;

/// Why a refused try is not hookturn's to answer for: what made this one hopeless. Nothing else is an excuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Excuse {
    /// Signed with a secret that a person has set at DialNexa by hand: nobody else ever knew it. Ends with the next PATCH.
    ByHand,
    /// Signed with a secret that a person has called leaked, after the retire of it was on the disk: to refuse it is what was
    /// asked for. DialNexa had said by then that it signs with another one, or had been seen to.
    Leaked,
    /// Somebody else has put into the keystore what does not hold the secret that signs, and the replica has loaded that.
    /// hookturn has to put it right within `TO_REPAIR`.
    PutBack,
    /// The consumer found the signature to be right, and would not have the delivery all the same.
    Unwanted,
}

impl Excuse {
    const ALL: [Excuse; 4] = [Excuse::ByHand, Excuse::Leaked, Excuse::PutBack, Excuse::Unwanted];

    fn words(self) -> &'static str {
        match self {
            Excuse::ByHand => "signed with what somebody has set by hand",
            Excuse::Leaked => "signed with what leaked and is retired",
            Excuse::PutBack => "while the keystore held what somebody has put back",
            Excuse::Unwanted => "verified and refused by the consumer",
        }
    }
}

/// What became of one try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Accepted,
    Excused(Excuse),
    /// Nobody was there to refuse it.
    NobodyThere,
    Lost,
}

/// What happened in a run, or in many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Accepted in the end.
    pub deliveries: u64,
    /// Refused to their end, each with its [`Excuse`].
    pub excused: [u64; Excuse::ALL.len()],
    /// Whose tries all fell into times in which no replica was up.
    pub nobody_there: u64,
    /// Every request of DialNexa.
    pub tries: u64,
    pub rotations: u64,
    pub aborted: u64,
    pub rollbacks: u64,
    pub superseded: u64,
    pub emergencies: u64,
    pub restores: u64,
    pub crashes: u64,
    pub takeovers: u64,
    pub holds: u64,
    pub patches: u64,
    pub probes: u64,
    pub commits: u64,
    /// Milliseconds that more than one secret was accepted.
    pub both_ms: u64,
    pub virtual_ms: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Counts) {
        let Counts { deliveries, excused, nobody_there, tries, rotations, aborted, rollbacks, superseded, .. } = other;
        let Counts { emergencies, restores, crashes, takeovers, holds, patches, probes, commits, both_ms, virtual_ms, .. } =
            other;
        self.deliveries += deliveries;
        self.excused.iter_mut().zip(excused).for_each(|(sum, excused)| *sum += excused);
        self.nobody_there += nobody_there;
        self.tries += tries;
        self.rotations += rotations;
        self.aborted += aborted;
        self.rollbacks += rollbacks;
        self.superseded += superseded;
        self.emergencies += emergencies;
        self.restores += restores;
        self.crashes += crashes;
        self.takeovers += takeovers;
        self.holds += holds;
        self.patches += patches;
        self.probes += probes;
        self.commits += commits;
        self.both_ms += both_ms;
        self.virtual_ms += virtual_ms;
    }

    /// A delivery has come to its end, and its tries to these.
    pub fn ended(&mut self, fates: &[Fate]) {
        self.tries += fates.len() as u64;
        let excuse = fates.iter().rev().find_map(|fate| match fate {
            Fate::Excused(excuse) => Some(*excuse),
            _ => None,
        });
        match excuse {
            _ if fates.contains(&Fate::Accepted) => self.deliveries += 1,
            Some(excuse) => self.excused[excuse as usize] += 1,
            None => self.nobody_there += 1,
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  deliveries  {} accepted, in {} tries; {} found no replica up",
            self.deliveries, self.tries, self.nobody_there
        )?;
        let all = self.deliveries + self.nobody_there + self.excused.iter().sum::<u64>();
        for excuse in Excuse::ALL {
            let excused = self.excused[excuse as usize];
            let percent = excused as f64 * 100.0 / all.max(1) as f64;
            writeln!(f, "              {excused} ({percent:.2}%) {}", excuse.words())?;
        }
        writeln!(f, "  rotations   {} completed, {} aborted, {} superseded", self.rotations, self.aborted, self.superseded)?;
        writeln!(f, "  rollbacks   {}, emergencies {}, holds {}", self.rollbacks, self.emergencies, self.holds)?;
        writeln!(f, "  crashes     {}, takeovers {}, restores {}", self.crashes, self.takeovers, self.restores)?;
        writeln!(f, "  effects     {} PATCHes, {} probe requests, {} commits", self.patches, self.probes, self.commits)?;
        let mean = self.both_ms as f64 / 1000.0 / self.rotations.max(1) as f64;
        writeln!(f, "  both secrets accepted for {} s in all, {mean:.1} s a rotation", self.both_ms / 1000)?;
        write!(f, "  simulated time {:.1} h", self.virtual_ms as f64 / 3_600_000.0)
    }
}

impl Counts {
    /// What a journal tells.
    pub fn note(&mut self, note: &Note) {
        match note {
            Note::Completed { .. } => self.rotations += 1,
            Note::Aborted { .. } => self.aborted += 1,
            Note::RolledBack { .. } => self.rollbacks += 1,
            Note::Superseded { .. } => self.superseded += 1,
            Note::RotationBegan { compromised: true, .. } | Note::Compromised => self.emergencies += 1,
            Note::Held { .. } => self.holds += 1,
            _ => {}
        }
    }
}
