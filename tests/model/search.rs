//! Breadth first through everything that can happen, so that the first way found to break a property is a shortest one.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    hash::{BuildHasherDefault, Hash},
    mem::Discriminant,
    time::{Duration, Instant},
};

use hookturn::rotation::{Event, Note, Step};

use super::{
    action::{Action, Kind, enabled, kind},
    apply::{Witness, apply},
    canon::canonical,
    check::{self, Broken, Property},
    hashing::{Ready, Wide},
    setup::Setup,
    trace::Trace,
    world::State,
};

/// What a search came to.
pub struct Outcome {
    pub states: usize,
    pub edges: usize,
    pub depth: usize,
    pub complete: bool,
    pub took: Duration,
    pub fired: Fired,
    pub broken: Option<Trace>,
}

/// What has happened at least once.
#[derive(Debug, Clone, Default)]
pub struct Fired {
    pub actions: BTreeMap<&'static str, usize>,
    /// Phase before, event, phase after.
    pub transitions: BTreeSet<(&'static str, &'static str, &'static str)>,
    /// Events that the core refused: phase and event.
    pub refused: BTreeSet<(&'static str, &'static str)>,
    pub notes: BTreeSet<String>,
}

impl Fired {
    pub fn add(&mut self, other: &Fired) {
        for (name, times) in &other.actions {
            *self.actions.entry(name).or_default() += times;
        }
        self.transitions.extend(&other.transitions);
        self.refused.extend(&other.refused);
        self.notes.extend(other.notes.iter().cloned());
    }
}

type Quick = BuildHasherDefault<Wide>;

/// Keeps what it was told once.
#[derive(Default)]
struct Seen {
    transitions: HashSet<(&'static str, &'static str, &'static str), Quick>,
    refused: HashSet<(&'static str, &'static str), Quick>,
    notes: HashMap<Discriminant<Note>, String, Quick>,
}

impl Witness for Seen {
    fn saw(&mut self, before: &State, event: &Event, step: &Step) {
        self.transitions.insert((before.record.phase.name(), event.name(), step.record.phase.name()));
        for note in &step.notes {
            self.notes.entry(std::mem::discriminant(note)).or_insert_with(|| {
                let full = format!("{note:?}");
                full.split([' ', '(']).next().unwrap_or_default().to_owned()
            });
        }
    }

    fn refused(&mut self, before: &State, event: &Event) {
        self.refused.insert((before.record.phase.name(), event.name()));
    }
}

/// Follows everything that can happen under `setup`.
pub fn explore(setup: &Setup) -> Outcome {
    let began = Instant::now();
    let mut search = Search::new(setup);
    let broken = search.run();
    let broken = broken.map(|(from, last, broken)| search.trace(from, last, broken)).or_else(|| search.stuck());
    Outcome {
        states: search.parents.len(),
        edges: search.edges,
        depth: search.depth,
        complete: search.queue.is_empty(),
        took: began.elapsed(),
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
    fired: Fired,
}

/// Where a property broke: the state, and the action out of it, if it was one.
type Fault = (u32, Option<Action>, Broken);

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
            fired: Fired::default(),
        };
        let mut start = setup.start();
        canonical(&mut start, setup);
        search.visit(start, 0, Action::Poke);
        search
    }

    fn run(&mut self) -> Option<Fault> {
        let mut seen = Seen::default();
        let mut times: HashMap<Action, usize, Quick> = HashMap::default();
        let broken = self.follow(&mut seen, &mut times);
        self.begins.push(self.leads.len());
        for (action, times) in times {
            *self.fired.actions.entry(action.name()).or_default() += times;
        }
        self.fired.transitions = seen.transitions.into_iter().collect();
        self.fired.refused = seen.refused.into_iter().collect();
        self.fired.notes = seen.notes.into_values().collect();
        broken
    }

    fn follow(&mut self, seen: &mut Seen, times: &mut HashMap<Action, usize, Quick>) -> Option<Fault> {
        let mut actions = Vec::new();
        let liveness = self.setup.check.contains(&Property::Liveness);
        let loud = std::env::var_os("HOOKTURN_MODEL_LEVELS").is_some();
        let mut level_ends = 1;
        while let Some((id, state)) = self.queue.pop_front() {
            if id >= level_ends {
                (level_ends, self.depth) = (self.parents.len() as u32, self.depth + 1);
                if loud {
                    eprintln!("{}: level {}, {level_ends} states, {} waiting", self.setup.name, self.depth, self.queue.len());
                }
            }
            if let Err(broken) = check::state(&state, self.setup) {
                return Some((id, None, broken));
            }
            if self.parents.len() >= self.setup.most_states {
                self.queue.push_front((id, state));
                return None;
            }
            self.begins.push(self.leads.len());
            if state.quiescent() {
                self.quiet.push(id);
            }
            enabled(&state, self.setup, &mut actions);
            for action in &actions {
                let mut next = match apply(&state, *action, self.setup, seen) {
                    Ok(None) => continue,
                    Ok(Some(next)) => next,
                    Err(broken) => return Some((id, Some(*action), broken)),
                };
                canonical(&mut next, self.setup);
                *times.entry(*action).or_default() += 1;
                self.edges += 1;
                if next == state {
                    continue;
                }
                let reached = self.visit(next, id, *action);
                if liveness && kind(*action, &state) != Kind::Other {
                    self.leads.push(reached);
                }
            }
        }
        None
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
        if !self.setup.check.contains(&Property::Liveness) || !self.queue.is_empty() {
            return None;
        }
        let ends = self.can_end();
        let stuck = ends.iter().position(|ends| !ends)?;
        let count = ends.iter().filter(|ends| !**ends).count();
        let what = format!("{count} of {} states can never end", ends.len());
        Some(self.trace(stuck as u32, None, Broken { property: Property::Liveness, what }))
    }

    /// Walks the fault-free edges backwards from every end.
    fn can_end(&self) -> Vec<bool> {
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
        ends
    }

    fn trace(&self, to: u32, last: Option<Action>, broken: Broken) -> Trace {
        let mut way: Vec<Action> = last.into_iter().collect();
        let mut at = to;
        while at != 0 {
            let (from, by) = self.parents[at as usize];
            way.push(by);
            at = from;
        }
        way.reverse();
        Trace::walk(self.setup, &way, broken)
    }
}
