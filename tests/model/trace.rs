//! A way through the model, as people read it.

use super::{
    action::Action,
    apply::apply,
    canon::canonical,
    check::Broken,
    setup::Setup,
    world::{KIDS, Mask, OPAQUE, State, bit_of, each, mask},
};

/// A shortest way to break a property.
pub struct Trace {
    pub broken: Broken,
    pub steps: Vec<Told>,
}

/// One step: what happened, and what is so after it.
pub struct Told {
    pub what: String,
    pub core: String,
    pub provider: String,
    pub keystore: String,
    pub replicas: String,
    pub flying: String,
}

impl Trace {
    /// Walks the way again, state by state.
    pub fn walk(setup: &Setup, way: &[Action], broken: Broken) -> Trace {
        let mut state = setup.start();
        let mut names = Names::new(canonical(&mut state, setup));
        let mut steps = vec![show("start".into(), &state, &names)];
        for action in way {
            match apply(&state, *action, setup, &mut ()) {
                Ok(Some(mut next)) => {
                    names.fresh(&state, &next);
                    let what = names.action(*action);
                    names.rename(canonical(&mut next, setup));
                    state = next;
                    steps.push(show(what, &state, &names));
                }
                Ok(None) => unreachable!("the search took this way"),
                Err(_) => {
                    let mut last = show(names.action(*action), &state, &names);
                    last.core = "**broken**".into();
                    steps.push(last);
                }
            }
        }
        Trace { broken, steps }
    }

    /// How many things have to happen.
    pub fn len(&self) -> usize {
        self.steps.len() - 1
    }

    pub fn print(&self) -> String {
        let mut text = format!("{:?}: {}\n", self.broken.property, self.broken.what);
        for (number, step) in self.steps.iter().enumerate() {
            let Told { what, core, provider, keystore, replicas, flying } = step;
            text.push_str(&format!(
                "{number:>3} {what:<26} {core:<44} DialNexa {provider:<8} keystore {keystore:<8} replicas {replicas:<12} under way {flying}\n"
            ));
        }
        text
    }

    /// The same as a table, without the steps that change nothing which a reader could see.
    pub fn markdown(&self) -> String {
        let mut text =
            "| step | what happens | DialNexa | keystore | replicas | hookturn |\n|---|---|---|---|---|---|\n".to_owned();
        let mut before = "";
        let mut rows = Vec::new();
        for (number, step) in self.steps.iter().enumerate() {
            let Told { what, core, provider, keystore, replicas, .. } = step;
            let row = format!("{provider} | {keystore} | {replicas} | {core} |\n");
            rows.push((number, what, row));
        }
        for (number, what, row) in &rows {
            let last = *number + 1 == rows.len();
            if row != before || last || what.contains("seen") {
                text.push_str(&format!("| {number} | {what} | {row}"));
            }
            before = row;
        }
        text
    }
}

/// What a reader calls the kids: x is the first, and every fresh one gets the next letter.
struct Names {
    letters: [char; KIDS],
    next: usize,
}

const FRESH: &str = "yzuvwabcdefghijklmnopqrst";

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

    /// Whatever is spoken of for the first time gets a letter.
    fn fresh(&mut self, before: &State, after: &State) {
        let spoken = |state: &State| {
            let (r, w) = (&state.record, &state.world);
            mask(&r.accepted) | w.known | w.keystore.kids & !OPAQUE | 1 << w.provider | w.flying() | w.in_net()
        };
        for new in each(spoken(after) & !spoken(before)) {
            self.letters[usize::from(new)] = FRESH.chars().nth(self.next % FRESH.len()).unwrap_or('?');
            self.next += 1;
        }
    }

    fn of(&self, mask: Mask) -> String {
        let mut letters: Vec<char> = each(mask).map(|k| self.letters[usize::from(k)]).collect();
        letters.sort_unstable();
        let opaque = if mask & OPAQUE != 0 { "?" } else { "" };
        letters.iter().collect::<String>() + opaque
    }

    fn action(&self, action: Action) -> String {
        use Action::*;
        let one = |k: u8| self.of(1 << k);
        match action {
            PatchLands(k) => format!("PATCH({}) is applied", one(k)),
            Seen(k) => format!("delivery seen, signed {}", one(k)),
            SeenProbe(k) => format!("own probe seen, signed {}", one(k)),
            SeenOldBody(k) => format!("old body seen, signed {}", one(k)),
            SeenRefused(k) => format!("delivery refused, signed {}", one(k)),
            Reaccept(k) => format!("reaccept {}", one(k)),
            Hand(k) => format!("by hand: {}", one(k)),
            other => spaced(&format!("{other:?}")),
        }
    }
}

/// `WriteApplied` as "write applied".
fn spaced(name: &str) -> String {
    let mut text = String::new();
    for (at, letter) in name.chars().enumerate() {
        if at > 0 && letter.is_uppercase() && !text.ends_with(' ') {
            text.push(' ');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

fn show(what: String, state: &State, names: &Names) -> Told {
    let one = |kid| names.of(bit_of(kid));
    let (r, w) = (&state.record, &state.world);
    let target = r.phase.rotation().map_or(String::new(), |rotation| format!(" to {}", one(rotation.target)));
    let held = state.hold().map_or(String::new(), |hold| format!("hold {}, ", hold.name()));
    let open: String = r.open.iter().map(|open| one(open.kid)).collect();
    let open = if open.is_empty() { open } else { format!(", open {open}") };
    let core = format!("{held}{}{target}, accepts {}{open}", r.phase.underlying().name(), names.of(mask(&r.accepted)));
    let late = w.in_net() & !(1 << w.provider);
    let late = if late == 0 { String::new() } else { format!(" (late: {})", names.of(late)) };
    let replicas: Vec<String> = w.each_serving().map(|r| names.of(w.accepts(r))).collect();
    Told {
        what,
        core,
        provider: format!("{}{late}", names.of(1 << w.provider)),
        keystore: names.of(w.keystore.kids),
        replicas: replicas.join(" "),
        flying: names.of(w.flying()),
    }
}
