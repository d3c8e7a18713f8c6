//! `tap.answers`: a proxy's own log lines, from which the tap learns what the consumer answered.
//!
//! nginx gives each request a random id. The mirrored copy carries it (`X-Request-ID`), and so does the access line that nginx
//! sends to a socket of ours as soon as the request is over:
//!
//! ```text
//! <190>Feb  1 03:05:00 hookturn: 7e0f3c1a9d2b4856f0e1d2c3b4a59687 200
//! ```
//!
//! Anybody on the machine may write to that socket. Only who knows the id of a copy that waits can say anything with it.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use http::HeaderMap;
use tokio::net::UnixDatagram;
use tokio_util::sync::CancellationToken;

use super::{Desk, Sighting, report::accepted};

const ID_HEADER: &str = "x-request-id";
/// DialNexa waits for an answer for a minute at the most.
const PATIENCE: Duration = Duration::from_secs(75);
/// Copies that wait for their answer, and answers that came before their copy. Beyond it nothing waits.
const WAITING_AT_MOST: usize = 4096;
const LONGEST_LINE: usize = 1024;

/// The copies that wait for the consumer's answer. Cheap to clone.
#[derive(Clone, Default)]
pub struct ProxyAnswers(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// The webhooks whose proxy tells.
    webhooks: HashSet<String>,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    waiting: HashMap<String, (Instant, Sighting)>,
    early: HashMap<String, (Instant, u16)>,
}

impl ProxyAnswers {
    pub fn new(webhooks: impl IntoIterator<Item = String>) -> ProxyAnswers {
        ProxyAnswers(Arc::new(Inner { webhooks: webhooks.into_iter().collect(), book: Mutex::default() }))
    }

    /// Keeps the sighting until its answer comes. Gives it back where it is complete, or there is nothing to wait for.
    pub(super) fn expect(&self, headers: &HeaderMap, sighting: Sighting) -> Option<Sighting> {
        if !self.0.webhooks.contains(&sighting.webhook) {
            return Some(sighting);
        }
        let Some(id) = headers.get(ID_HEADER).and_then(|id| id.to_str().ok()).filter(|id| is_id(id)) else {
            return Some(sighting);
        };
        let mut book = self.book();
        if let Some((_, status)) = book.early.remove(id) {
            return Some(answered(sighting, status));
        }
        if book.waiting.len() >= WAITING_AT_MOST {
            return Some(sighting);
        }
        let replaced = book.waiting.insert(id.to_owned(), (Instant::now(), sighting));
        replaced.map(|(_, sighting)| sighting)
    }

    /// Reads the lines that come to `socket` until `shutdown`, and gives the desk what they complete.
    pub async fn listen(self, socket: UnixDatagram, desk: Arc<dyn Desk>, shutdown: CancellationToken) {
        let mut line = [0u8; LONGEST_LINE];
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            let complete = tokio::select! {
                () = shutdown.cancelled() => return,
                _ = tick.tick() => self.tired(PATIENCE),
                read = socket.recv(&mut line) => match read {
                    Ok(length) => parse(&line[..length]).and_then(|(id, status)| self.came(id, status)).into_iter().collect(),
                    Err(error) => {
                        tracing::warn!(%error, "the proxy's answers could not be read");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        Vec::new()
                    }
                },
            };
            for sighting in complete {
                desk.sighted(sighting);
            }
        }
    }

    fn came(&self, id: &str, status: u16) -> Option<Sighting> {
        let mut book = self.book();
        if let Some((_, sighting)) = book.waiting.remove(id) {
            return Some(answered(sighting, status));
        }
        if book.early.len() < WAITING_AT_MOST {
            book.early.insert(id.to_owned(), (Instant::now(), status));
        }
        None
    }

    /// Those that have waited long enough: what they show by themselves still counts.
    fn tired(&self, patience: Duration) -> Vec<Sighting> {
        let mut book = self.book();
        book.early.retain(|_, (since, _)| since.elapsed() < patience);
        book.waiting.extract_if(|_, (since, _)| since.elapsed() >= patience).map(|(_, (_, sighting))| sighting).collect()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answered(sighting: Sighting, status: u16) -> Sighting {
    Sighting { accepted: accepted(status), status: Some(status), ..sighting }
}

fn is_id(text: &str) -> bool {
    (16..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// The id and the last status of a syslog line with the tag `hookturn`. nginx lists several where it tried several servers.
fn parse(line: &[u8]) -> Option<(&str, u16)> {
    let (_, said) = std::str::from_utf8(line).ok()?.split_once("hookturn: ")?;
    let (id, statuses) = said.trim_end().split_once(' ')?;
    let last = statuses.rsplit([' ', ',', ':']).next()?;
    let status = last.parse::<u16>().ok().filter(|status| (100..=599).contains(status))?;
    is_id(id).then_some((id, status))
}

/// The sockets of these paths, each once. A socket that is left over is replaced.
///
/// # Errors
/// With the path in front.
pub fn bind_answers<'p>(paths: impl IntoIterator<Item = &'p PathBuf>) -> io::Result<Vec<UnixDatagram>> {
    let distinct: BTreeSet<&PathBuf> = paths.into_iter().collect();
    distinct
        .into_iter()
        .map(|path| bind(path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))))
        .collect()
}

