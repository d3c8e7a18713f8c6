//! Every way in which a step can go wrong, each on its own: what the effect's answer is, and that no secret is in it.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use hookturn::{
    config::{Config, Door, ProbeBody},
    dialnexa::{Line, PatchReport, Provider, ProviderError, Update, Webhook},
    evidence::{Facts, Ledger, Prober, Sighting},
    keystore::{Contents, Fault, Finding, Key, KeyState, Keystore, KeystoreError, MemoryKeystore},
    rotation::{Cause, Current, Inspection, KidSet, PatchAnswer, Phase, Record, Rotation, Shrinking, Verdict},
    secret::{Kid, SealingKey, Secret, Standing},
    steps::{SystemChance, Tools, Vault, generate, patch, push, retire, verify},
    store::Origin,
};

const CONFIG: &str = r#"
[dialnexa]
api_key = { env = "NONE" }
[[webhook]]
name = "billing"
id = "whk_1"
keystore = { kind = "file", path = "secrets.json" }
preflight = { probe = ["http://127.0.0.1:9/hook"] }
"#;

fn kid(name: &str) -> Kid {
    Kid::parse(name).expect("a kid")
}

fn kids(names: &[&str]) -> KidSet {
    names.iter().map(|name| kid(name)).collect()
}

fn secret(name: &str) -> Secret {
    Secret::parse(&format!("whsec_{name}")).expect("a secret")
}

fn key(name: &str, value: Option<&str>) -> Key {
    Key { kid: kid(name), state: KeyState::Current, secret: value.map(secret) }
}

