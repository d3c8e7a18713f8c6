//! Breadth first through everything that can happen, so that the first way found to break a property is a shortest one.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt::Write as _,
    hash::{BuildHasherDefault, Hash, Hasher},
    time::Instant,
};

use super::{
    action::{Action, Kind, apply, enabled, kind},
    canon::canonical,
    check::{self, Broken},
    world::{KIDS, Mask, Property, Setup, State, bit_of, each, mask},
};

/// What a search came to.
pub struct Outcome {
    pub states: usize,
    pub edges: usize,
    pub depth: usize,
    pub complete: bool,
    pub fired: BTreeMap<String, usize>,
    pub broken: Option<Trace>,
}

/// A shortest way to break a property.
pub struct Trace {
    pub broken: Broken,
    pub lines: Vec<String>,
}

/// Follows everything that can happen under `setup`.
pub fn explore(setup: &Setup) -> Outcome {
    let mut search = Search::new(setup);
    let broken = search.run();
    let broken = broken.map(|(from, last, broken)| search.trace(from, last, broken)).or_else(|| search.stuck());
    Outcome {
        states: search.parents.len(),
        edges: search.edges,
        depth: search.depth,
        complete: search.queue.is_empty(),
        fired: search.fired,
        broken,
    }
}

struct Search<'a> {
    setup: &'a Setup,
    found: HashMap<u128, u32, BuildHasherDefault<Ready>>,
    /// From which state, and by which action, each state was first reached.
    parents: Vec<(u32, Action)>,
    queue: VecDeque<(u32, State)>,
    /// Fault-free edges, for liveness: where each state's begin, and where they lead.
    begins: Vec<usize>,
    leads: Vec<u32>,
    quiet: Vec<u32>,
    edges: usize,
    depth: usize,
    fired: BTreeMap<String, usize>,
}

impl<'a> Search<'a> {
    fn new(setup: &'a Setup) -> Search<'a> {
        let mut search = Search {
            setup,
            found: HashMap::default(),
            parents: Vec::new(),
            queue: VecDeque::new(),
            begins: Vec::new(),
            leads: Vec::new(),
            quiet: Vec::new(),
            edges: 0,
            depth: 0,
            fired: BTreeMap::new(),
        };
        let mut start = setup.start();
        canonical(&mut start, setup);
        search.visit(start, 0, Action::Poke);
        search
    }

    fn run(&mut self) -> Option<(u32, Option<Action>, Broken)> {
        let mut actions = Vec::new();
        let mut fired: HashMap<Action, usize> = HashMap::new();
        let began = Instant::now();
        let (mut level_ends, mut level) = (1u32, 0);
        let mut broken = None;
        'search: while let Some((id, state)) = self.queue.pop_front() {
            if id >= level_ends {
                (level_ends, level) = (self.parents.len() as u32, level + 1);
                if std::env::var_os("HOOKTURN_MODEL_LEVELS").is_some() {
                    let name = self.setup.name;
                    eprintln!(
                        "{name}: level {level}, {} states, {} waiting, {:?}",
                        level_ends,
                        self.queue.len(),
                        began.elapsed()
                    );
                }
            }
            self.depth = level;
            if let Err(fault) = check::state(&state, self.setup) {
                broken = Some((id, None, fault));
                break;
            }
            if self.parents.len() >= self.setup.most_states {
                self.queue.push_front((id, state));
                break;
            }
            self.begins.push(self.leads.len());
            if state.quiescent(self.setup.replicas) {
                self.quiet.push(id);
            }
            enabled(&state, self.setup, &mut actions);
            for action in &actions {
                match apply(&state, *action, self.setup) {
                    Ok(None) => {}
                    Ok(Some(mut next)) => {
                        canonical(&mut next, self.setup);
                        *fired.entry(*action).or_default() += 1;
                        self.edges += 1;
                        if next == state {
                            continue;
                        }
                        let reached = self.visit(next, id, *action);
                        if self.setup.liveness && kind(*action, &state) != Kind::Other {
                            self.leads.push(reached);
                        }
                    }
                    Err(fault) => {
                        broken = Some((id, Some(*action), fault));
                        break 'search;
                    }
                }
            }
        }
        self.begins.push(self.leads.len());
        for (action, times) in fired {
            let name = format!("{action:?}");
            *self.fired.entry(name.split(['(', ' ']).next().unwrap_or_default().to_owned()).or_default() += times;
        }
        broken
    }

