//! The imports of `src/` point one way, which one package with no crate walls cannot hold by itself.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Upstream first, as in `src/lib.rs`. Modules of one row do not know each other; a row knows the rows above it.
const ORDER: &[&[&str]] = &[
    &["boundary", "mutants", "secret"],
    &["rotation"],
    &["config"],
    &["dialnexa", "evidence", "keystore", "schedule", "store"],
    &["gateway", "steps"],
    &["daemon"],
    &["admin"],
    &["cli"],
];

/// Uses the public API of all, and only the demo, which is a command, may use it.
const SANDBOX: &str = "sandbox";

#[test]
fn imports_point_one_way() {
    let mut wrong = Vec::new();
    for file in sources() {
        let Some(module) = file.module() else { continue };
        for import in file.imports() {
            if !allowed(&module, &import) {
                wrong.push(format!("{}: {module} imports crate::{import}", file.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "against the order of src/lib.rs:\n{}", wrong.join("\n"));
}

#[test]
fn every_module_of_the_library_has_its_place_in_the_order() {
    let lib = fs::read_to_string(root().join("lib.rs")).expect("src/lib.rs");
    let declared: BTreeSet<_> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).map(str::to_owned).collect();
    let placed: BTreeSet<_> = ORDER.iter().copied().flatten().copied().chain([SANDBOX]).map(str::to_owned).collect();
    assert_eq!(declared, placed);
}

/// What the core must not have: a clock, the network, randomness, waiting, and the bytes of a secret.
#[test]
fn the_core_stays_pure() {
    const BANNED: &[&str] = &[
        "std::time",
        "std::net",
        "std::fs",
        "std::thread",
        "std::env",
        "tokio",
        "rand",
        "chrono",
        "getrandom",
        "async",
        "Secret",
    ];
    let mut wrong = Vec::new();
    for file in sources().into_iter().filter(|file| file.module().as_deref() == Some("rotation")) {
        for (at, line) in file.code() {
            for banned in BANNED.iter().filter(|banned| has_word(line, banned)) {
                wrong.push(format!("{}:{at}: {banned}", file.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "src/rotation decides and does nothing:\n{}", wrong.join("\n"));
}

/// Such a file has no subject, so everything ends up in it. A thing lives with its only noun.
#[test]
fn no_file_is_named_after_nothing() {
    const BANNED: &[&str] = &["utils", "util", "common", "helpers", "helper", "misc"];
    let named: Vec<_> = sources()
        .into_iter()
        .map(|file| file.path)
        .filter(|path| path.with_extension("").components().any(|part| BANNED.iter().any(|banned| part.as_os_str() == *banned)))
        .collect();
    assert!(named.is_empty(), "{named:?}");
}

#[test]
fn the_reader_of_imports_sees_paths_and_groups_and_no_comments() {
    let text =
        "use crate::{\n    config::{self, Config},\n    store::Store,\n};\n// crate::admin\nfn f() { crate::daemon::go() }";
    let file = Source { path: PathBuf::from("x.rs"), text: text.to_owned() };
    assert_eq!(file.imports().into_iter().collect::<Vec<_>>(), ["config", "daemon", "store"]);
}

#[test]
fn the_order_bites() {
    assert!(allowed("steps", "keystore") && allowed("cli", "admin") && allowed("store", "rotation") && allowed("store", "store"));
    assert!(!allowed("store", "keystore") && !allowed("rotation", "config") && !allowed("daemon", "sandbox"));
    assert!(!allowed("admin", "cli") && allowed("sandbox", "daemon") && allowed("cli", "sandbox"));
}

fn allowed(module: &str, import: &str) -> bool {
    if module == import || module == SANDBOX {
        return true;
    }
    if import == SANDBOX {
        return module == "cli";
    }
    match (row(module), row(import)) {
        (Some(module), Some(import)) => import < module,
        // A macro or an item of the crate's root.
        _ => true,
    }
}

fn row(module: &str) -> Option<usize> {
    ORDER.iter().position(|row| row.contains(&module))
}

struct Source {
    /// Below `src`.
    path: PathBuf,
    text: String,
}

impl Source {
    /// The top-level module; `None` for `lib.rs` and `main.rs`, which may name anything.
    fn module(&self) -> Option<String> {
        let first = self.path.components().next()?.as_os_str().to_str()?;
        let name = first.strip_suffix(".rs").unwrap_or(first);
        (!matches!(name, "lib" | "main")).then(|| name.to_owned())
    }

    /// Lines with their numbers, without those that are comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines()).filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// The modules named directly after `crate::`, alone or in a group.
    fn imports(&self) -> BTreeSet<String> {
        let code: String = self.code().flat_map(|(_, line)| [line, "\n"]).collect();
        let mut found = BTreeSet::new();
        for (at, prefix) in code.match_indices("crate::") {
            let rest = &code[at + prefix.len()..];
            match rest.strip_prefix('{') {
                Some(group) => found.extend(group_heads(group)),
                None => found.extend(head(rest)),
            }
        }
        found
    }
}

/// The first name of each entry of a group, whose opening brace is already read.
fn group_heads(group: &str) -> Vec<String> {
    let (mut depth, mut heads, mut begins) = (1, Vec::new(), true);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => begins = true,
            _ if begins && !letter.is_whitespace() => {
                heads.extend(head(&group[at..]));
                begins = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    heads
}

fn head(path: &str) -> Option<String> {
    let end = path.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(path.len());
    (end > 0).then(|| path[..end].to_owned())
}

fn has_word(line: &str, word: &str) -> bool {
    let part = |letter: char| letter.is_alphanumeric() || letter == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(part) && !line[at + word.len()..].chars().next().is_some_and(part)
    })
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    let mut open = vec![root()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).expect("a directory of src") {
            let path = entry.expect("an entry of src").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                found.push(Source { path: path.strip_prefix(root()).expect("below src").to_owned(), text });
            }
        }
    }
    assert!(found.len() > 50, "the sources were not found");
    found
}
