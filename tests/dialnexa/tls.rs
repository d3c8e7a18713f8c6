use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use hookturn::{
    dialnexa::{Client, Provider, ProviderError, Settings},
    rotation::PatchAnswer::{Ambiguous, Applied},
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    AMPLE, ID, SECRET, made,
    peer::{Act, Peer},
    secret, settings,
};

const WHOLE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 54\r\n\r\n{\"id\":\"whk_c9v3nz8rq4pm\",\"url\":\"https://x.example/ab\"}";
const UNBOUNDED: &str = "HTTP/1.1 200 OK\r\n\r\n{\"id\":\"whk_c9v3nz8rq4pm\",\"url\":\"https://x.example/ab\"}";

/// Made for these tests, valid for 127.0.0.1 and localhost; it guards nothing.
fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dialnexa")).join(name)
}

struct Server {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

/// Answers each connection's first read with `answer`, then drops the socket, with or without a proper goodbye.
async fn server(answer: &'static str, goodbye: bool) -> Server {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cert = CertificateDer::from_pem_file(fixture("server.pem")).expect("certificate");
    let key = PrivateKeyDer::from_pem_file(fixture("server.key")).expect("key");
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![cert], key).expect("config");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let url = format!("https://{}/v1", listener.local_addr().expect("address"));
    let requests: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = requests.clone();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(tcp).await else { continue };
            let mut some = vec![0; 8192];
            let got = stream.read(&mut some).await.unwrap_or(0);
            log.lock().expect("lock").push(String::from_utf8_lossy(&some[..got]).into_owned());
            stream.write_all(answer.as_bytes()).await.ok();
            stream.flush().await.ok();
            if goodbye {
                stream.shutdown().await.ok();
            }
        }
    });
    Server { url, requests }
}

fn trusting(server: &Server) -> Client {
    made(Settings { ca_file: Some(fixture("server.pem")), ..settings(&server.url) }).unwrap_or_else(|e| panic!("{e}"))
}

#[tokio::test]
async fn with_the_right_bundle_both_ways_work_over_tls() {
    let server = server(WHOLE, true).await;
    let client = trusting(&server);
    assert_eq!(client.get(ID).await.unwrap_or_else(|e| panic!("{e}")).id, ID);
    let line = client.connect().await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(line.patch_secret(ID, &secret(SECRET), AMPLE).await.answer, Applied);
    assert_eq!(server.requests.lock().expect("lock").len(), 2);
}

#[tokio::test]
async fn a_server_that_the_bundle_does_not_vouch_for_hears_nothing() {
    let server = server(WHOLE, true).await;
    let strange = fixture("stranger.pem");
    let client = made(Settings { ca_file: Some(strange), ..settings(&server.url) }).unwrap_or_else(|e| panic!("{e}"));
    let error = client.connect().await.err().expect("not trusted");
    assert!(matches!(&error, ProviderError::Unreachable(why) if why.contains("TLS")), "{error}");
    assert!(matches!(client.get(ID).await, Err(ProviderError::Unreachable(_))));
    assert!(server.requests.lock().expect("lock").is_empty());
}

#[tokio::test]
async fn a_tls_connection_that_ends_without_goodbye_may_have_lost_the_end_of_the_answer() {
    let server = server(UNBOUNDED, false).await;
    let line = trusting(&server).connect().await.unwrap_or_else(|e| panic!("{e}"));
    let report = line.patch_secret(ID, &secret(SECRET), AMPLE).await;
    assert_eq!(report.answer, Ambiguous { wait: 0 }, "{}", report.text);
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_given_up() {
    let peer = Peer::start(Act::Listen).await;
    let hasty = Settings {
        ca_file: Some(fixture("server.pem")),
        timeout: Duration::from_millis(100),
        ..settings(&peer.url.replace("http:", "https:"))
    };
    let error = made(hasty).unwrap_or_else(|e| panic!("{e}")).connect().await.err().expect("no handshake");
    assert!(matches!(&error, ProviderError::Unreachable(why) if why.contains("no connection within 100ms")), "{error}");
}

#[test]
fn a_file_without_certificates_is_named() {
    let wrong = Settings { ca_file: Some(fixture("server.key")), ..settings("https://localhost") };
    let error = made(wrong).err().expect("no certificate").to_string();
    assert!(error.contains("server.key") && error.contains("no certificate"), "{error}");
}