/// Tools of a webhook whose store knows `k_a` and `k_b`.
fn tools(provider: impl Provider + 'static, keystore: impl Keystore + 'static) -> Tools {
    let config = Config::parse(Path::new("/etc/hookturn/hookturn.toml"), CONFIG).expect("a configuration");
    let vault = Vault::default();
    for name in ["k_a", "k_b"] {
        vault.insert(kid(name), secret(name), Origin::Generated);
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    Tools {
        config: config.webhooks[0].clone(),
        provider: Arc::new(provider),
        keystore: Box::new(keystore),
        prober: Arc::new(Prober::new(Duration::from_secs(2)).expect("a prober")),
        vault,
        sealing: Arc::new(SealingKey::generate().expect("a key")),
        chance: Arc::new(SystemChance),
        ledger: std::sync::Mutex::new(Ledger::new([0; 32], 16)),
        learned: std::sync::Mutex::default(),
    }
}

/// DialNexa that answers a GET as told, and has a line that never answers.
#[derive(Default)]
struct Told(std::sync::Mutex<Option<Result<Webhook, ProviderError>>>);

impl Told {
    fn to_say(answer: Result<Webhook, ProviderError>) -> Told {
        Told(std::sync::Mutex::new(Some(answer)))
    }
}

#[async_trait]
impl Provider for Told {
    async fn get(&self, _: &str) -> Result<Webhook, ProviderError> {
        self.0.lock().expect("lock").take().expect("asked once")
    }

    async fn list(&self) -> Result<Vec<Webhook>, ProviderError> {
        Ok(Vec::new())
    }

    async fn update(&self, _: &str, _: &Update) -> Result<Webhook, ProviderError> {
        Err(ProviderError::Unreachable("not in this test".to_owned()))
    }

    async fn connect(&self) -> Result<Box<dyn Line>, ProviderError> {
        Ok(Box::new(Dead))
    }
}

struct Dead;

#[async_trait]
impl Line for Dead {
    async fn patch_secret(self: Box<Self>, _: &str, _: &Secret, _: Duration) -> PatchReport {
        std::future::pending().await
    }
}

/// A keystore that never comes back.
struct Hanging;

#[async_trait]
impl Keystore for Hanging {
    fn slots(&self) -> Option<u8> {
        None
    }

    fn place(&self) -> String {
        "a keystore that hangs".to_owned()
    }

    async fn read(&self) -> Result<Option<Contents>, KeystoreError> {
        std::future::pending().await
    }

    async fn write(&self, _: Option<u64>, _: &Contents) -> Result<(), KeystoreError> {
        std::future::pending().await
    }

    async fn inspect(&self) -> Vec<Finding> {
        Vec::new()
    }
}

#[tokio::test]
async fn what_dialnexa_says_of_the_webhook_becomes_one_of_five_answers() {
    let message = || "no".to_owned();
    for (answer, expected) in [
        (Ok(Webhook { is_active: Some(true), ..Webhook::default() }), Inspection::Active),
        (Ok(Webhook::default()), Inspection::Active),
        (Ok(Webhook { is_active: Some(false), ..Webhook::default() }), Inspection::Inactive),
        (Err(ProviderError::NotFound { id: "whk_1".to_owned(), message: message() }), Inspection::Gone),
        (Err(ProviderError::ApiKeyRefused { status: 401, message: message() }), Inspection::ApiKeyRefused),
        (Err(ProviderError::Refused { status: 400, message: message() }), Inspection::Unreachable),
        (Err(ProviderError::Limited { wait: None, message: message() }), Inspection::Unreachable),
        (Err(ProviderError::Nonsense(message())), Inspection::Unreachable),
    ] {
        let tools = tools(Told::to_say(answer), MemoryKeystore::new());
        assert_eq!(patch::inspect(&tools).await.0, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_that_never_answers_is_given_up_and_was_perhaps_applied() {
    let tools = tools(Told::default(), MemoryKeystore::new());
    let line = patch::connect(&tools).await.expect("a line");
    let report = patch::send(&tools, line, kid("k_a"), Duration::from_secs(10)).await;
    assert_eq!(report.answer, PatchAnswer::Ambiguous { wait: 0 });
    assert_eq!(report.text, "no answer in time");
}

#[tokio::test]
async fn what_has_waited_too_long_since_its_intent_is_not_sent() {
    let tools = tools(Told::default(), MemoryKeystore::new());
    let line = patch::connect(&tools).await.expect("a line");
    let report = patch::send(&tools, line, kid("k_a"), Duration::ZERO).await;
    assert_eq!(report.answer, PatchAnswer::Ambiguous { wait: 0 });
    assert!(report.text.starts_with("not sent"), "{}", report.text);
}

/// It cannot be told from one that was sent: to call it refused might be the one mistake that loses deliveries.
#[tokio::test]
async fn a_secret_that_the_store_lost_is_not_sent_and_still_counts_as_open() {
    let tools = tools(Told::default(), MemoryKeystore::new());
    let line = patch::connect(&tools).await.expect("a line");
    let report = patch::send(&tools, line, kid("k_gone"), Duration::from_secs(10)).await;
    assert_eq!(report.answer, PatchAnswer::Ambiguous { wait: 0 });
    assert!(report.text.contains("k_gone is not in the store"));
}

#[tokio::test(start_paused = true)]
async fn a_keystore_that_hangs_is_given_up_with_its_name() {
    let tools = tools(Told::default(), Hanging);
    let write = push::write(&tools, 2, &kids(&["k_a"]), |_| KeyState::Current).await.err().expect("given up");
    let read = push::read(&tools).await.err().expect("given up");
    assert_eq!(write.to_string(), "a keystore that hangs: write: no answer within 60 s");
    assert_eq!(read.to_string(), "a keystore that hangs: read: no answer within 60 s");
}

#[tokio::test]
async fn a_key_without_a_value_in_the_store_is_never_written() {
    let keystore = MemoryKeystore::new();
    let tools = tools(Told::default(), keystore.clone());
    let refused = push::write(&tools, 2, &kids(&["k_a", "k_gone"]), |_| KeyState::Current).await.err().expect("refused");
    assert!(matches!(refused, KeystoreError::DoesNotFit { .. }) && refused.to_string().contains("k_gone"), "{refused}");
    assert!(keystore.contents().is_none(), "nothing was written");
}

#[tokio::test]
async fn each_call_of_a_write_may_fail_and_is_told_as_it_is() {
    for (failing, writes) in [(1, 0), (2, 0), (3, 1), (4, 1)] {
        let keystore = MemoryKeystore::new();
        let tools = tools(Told::default(), FailsAt { inner: keystore.clone(), at: failing, calls: 0.into() });
        let failed = push::write(&tools, 2, &kids(&["k_a", "k_b"]), |_| KeyState::Current).await;
        assert!(failed.is_err(), "call {failing}");
        assert_eq!(keystore.writes(), writes, "call {failing}");
        // Repeated, it goes through.
        let reading = push::write(&tools, 2, &kids(&["k_a", "k_b"]), |_| KeyState::Current).await.expect("then it works");
        assert_eq!((reading.found.generation, reading.found.kids), (2, kids(&["k_a", "k_b"])));
    }
}

/// Fails once, at one of its calls.
struct FailsAt {
    inner: MemoryKeystore,
    at: usize,
    calls: std::sync::atomic::AtomicUsize,
}

impl FailsAt {
    fn count(&self) {
        if self.calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1 == self.at {
            self.inner.fail_next(Fault::Refused);
        }
    }
}

#[async_trait]
impl Keystore for FailsAt {
    fn slots(&self) -> Option<u8> {
        self.inner.slots()
    }

    fn place(&self) -> String {
        self.inner.place()
    }

    async fn read(&self) -> Result<Option<Contents>, KeystoreError> {
        self.count();
        self.inner.read().await
    }

    async fn write(&self, expect: Option<u64>, next: &Contents) -> Result<(), KeystoreError> {
        self.count();
        self.inner.write(expect, next).await
    }

    async fn reload(&self) -> Result<(), KeystoreError> {
        self.count();
        self.inner.reload().await
    }

    async fn inspect(&self) -> Vec<Finding> {
        self.inner.inspect().await
    }
}

#[tokio::test]
async fn what_somebody_else_wrote_is_told_apart_and_not_written_over() {
    for (there, strangers, opaque) in [
        (vec![key("k_a", Some("k_a")), key("k_new", Some("new"))], kids(&["k_new"]), false),
        // A known key with another value, and an unknown one without any: neither can be carried over.
        (vec![key("k_a", Some("another"))], KidSet::new(), true),
        (vec![key("k_new", None)], KidSet::new(), true),
    ] {
        let keystore = MemoryKeystore::new();
        keystore.put(Contents { generation: 1, keys: there });
        let tools = tools(Told::default(), keystore.clone());
        let reading = push::write(&tools, 2, &kids(&["k_a", "k_b"]), |_| KeyState::Current).await.expect("a reading");
        assert_eq!((reading.found.generation, reading.found.strangers.clone(), reading.found.opaque), (1, strangers, opaque));
        assert_eq!(reading.strangers.len(), reading.found.strangers.len());
        assert_eq!(keystore.writes(), 0);
    }
    let keystore = MemoryKeystore::new();
    keystore.put(Contents { generation: 9, keys: vec![key("k_a", None)] });
    let tools = tools(Told::default(), keystore.clone());
    let reading = push::write(&tools, 2, &kids(&["k_a", "k_b"]), |_| KeyState::Current).await.expect("a reading");
    assert_eq!((reading.found.generation, keystore.writes()), (9, 0), "a newer one is never replaced");
}

#[tokio::test]
async fn a_probe_without_a_value_is_not_planned_and_a_replica_that_is_away_is_unreachable() {
    let tools = tools(Told::default(), MemoryKeystore::new());
    let question =
        |name: &str| push::Question { generation: 1, accept: kid(name), control: None, refuse: KidSet::new(), full: true };
    assert!(push::plan_probe(&tools, ProbeBody::Unparseable, &question("k_gone")).is_none());
    let plan = push::plan_probe(&tools, ProbeBody::Unparseable, &question("k_a")).expect("a plan");
    let booked = push::book_probe(&tools, "http://127.0.0.1:9/hook", &plan, 1);
    assert_eq!(booked.len(), plan.len());
    assert!(booked.iter().all(|row| tools.ledger.lock().expect("lock").is_probe(&row.body)), "none of them ever counts");
    let (verdict, answers) = push::send_probe(&tools, "http://127.0.0.1:9/hook", plan, true).await;
    assert_eq!(verdict, Verdict::Unreachable, "{answers}");
    assert!(!answers.contains("whsec_"));
}

#[test]
fn a_status_file_speaks_for_its_generation_alone() {
    let generations = BTreeMap::from([("web-1".to_owned(), 7)]);
    let judged = |name, wanted| push::judge_status(&generations, name, wanted).0;
    assert_eq!(judged("web-1", 7), Verdict::Accepts);
    assert_eq!(judged("web-1", 8), Verdict::Refuses);
    assert_eq!(judged("web-2", 7), Verdict::Unreachable);
}

#[test]
fn a_new_secret_is_sealed_under_its_webhook_and_opens_there_alone() {
    let tools = tools(Told::default(), MemoryKeystore::new());
    let fresh = generate::generate(&tools, 1).unwrap_or_else(|error| panic!("{error}"));
    let opened = tools.sealing.open("billing", fresh.kid, &fresh.stored.sealed).unwrap_or_else(|error| panic!("{error}"));
    assert!(opened.same_as(&fresh.secret));
    assert!(tools.sealing.open("orders", fresh.kid, &fresh.stored.sealed).is_err());
    assert!(tools.sealing.open("billing", kid("k_a"), &fresh.stored.sealed).is_err());
    assert_eq!(tools.vault.origin(kid("k_a")), Some(Origin::Generated));
    assert_eq!(tools.vault.origin(fresh.kid), None, "before its commit it is not known");
    assert_eq!(tools.vault.kid_of(&secret("k_b")), Some(kid("k_b")));
    assert_eq!(tools.vault.kid_of(&fresh.secret), None);
}

#[test]
fn a_delivery_is_new_once_and_a_probe_that_comes_back_never_counts() {
    let tools = tools(Told::default(), MemoryKeystore::new());
    for (door, word) in [(Door::Report, "report"), (Door::Tap, "tap"), (Door::Keystore, "keystore"), (Door::Gateway, "gateway")] {
        assert_eq!(door.name(), word);
    }
    let sighting = |body: u8| Sighting {
        webhook: "billing".to_owned(),
        door: Door::Report,
        kid: kid("k_a"),
        body_sha256: [body; 32],
        accepted: Some(true),
        status: Some(200),
        replica: Some("web-1".to_owned()),
        facts: Facts::default(),
    };
    let (first, evidence) = verify::weigh(&tools, &sighting(1), 7);
    assert!(first.new_body && !first.probe && evidence.door == "report" && evidence.at == 7);
    assert!(!verify::weigh(&tools, &sighting(1), 8).0.new_body);
    let digest = tools.ledger.lock().expect("lock").digest(&[2; 32]);
    tools.ledger.lock().expect("lock").note_probe(&digest);
    assert!(verify::weigh(&tools, &sighting(2), 9).0.probe);
}

#[test]
fn keys_are_labelled_for_what_they_are_to_become() {
    let config = Config::parse(Path::new("/etc/hookturn/hookturn.toml"), CONFIG).expect("a configuration");
    let mut record = Record::unadopted(config.webhooks[0].policy, 1);
    record.current = Current::Known(kid("k_a"));
    let rotation =
        Rotation { number: 1, target: kid("k_b"), cause: Cause::Demand, compromised: false, losses: 0, dropped: KidSet::new() };
    let labels = |record: &Record| ["k_a", "k_b", "k_c"].map(|name| retire::label(record, kid(name)));
    assert_eq!(labels(&record), [KeyState::Current, KeyState::Previous, KeyState::Previous]);
    record.phase = Phase::Push(rotation.clone());
    assert_eq!(labels(&record), [KeyState::Current, KeyState::Pending, KeyState::Previous]);
    record.phase = Phase::Retire(rotation, Shrinking { removed: kids(&["k_a"]), proven: true });
    assert_eq!(retire::label(&record, kid("k_b")), KeyState::Current);
}

#[tokio::test]
async fn a_keystore_without_status_files_has_no_replicas_that_report() {
    let tools = tools(Told::default(), MemoryKeystore::new());
    assert!(push::status_generations(&tools).await.is_empty());
    assert_eq!(push::Replica::StatusFile { name: "web-1".to_owned() }.name(), "web-1");
    assert_eq!(push::Replica::Probe { url: "http://h/".to_owned() }.name(), "http://h/");
    let ring = tools.vault.keyring(|known| known == kid("k_a"));
    let standings: Vec<Standing> = ring.iter().map(|(_, _, standing)| standing).collect();
    assert_eq!(standings, [Standing::Accepted, Standing::Retired]);
    assert!((0.0..1.0).contains(&tools.chance.draw()));
}

/// Answers that it has loaded generation 3 with one key.
struct Loaded;

#[async_trait]
impl hookturn::evidence::Courier for Loaded {
    async fn post(&self, _: &str, _: hookturn::evidence::PlannedRequest) -> Result<u16, &'static str> {
        Err("it is only read")
    }

    async fn get(&self, _: &str, token: Option<&Secret>) -> Result<(u16, Vec<u8>), &'static str> {
        assert!(token.is_some_and(|token| token.expose() == "a-token"));
        Ok((200, br#"{"generation":3,"keys":[{"kid":"k_a"}]}"#.to_vec()))
    }
}

#[tokio::test]
async fn a_replica_whose_token_cannot_be_read_is_not_asked() {
    let dir = tempfile::tempdir().expect("a directory");
    let token = dir.path().join("token");
    let mut tools = tools(Told::default(), MemoryKeystore::new());
    tools.config.preflight.read_back_token = Some(hookturn::config::Credential::File(token.clone()));
    tools.prober = Arc::new(Prober::over(Loaded));
    let question = push::Question { generation: 3, accept: kid("k_a"), control: None, refuse: kids(&["k_b"]), full: true };
    let (verdict, said) = push::read_back(&tools, "http://127.0.0.1:9/loaded", &question).await;
    assert_eq!(verdict, Verdict::Unreachable, "{said}");
    assert!(said.starts_with("not asked: "), "{said}");
    std::fs::write(&token, "a-token\n").expect("write");
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("chmod");
    let (verdict, said) = push::read_back(&tools, "http://127.0.0.1:9/loaded", &question).await;
    assert_eq!(verdict, Verdict::Accepts, "{said}");
    assert!(!tools.vault.redact("it has whsec_k_a in it").contains("whsec_k_a"));
}
