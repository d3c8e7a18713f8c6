//! Somebody who should answer does not, or two who should agree do not.

use std::fs;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_gives_no_clear_answer() {
    let (world, _daemon) = confirmed(|_| {}).await;
    traffic(&world, false);
    world.sandbox.handle().inject(Injection::sticky(Fault::ErrorBeforeApply));
    let done = world.run(&["rotate-now", "billing", "--until", "pushed", "--timeout", "60s"]).await;
    assert!(done.status.success(), "{}", said(&done));
    let told = explained(&world, "ambiguous").await;
    assert!(told.contains("both stay accepted"), "{told}");
    world.sandbox.handle().clear_faults();
    traffic(&world, true);
    world.until("the end", LIMIT, |status| status["completed"] == 1).await;
    world.nothing_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_cannot_be_reached() {
    let world = World::start(|_| {}).await;
    // The way to DialNexa, which somebody cuts.
    let way = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = way.local_addr().expect("an address");
    let text = fs::read_to_string(&world.config).expect("the configuration");
    let base = world.sandbox.base_url();
    let provider = base.trim_start_matches("http://").split('/').next().unwrap_or_default().to_owned();
    assert!(text.contains(&provider), "{text}");
    fs::write(&world.config, text.replace(&provider, &address.to_string())).expect("written");
    let leading = tokio::spawn(async move {
        let mut ways = tokio::task::JoinSet::new();
        while let Ok((mut one, _)) = way.accept().await {
            let provider = provider.clone();
            ways.spawn(async move {
                let mut other = tokio::net::TcpStream::connect(provider).await.expect("the provider");
                let _ = tokio::io::copy_bidirectional(&mut one, &mut other).await;
            });
        }
    });
    world.adopt().await;
    let _daemon = world.daemon();
    world.until("confirmed", LIMIT, |status| status["confirmed"] == true).await;
    let down = world.sandbox.consumer.replicas()[1].clone();
    down.behave(Behaviour::NeverReloads);
    let done = world.run(&["rotate-now", "billing", "--timeout", "1s"]).await;
    assert_eq!(done.status.code(), Some(3), "{}", said(&done));
    leading.abort();
    let _ = leading.await;
    down.behave(Behaviour::Good);
    let told = explained(&world, "provider-unreachable").await;
    assert!(told.contains("tried again"), "{told}");
    assert!(world.sandbox.handle().patches().is_empty());
    world.nothing_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_down_and_a_keystore_that_cannot_be_read() {
    let (world, _daemon) = confirmed(|_| {}).await;
    traffic(&world, false);
    assert!(world.sandbox.handle().settled(LIMIT).await);
    let down = world.sandbox.consumer.replicas()[1].clone();
    down.behave(Behaviour::Down);
    let done = world.run(&["rotate-now", "billing", "--timeout", "1s"]).await;
    assert_eq!(done.status.code(), Some(3), "{}", said(&done));
    let told = explained(&world, "replica-unreachable").await;
    assert!(told.contains(&down.url()), "{told}");
    assert!(world.sandbox.handle().patches().is_empty());
    down.behave(Behaviour::Good);
    traffic(&world, true);
    world.until("the end", LIMIT, |status| status["completed"] == 1).await;
    traffic(&world, false);
    assert!(world.sandbox.handle().settled(LIMIT).await);

    // A directory in the file's place: no right of root's helps there.
    let aside = world.sandbox.keystore.with_extension("aside");
    fs::rename(&world.sandbox.keystore, &aside).expect("aside");
    fs::create_dir(&world.sandbox.keystore).expect("a directory");
    let done = world.run(&["rotate-now", "billing", "--timeout", "1s"]).await;
    assert_eq!(done.status.code(), Some(3), "{}", said(&done));
    let told = explained(&world, "keystore-unreachable").await;
    assert!(told.contains("nothing is sent meanwhile"), "{told}");
    fs::remove_dir(&world.sandbox.keystore).expect("removed");
    fs::rename(&aside, &world.sandbox.keystore).expect("back");
    traffic(&world, true);
    world.until("the end", LIMIT, |status| status["completed"] == 2).await;
    world.nothing_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_nothing_has_verified_yet_and_two_doors_that_say_different_things() {
    let world = World::start(|options| (options.per_second, options.mirror) = (0.0, true)).await;
    world.adopt().await;
    let _daemon = world.daemon();
    let told = explained(&world, "unconfirmed").await;
    assert!(told.contains("a real call is the quickest proof"), "{told}");
    world.sandbox.handle().traffic(&world.sandbox.webhook_id, 10.0);
    world.until("confirmed", LIMIT, |status| status["confirmed"] == true).await;
    rotated(&world).await;
    let old = initial_secret(&world);
    // The consumer reports what is signed with the current secret; somebody mirrors an endpoint where the old one is in use.
    world.sandbox.consumer.tell(true, false);
    let began = Instant::now();
    let mut nth = 0;
    loop {
        let body = format!("{{\"event\":\"call.completed\",\"n\":{nth}}}");
        tap(&world, "mirror/1", "x-nexa-signature", &signature::sign(&old, body.as_bytes()), &body).await;
        nth += 1;
        let told = said(&world.run(&["explain", "billing"]).await);
        if let Some(line) = told.lines().find(|line| line.trim_start().starts_with("doors-disagree: ")) {
            assert!(line.contains("the tap door shows") && line.contains("under a retired secret"), "{line}");
            break;
        }
        assert!(began.elapsed() < LIMIT, "never told:\n{told}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    world.nothing_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_replicas_that_names_nobody() {
    let world = World::start(|_| {}).await;
    let text = fs::read_to_string(&world.config).expect("the configuration");
    let list = world.dir.path().join("replicas");
    fs::write(&list, "# nobody\n").expect("written");
    let lines = text.lines().map(|line| match line.starts_with("preflight = ") {
        true => format!("preflight = {{ probe = [\"http://{{replica}}/hook\"], replicas = \"file:{}\" }}", list.display()),
        false => line.to_owned(),
    });
    fs::write(&world.config, lines.collect::<Vec<_>>().join("\n")).expect("written");
    world.adopt().await;
    let _daemon = world.daemon();
    world.until("confirmed", LIMIT, |status| status["confirmed"] == true).await;
    let done = world.run(&["rotate-now", "billing", "--timeout", "1s"]).await;
    assert_eq!(done.status.code(), Some(3), "{}", said(&done));
    let told = explained(&world, "no-replica").await;
    assert!(told.contains("Nothing is sent"), "{told}");
    assert!(world.sandbox.handle().patches().is_empty());
    world.nothing_lost().await;
}
