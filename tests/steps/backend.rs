//! One of each kind of keystore and store, and what a consumer reads from it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use hookturn::{
    config::{self, Command, Format},
    keystore::{ExecKeystore, FileKeystore, Keystore, KeystoreError, MemoryKeystore},
    secret::{Kid, Secret},
    store::{Memory, Opening, Sqlite, Store, StoreError},
};

pub const ID: &str = "whk_c9v3nz8rq4pm";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeystoreKind {
    Json,
    Env,
    Exec,
    Memory,
}

impl KeystoreKind {
    pub const ALL: [KeystoreKind; 4] = [KeystoreKind::Json, KeystoreKind::Env, KeystoreKind::Exec, KeystoreKind::Memory];

    /// What stands for a configured keystore here: a new kind of it does not compile before it has its own.
    pub fn of(keystore: &config::Keystore) -> KeystoreKind {
        match keystore {
            config::Keystore::File { format: Format::Json, .. } => KeystoreKind::Json,
            config::Keystore::File { format: Format::Env, .. } => KeystoreKind::Env,
            config::Keystore::Exec { .. } => KeystoreKind::Exec,
        }
    }

    /// The line of the configuration. The one in memory has none of its own.
    pub fn configured(self, dir: &std::path::Path) -> String {
        let path = dir.join("secrets");
        match self {
            KeystoreKind::Json | KeystoreKind::Memory => format!(r#"{{ kind = "file", path = "{}" }}"#, path.display()),
            KeystoreKind::Env => format!(r#"{{ kind = "file", path = "{}", format = "env" }}"#, path.display()),
            KeystoreKind::Exec => r#"{ kind = "exec", command = ["/bin/sh", "keystore.sh"] }"#.to_owned(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    Sqlite,
    Memory,
}

impl StoreKind {
    pub const ALL: [StoreKind; 2] = [StoreKind::Sqlite, StoreKind::Memory];
}

/// A keystore, and a way to its values that does not go through it.
pub struct Shelf {
    pub keystore: Arc<dyn Keystore>,
    /// Where the program keeps what it was given.
    kept: Option<PathBuf>,
}

impl Shelf {
    pub fn new(kind: KeystoreKind, dir: &std::path::Path) -> Shelf {
        let file = |format| FileKeystore::new(dir.join("secrets"), format, None, ID.to_owned());
        match kind {
            KeystoreKind::Json => Shelf { keystore: Arc::new(file(Format::Json)), kept: None },
            KeystoreKind::Env => Shelf { keystore: Arc::new(file(Format::Env)), kept: None },
            KeystoreKind::Memory => Shelf { keystore: Arc::new(MemoryKeystore::new()), kept: None },
            KeystoreKind::Exec => {
                let (script, kept) = (dir.join("keystore.sh"), dir.join("kept"));
                std::fs::write(&script, PROGRAM).expect("write the program");
                let argv = ["/bin/sh", &script.to_string_lossy(), &kept.to_string_lossy()].map(str::to_owned);
                let command = Command { argv: argv.to_vec(), timeout: Duration::from_secs(60) };
                let keystore = ExecKeystore::new(command, "billing".to_owned(), ID.to_owned(), None);
                Shelf { keystore: Arc::new(keystore), kept: Some(kept) }
            }
        }
    }

    /// Every key that a consumer accepts now.
    ///
    /// # Errors
    /// It cannot be read: only in a life that is just ending.
    pub async fn accepted(&self) -> Result<Vec<(Kid, Secret)>, KeystoreError> {
        if let Some(kept) = &self.kept {
            return Ok(std::fs::read(kept).map(|bytes| of_request(&bytes)).unwrap_or_default());
        }
        let keys = self.keystore.read().await?.map(|contents| contents.keys).unwrap_or_default();
        Ok(keys.into_iter().filter_map(|key| Some((key.kid, key.secret?))).collect())
    }
}

/// The keys of a request to the program, which it keeps as it came.
fn of_request(bytes: &[u8]) -> Vec<(Kid, Secret)> {
    let request: serde_json::Value = serde_json::from_slice(bytes).expect("whole");
    let keys = request["keys"].as_array().expect("keys");
    let text = |key: &serde_json::Value, field: &str| key[field].as_str().expect("text").to_owned();
    let of_key = |key| (Kid::parse(&text(key, "kid")).expect("a kid"), Secret::parse(&text(key, "secret")).expect("a secret"));
    keys.iter().map(of_key).collect()
}

/// What a user would write: keeps the newest request, replaced as a whole.
const PROGRAM: &str = r#"
set -eu
kept=$1
request=$(cat)
number() { printf '%s' "$1" | sed -n "s/.*\"$2\":\([0-9]*\|null\)[,}].*/\1/p"; }
answer() {
    kids=$(printf '%s' "$1" | grep -o '"kid":"[^"]*"' | sed 's/"kid"://' | tr '\n' ',')
    printf '{"generation":%s,"kids":[%s]}\n' "$(number "$1" generation)" "${kids%,}"
}
case $request in
*'"op":"read"'*) if [ -f "$kept" ]; then answer "$(cat "$kept")"; fi ;;
*)
    found=null
    if [ -f "$kept" ]; then found=$(number "$(cat "$kept")" generation); fi
    if [ "$found" != "$(number "$request" expect_generation)" ]; then
        echo "generation $found is there" >&2
        exit 9
    fi
    printf '%s' "$request" > "$kept.$$"
    mv "$kept.$$" "$kept"
    answer "$request" ;;
esac
"#;

/// A store that is opened again in each life.
pub enum Cellar {
    Sqlite(PathBuf),
    Memory(Memory),
}

impl Cellar {
    pub fn new(kind: StoreKind, dir: &std::path::Path) -> Cellar {
        match kind {
            StoreKind::Sqlite => Cellar::Sqlite(dir.join("hookturn.db")),
            StoreKind::Memory => Cellar::Memory(Memory::new()),
        }
    }

    /// A life that has just ended may still hold the lock for an instant.
    pub async fn open(&self) -> Arc<dyn Store> {
        let path = match self {
            Cellar::Memory(memory) => return Arc::new(memory.reopen()),
            Cellar::Sqlite(path) => path,
        };
        for _ in 0..200 {
            match Sqlite::open(path, Opening { command: "test".to_owned(), at: 0 }).await {
                Err(StoreError::Held { .. }) => tokio::time::sleep(Duration::from_millis(50)).await,
                opened => return Arc::new(opened.expect("a store")),
            }
        }
        panic!("the store is held for ever");
    }
}
