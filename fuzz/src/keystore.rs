use std::{cell::RefCell, fs, path::PathBuf};

use hookturn::{
    config::Format,
    keystore::{Contents, FileKeystore, Key, Keystore, KeystoreError},
    secret::Secret,
};
use tokio::runtime::Runtime;

const ID: &str = "whk_c9v3nz8rq4pm";

struct Bench {
    runtime: Runtime,
    dir: tempfile::TempDir,
}

thread_local! {
    static BENCH: RefCell<Option<Bench>> = const { RefCell::new(None) };
}

/// A keystore file as somebody left it, in the JSON form.
pub fn keystore_json(data: &[u8]) {
    with_file(data, "secrets.json", Format::Json);
}

/// The same with two slots.
pub fn keystore_env(data: &[u8]) {
    with_file(data, "secrets.env", Format::Env);
}

/// What is read can be written again and is read back the same; what cannot be read is left as it is, and no refusal quotes it.
fn with_file(data: &[u8], name: &str, format: Format) {
    BENCH.with_borrow_mut(|bench| {
        let bench = bench.get_or_insert_with(|| Bench {
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"),
            dir: tempfile::tempdir_in(memory()).expect("a directory"),
        });
        let path = bench.dir.path().join(name);
        fs::write(&path, data).expect("write");
        let keystore = FileKeystore::new(path.clone(), format, None, ID.to_owned());
        bench.runtime.block_on(async {
            match keystore.read().await {
                Ok(Some(contents)) => rewritten(&keystore, &contents).await,
                Ok(None) => assert!(data.trim_ascii().is_empty()),
                Err(error) => {
                    quotes_nothing(data, &error);
                    let next = Contents { generation: u64::MAX, keys: Vec::new() };
                    assert!(keystore.write(None, &next).await.is_err());
                    assert_eq!(fs::read(&path).expect("read"), data, "what could not be read was overwritten");
                }
            }
        });
    });
}

/// fsync costs nothing there.
fn memory() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

async fn rewritten(keystore: &FileKeystore, contents: &Contents) {
    assert!(contents.generation > 0);
    let fits = keystore.slots().is_none_or(|slots| contents.keys.len() <= usize::from(slots));
    assert!(fits, "more keys were read than fit");
    if contents.keys.is_empty() {
        return;
    }
    assert!(keystore.write(None, contents).await.is_ok(), "the same content again is fine");
    let next = Contents { generation: contents.generation.saturating_add(1), keys: contents.keys.clone() };
    match keystore.write(Some(contents.generation), &next).await {
        Ok(()) => {
            let back = keystore.read().await.ok().flatten().expect("what was just written");
            assert_eq!(back.generation, next.generation);
            assert_eq!(back.keys.len(), next.keys.len());
            let same = |key: &Key| {
                back.keys.iter().any(|other| other.kid == key.kid && other.state == key.state && same_secret(key, other))
            };
            assert!(next.keys.iter().all(same), "a key changed on the way");
        }
        Err(error) => panic!("what was read cannot be written: {error}"),
    }
}

fn same_secret(a: &Key, b: &Key) -> bool {
    matches!((&a.secret, &b.secret), (Some(a), Some(b)) if Secret::same_as(a, b))
}

fn quotes_nothing(data: &[u8], error: &KeystoreError) {
    super::no_signing_secret(&String::from_utf8_lossy(data), &format!("{error} {error:?}"));
}