    fn visit(&mut self, state: State, from: u32, by: Action) -> u32 {
        let mut hasher = Wide::default();
        state.hash(&mut hasher);
        let next = self.parents.len() as u32;
        match self.found.entry(hasher.wide()) {
            std::collections::hash_map::Entry::Occupied(at) => *at.get(),
            std::collections::hash_map::Entry::Vacant(at) => {
                at.insert(next);
                self.parents.push((from, by));
                self.queue.push_back((next, state));
                next
            }
        }
    }

    /// A state from which no fault-free continuation ends the rotation, where the search was complete.
    fn stuck(&self) -> Option<Trace> {
        if !self.setup.liveness || !self.queue.is_empty() {
            return None;
        }
        let states = self.parents.len();
        let mut counts = vec![0usize; states + 1];
        self.leads.iter().for_each(|to| counts[*to as usize + 1] += 1);
        (0..states).for_each(|at| counts[at + 1] += counts[at]);
        let mut into = vec![0u32; self.leads.len()];
        let mut fill = counts.clone();
        for from in 0..states {
            for to in &self.leads[self.begins[from]..self.begins[from + 1]] {
                into[fill[*to as usize]] = from as u32;
                fill[*to as usize] += 1;
            }
        }
        let mut ends = vec![false; states];
        let mut queue = self.quiet.clone();
        queue.iter().for_each(|id| ends[*id as usize] = true);
        while let Some(id) = queue.pop() {
            for from in &into[counts[id as usize]..counts[id as usize + 1]] {
                if !std::mem::replace(&mut ends[*from as usize], true) {
                    queue.push(*from);
                }
            }
        }
        let stuck = ends.iter().position(|ends| !ends)?;
        let count = ends.iter().filter(|ends| !**ends).count();
        let what = format!("{count} of {states} states can never end");
        Some(self.trace(stuck as u32, None, Broken { property: Property::Liveness, what }))
    }

    /// Walks the shortest way again, state by state.
    fn trace(&self, to: u32, last: Option<Action>, broken: Broken) -> Trace {
        let mut way: Vec<Action> = last.into_iter().collect();
        let mut at = to;
        while at != 0 {
            let (from, by) = self.parents[at as usize];
            way.push(by);
            at = from;
        }
        way.reverse();
        let mut state = self.setup.start();
        let mut names = Names::new(canonical(&mut state, self.setup));
        let mut lines = vec![format!("{:>3} {:<24} {}", 0, "start", show(&state, &names, self.setup))];
        for (number, action) in way.iter().enumerate() {
            let name = names.action(*action);
            let what = match apply(&state, *action, self.setup) {
                Ok(Some(mut next)) => {
                    names.fresh(&state, &next);
                    names.rename(canonical(&mut next, self.setup));
                    state = next;
                    show(&state, &names, self.setup)
                }
                Ok(None) => "refused".into(),
                Err(broken) => format!("BROKEN: {}", broken.what),
            };
            lines.push(format!("{:>3} {name:<24} {what}", number + 1));
        }
        Trace { broken, lines }
    }
}

/// What a reader calls the kids: x is the first, and every fresh one gets the next letter.
struct Names {
    letters: [char; KIDS],
    next: usize,
}

impl Names {
    fn new(to: [u8; KIDS]) -> Names {
        let mut names = Names { letters: ['x', '-', '-', '-', '-'], next: 0 };
        names.rename(to);
        names
    }

    fn rename(&mut self, to: [u8; KIDS]) {
        let old = self.letters;
        to.iter().enumerate().for_each(|(from, to)| self.letters[usize::from(*to)] = old[from]);
    }

    fn fresh(&mut self, before: &State, after: &State) {
        for new in each(mask(&after.record.accepted) & !mask(&before.record.accepted)) {
            if before.world.known & (1 << new) == 0 && before.world.keystore.kids & (1 << new) == 0 {
                self.letters[usize::from(new)] = FRESH.chars().nth(self.next % FRESH.len()).unwrap_or('?');
                self.next += 1;
            }
        }
    }

    fn of(&self, mask: Mask) -> String {
        let mut letters: Vec<char> = each(mask).map(|k| self.letters[usize::from(k)]).collect();
        letters.sort_unstable();
        letters.iter().collect()
    }

