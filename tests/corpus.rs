//! Every fuzz target over its corpus, and over mutants of it that are the same in every run.
//!
//! `HOOKTURN_FUZZ_SECONDS=60 cargo test --release --test corpus` goes on with other mutants for so long, per target; what it
//! stumbles over is printed as bytes to be put into `fuzz/corpus`. `cargo fuzz` (docs/testing.md) is led by coverage, this is not.

#[path = "../fuzz/src/lib.rs"]
mod bodies;

use std::{
    collections::BTreeSet,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Of each file, in a plain run.
const MUTANTS: usize = 60;
/// As many for a target that goes over a socket.
const MUTANTS_OF_DOOR: usize = 6;
/// Corpora are read by people and travel with every clone.
const MAX_FILE: usize = 8 * 1024;

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<PathBuf> = files.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read(path).expect("a file"))).collect()
}

fn run(target: &str) {
    let (_, body) = bodies::TARGETS.into_iter().find(|(name, _)| *name == target).expect("a target");
    let inputs = corpus(target);
    assert!(inputs.len() > 3, "the corpus of {target} is empty");
    for (path, input) in &inputs {
        assert!(input.len() <= MAX_FILE, "{} is too long", path.display());
        tried(body, input, || path.display().to_string());
    }
    let mutants = if target == "door" { MUTANTS_OF_DOOR } else { MUTANTS };
    let mut dice = Dice(0x5eed);
    for (path, input) in &inputs {
        for _ in 0..mutants {
            let mutant = dice.mutant(input, &inputs);
            tried(body, &mutant, || format!("a mutant of {}", path.display()));
        }
    }
    let seconds = std::env::var("HOOKTURN_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let (began, mut count) = (Instant::now(), 0u64);
    while began.elapsed() < Duration::from_secs(seconds) {
        let (path, input) = &inputs[dice.below(inputs.len())];
        let mutant = dice.mutant(input, &inputs);
        tried(body, &mutant, || format!("a mutant of {}", path.display()));
        count += 1;
    }
    if count > 0 {
        println!("{target}: {count} mutants more in {seconds} s");
    }
}

fn tried(body: fn(&[u8]), input: &[u8], what: impl Fn() -> String) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(input))) {
        println!("{}: {:?}", what(), String::from_utf8_lossy(input));
        println!("as bytes: \"{}\"", input.escape_ascii());
        std::panic::resume_unwind(panic);
    }
}

/// A linear congruence: random enough to mutate with, and the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end.max(1)
    }

    /// Up to four small changes: bytes that mean something to parsers, pieces cut, doubled, or taken from a neighbour.
    fn mutant(&mut self, input: &[u8], neighbours: &[(PathBuf, Vec<u8>)]) -> Vec<u8> {
        const TOKENS: [&[u8]; 22] = [
            b"\"",
            b"\\",
            b"{",
            b"}",
            b"[",
            b"]",
            b":",
            b",",
            b"\n",
            b"\r",
            b"\0",
            b"\xff",
            b"=",
            b"#",
            b"'",
            b"-1",
            b"0",
            b"18446744073709551615",
            b"1e999",
            b"null",
            b"whsec_",
            b"\xe2\x80\xae",
        ];
        let mut bytes = input.to_vec();
        for _ in 0..=self.below(4) {
            let (at, other) = (self.below(bytes.len() + 1), self.below(bytes.len() + 1));
            let (from, to) = (at.min(other), at.max(other).min(at.min(other) + 24).min(bytes.len()));
            match self.below(6) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 => drop(bytes.drain(from..to)),
                2 => drop(bytes.splice(at..at, TOKENS[self.below(TOKENS.len())].iter().copied())),
                3 => {
                    let piece = bytes[from..to].to_vec();
                    bytes.splice(from..from, piece);
                }
                4 => bytes.truncate(at),
                _ => {
                    let neighbour = &neighbours[self.below(neighbours.len())].1;
                    let start = self.below(neighbour.len() + 1);
                    let end = (start + self.below(40)).min(neighbour.len());
                    bytes.splice(from..to, neighbour[start..end].iter().copied());
                }
            }
        }
        bytes.truncate(MAX_FILE);
        bytes
    }
}

macro_rules! targets {
    ($($target:ident)*) => {
        $(#[test]
        fn $target() {
            run(stringify!($target));
        })*

        /// A target without a test of its own, a program for `cargo fuzz` or a corpus would be one that nobody runs.
        #[test]
        fn every_target_is_tried_here_and_by_cargo_fuzz() {
            let here: BTreeSet<String> = [$(stringify!($target)),*].into_iter().map(str::to_owned).collect();
            let known: BTreeSet<String> = bodies::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
            let names = |dir: &str| -> BTreeSet<String> {
                let files = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(dir)).expect(dir);
                files.map(|entry| entry.expect("an entry").path().with_extension("").file_name().expect("a name").to_string_lossy().into_owned()).collect()
            };
            assert_eq!(here, known);
            assert_eq!(names("fuzz/fuzz_targets"), known);
            assert_eq!(names("fuzz/corpus"), known);
        }
    };
}

targets!(admin config delivery dialnexa door keystore_env keystore_json record status);
