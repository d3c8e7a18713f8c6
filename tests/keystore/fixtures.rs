//! One empty keystore of each kind, and contents to put there.

use std::{path::PathBuf, sync::Arc, time::Duration};

use hookturn::{
    config::{Command, Format},
    keystore::{Contents, ExecKeystore, FileKeystore, Key, KeyState, Keystore, MemoryKeystore},
    secret::{Kid, Secret},
};
use tempfile::TempDir;

pub const ID: &str = "whk_c9v3nz8rq4pm";

/// A keystore and what has to live as long.
pub struct Fixture {
    pub keystore: Arc<dyn Keystore>,
    /// Whether values are given back.
    pub shows_values: bool,
    _dir: Option<TempDir>,
}

pub fn memory() -> Fixture {
    Fixture { keystore: Arc::new(MemoryKeystore::new()), shows_values: true, _dir: None }
}

pub fn memory_with_two_slots() -> Fixture {
    Fixture { keystore: Arc::new(MemoryKeystore::with_slots(2)), shows_values: true, _dir: None }
}

pub fn json_file() -> Fixture {
    file(Format::Json)
}

pub fn env_file() -> Fixture {
    file(Format::Env)
}

fn file(format: Format) -> Fixture {
    let dir = tempfile::tempdir().expect("a directory");
    let keystore = FileKeystore::new(path(&dir), format, None, ID.to_owned());
    Fixture { keystore: Arc::new(keystore), shows_values: true, _dir: Some(dir) }
}

pub fn program() -> Fixture {
    let dir = tempfile::tempdir().expect("a directory");
    let script = dir.path().join("keystore.sh");
    std::fs::write(&script, PROGRAM).expect("write the program");
    let argv = ["/bin/sh", &script.to_string_lossy(), &dir.path().join("kept").to_string_lossy()].map(str::to_owned);
    let command = Command { argv: argv.to_vec(), timeout: Duration::from_secs(60) };
    let keystore = ExecKeystore::new(command, "billing".to_owned(), ID.to_owned(), Some(3));
    Fixture { keystore: Arc::new(keystore), shows_values: false, _dir: Some(dir) }
}

/// What a user would write: keeps the request beside a directory that serves as the lock.
pub const PROGRAM: &str = r#"
set -eu
kept=$1
request=$(cat)
number() { printf '%s' "$1" | sed -n "s/.*\"$2\":\([0-9]*\|null\)[,}].*/\1/p"; }
answer() {
    kids=$(printf '%s' "$1" | grep -o '"kid":"[^"]*"' | sed 's/"kid"://' | tr '\n' ',')
    printf '{"generation":%s,"kids":[%s]}\n' "$(number "$1" generation)" "${kids%,}"
}
case $request in
*'"op":"read"'*)
    if [ -f "$kept" ]; then answer "$(cat "$kept")"; fi ;;
*'"op":"write"'*)
    until mkdir "$kept.lock" 2>/dev/null; do sleep 0.01; done
    trap 'rmdir "$kept.lock"' EXIT
    found=null
    if [ -f "$kept" ]; then found=$(number "$(cat "$kept")" generation); fi
    if [ "$found" != "$(number "$request" expect_generation)" ]; then
        echo "generation $found is there" >&2
        exit 9
    fi
    printf '%s' "$request" > "$kept.new"
    mv "$kept.new" "$kept"
    answer "$request" ;;
*) echo "unknown request" >&2; exit 1 ;;
esac
"#;

pub fn path(dir: &TempDir) -> PathBuf {
    dir.path().join("secrets.json")
}

/// A content of the given kids: the first is current, the others pending. A kid always has the same secret.
pub fn contents(generation: u64, kids: &[&str]) -> Contents {
    let keys = kids.iter().enumerate().map(|(at, kid)| Key {
        kid: Kid::parse(kid).expect("a kid"),
        state: if at == 0 { KeyState::Current } else { KeyState::Pending },
        secret: Secret::parse(&format!("whsec_canary-{kid}")).ok(),
    });
    Contents { generation, keys: keys.collect() }
}

pub fn kids(contents: &Contents) -> Vec<String> {
    let mut kids: Vec<_> = contents.keys.iter().map(|key| key.kid.to_string()).collect();
    kids.sort();
    kids
}

/// Generation and kids of what is there.
pub async fn there(keystore: &dyn Keystore) -> Option<(u64, Vec<String>)> {
    keystore.read().await.expect("read").map(|found| (found.generation, kids(&found)))
}

/// What [`there`] gives for these.
pub fn these(generation: u64, kids: &[&str]) -> Option<(u64, Vec<String>)> {
    Some((generation, self::kids(&contents(generation, kids))))
}