    fn action(&self, action: Action) -> String {
        use Action::*;
        match action {
            PatchLands(k) => format!("PATCH({}) is applied", self.of(1 << k)),
            PatchVanishes(k) => format!("PATCH({}) has ended", self.of(1 << k)),
            Seen(k) => format!("seen: {}", self.of(1 << k)),
            SeenProbe(k) => format!("seen: a probe, {}", self.of(1 << k)),
            SeenRefused(k) => format!("seen refused: {}", self.of(1 << k)),
            ElderEnds(k) | YoungerEnds(k) => format!("delivery {} ends", self.of(1 << k)),
            Reaccept(k) => format!("Reaccept {}", self.of(1 << k)),
            Tick { observed: true } => "Tick, observed".into(),
            Tick { observed: false } => "Tick".into(),
            other => format!("{other:?}"),
        }
    }
}

const FRESH: &str = "yzuvwabcdefghijklmnopqrst";

impl Trace {
    pub fn print(&self) -> String {
        let mut text = format!("{:?}: {}\n", self.broken.property, self.broken.what);
        for line in &self.lines {
            let _ = writeln!(text, "{line}");
        }
        text
    }
}

/// One line: the phase, then DialNexa, the requests under way, the keystore, the replicas, the deliveries.
fn show(state: &State, names: &Names, setup: &Setup) -> String {
    let kids = |mask| names.of(mask);
    let one = |kid| kids(bit_of(kid));
    let (r, v, w) = (&state.record, &state.volatile, &state.world);
    let target = r.phase.rotation().map_or(String::new(), |rotation| format!(" to {}", one(rotation.target)));
    let current = r.current.kid().map_or("?".into(), one);
    let held = if state.held() { "held " } else { "" };
    let open: Vec<String> = r.open.iter().map(|open| format!("{}{}", one(open.kid), open.left)).collect();
    let replicas: Vec<String> =
        w.replicas[..setup.replicas].iter().map(|c| format!("{}@{}", kids(c.kids), c.generation)).collect();
    format!(
        "{held}{}{target} from {current} set {}@{} open [{}] | P={} net {} K={}@{} C={} flying {}/{} {:?} {:?}",
        r.phase.underlying().name(),
        kids(mask(&r.accepted)),
        r.generation,
        open.join(" "),
        kids(1 << w.provider),
        kids(w.in_net()),
        kids(w.keystore.kids),
        w.keystore.generation,
        replicas.join(" "),
        kids(w.elder),
        kids(w.younger),
        v.keystore,
        v.line,
    )
}

/// Two mixed lanes of 64 bits: among a hundred million states two that share a fingerprint are not to be expected.
struct Wide(u64, u64);

impl Default for Wide {
    fn default() -> Wide {
        Wide(0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03)
    }
}

impl Wide {
    fn mix(&mut self, word: u64) {
        let one = u128::from(self.0 ^ word).wrapping_mul(0xa076_1d64_78bd_642f_e703_7ed1_a0b4_28db);
        let two = u128::from(self.1 ^ word.rotate_left(32)).wrapping_mul(0x8ebc_6af0_9c88_c6e3_5899_65cc_7537_4cc3);
        self.0 = (one as u64) ^ ((one >> 64) as u64) ^ self.1;
        self.1 = (two as u64) ^ ((two >> 64) as u64);
    }

    fn wide(mut self) -> u128 {
        self.mix(0x2d35_8dcc_aa6c_78a5);
        u128::from(self.0) << 64 | u128::from(self.1)
    }
}

impl Hasher for Wide {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0u8; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let word = u64::from_le_bytes(word);
            // Most of a key id is empty.
            if word != 0 {
                self.mix(word ^ (chunk.len() as u64) << 56);
            }
        }
    }

    fn write_u8(&mut self, word: u8) {
        self.mix(u64::from(word) + 1);
    }

    fn write_u64(&mut self, word: u64) {
        self.mix(word);
    }

    fn write_usize(&mut self, word: usize) {
        self.mix(word as u64);
    }
}

/// The fingerprints are hashes already.
#[derive(Default)]
struct Ready(u64);

impl Hasher for Ready {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut word = [0u8; 8];
        let half = bytes.len().min(8);
        word[..half].copy_from_slice(&bytes[..half]);
        self.0 = u64::from_le_bytes(word);
    }

    fn write_u128(&mut self, word: u128) {
        self.0 = word as u64;
    }
}