fn bind(path: &Path) -> io::Result<UnixDatagram> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is not a socket")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let socket = UnixDatagram::bind(path)?;
    // The proxy has a user of its own.
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Door, evidence::Facts, secret::Kid};

    const ID: &str = "7e0f3c1a9d2b4856f0e1d2c3b4a59687";

    fn sighting(webhook: &str) -> Sighting {
        Sighting {
            webhook: webhook.to_owned(),
            door: Door::Tap,
            kid: Kid::parse("k").expect("kid"),
            body_sha256: [1; 32],
            accepted: None,
            status: None,
            replica: None,
            facts: Facts::default(),
        }
    }

    fn with_id(id: &str) -> HeaderMap {
        HeaderMap::from_iter([(ID_HEADER.parse().expect("name"), id.parse().expect("value"))])
    }

    #[test]
    fn the_last_status_of_a_line_counts_and_other_lines_are_passed_over() {
        for (said, status) in [("200", 200), ("502, 401", 401), ("502 : 204", 204)] {
            let line = format!("<190>Feb  1 03:05:00 hookturn: {ID} {said}\n");
            assert_eq!(parse(line.as_bytes()), Some((ID, status)), "{line}");
        }
        for line in ["", "hookturn: short 200", "nginx: x 200", "hookturn: 7e0f3c1a9d2b4856f0e1d2c3b4a59687 -", "\u{ff}"] {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
        assert_eq!(parse(&[0xff; 20]), None);
    }

    #[test]
    fn a_copy_and_its_answer_meet_whichever_comes_first() {
        let answers = ProxyAnswers::new(["billing".to_owned()]);
        assert_eq!(answers.expect(&with_id(ID), sighting("billing")), None);
        let complete = answers.came(ID, 401).expect("the copy");
        assert_eq!((complete.accepted, complete.status), (Some(false), Some(401)));
        assert_eq!(answers.came(ID, 204), None);
        let complete = answers.expect(&with_id(ID), sighting("billing")).expect("the early answer");
        assert_eq!((complete.accepted, complete.status), (Some(true), Some(204)));
    }

    #[test]
    fn nothing_waits_without_an_id_or_a_proxy_that_tells_or_for_ever() {
        let answers = ProxyAnswers::new(["billing".to_owned()]);
        assert!(answers.expect(&HeaderMap::new(), sighting("billing")).is_some());
        assert!(answers.expect(&with_id("short"), sighting("billing")).is_some());
        assert!(answers.expect(&with_id(ID), sighting("orders")).is_some());
        assert_eq!(answers.expect(&with_id(ID), sighting("billing")), None);
        assert_eq!(answers.tired(PATIENCE), []);
        let tired = answers.tired(Duration::ZERO);
        assert_eq!((tired.len(), tired[0].accepted), (1, None));
    }
}
