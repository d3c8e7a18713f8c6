//! Who the replicas are, where they come and go: every address of a name, or of a file; every file that matches a pattern.
//!
//! A new one is asked at once. One that is no longer listed may be gone, or may be back in a moment with the keys it had: while
//! a rotation is under way it is waited for, until it is listed again or a person dismisses it.

use std::{path::Path, time::Duration};

use glob::{MatchOptions, glob_with};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{message::Message, ward::Ward, writer::Writer};
use crate::{
    config::{Membership, Preflight},
    rotation::{Event, Note, Phase},
    steps::push::Replica,
};

/// How often the list is read again.
const EVERY: Duration = Duration::from_secs(5);
/// More addresses than this are a mistake.
const AT_MOST: usize = 512;

/// An address of the list, or the path of a file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Member {
    pub address: String,
    pub listed: bool,
}

/// Brings the list up to date. While a rotation is under way nobody is dropped from it.
pub(super) fn merge(known: &mut Vec<Member>, listed: &[String], under_way: bool) {
    for member in known.iter_mut() {
        member.listed = listed.contains(&member.address);
    }
    if !under_way {
        known.retain(|member| member.listed);
    }
    for address in listed {
        if !known.iter().any(|member| member.address == *address) {
            known.push(Member { address: address.clone(), listed: true });
        }
    }
    known.sort_by(|one, other| one.address.cmp(&other.address));
}

impl Ward {
    /// Everybody who is to be asked at a URL. Numbers stay with their replica.
    pub fn asked(&mut self) -> Vec<crate::rotation::ReplicaId> {
        let preflight = self.tools.config.preflight.clone();
        let names = self.members.iter().map(|member| member.address.clone());
        let (files, addresses): (Vec<String>, Vec<String>) = names.partition(|name| is_file(name));
        let probes = expanded(&preflight.probe, &addresses).map(|url| Replica::Probe { url });
        let read_backs = expanded(&preflight.read_back, &addresses).map(|url| Replica::ReadBack { url });
        let files = files.iter().map(|path| Replica::ReadBack { url: format!("{}{path}", Replica::FILE) });
        probes.chain(read_backs).chain(files).map(|replica| self.replica_id(replica)).collect()
    }

    /// Whether the address of this replica is no longer listed.
    pub fn has_vanished(&self, name: &str) -> bool {
        let preflight = &self.tools.config.preflight;
        let places = || preflight.probe.iter().chain(&preflight.read_back).filter(|url| url.contains(Preflight::PLACE));
        let file = name.strip_prefix(Replica::FILE);
        let is = |member: &Member| {
            file == Some(&member.address) || places().any(|url| url.replace(Preflight::PLACE, &member.address) == name)
        };
        self.members.iter().any(|member| !member.listed && is(member))
    }
}

fn is_file(name: &str) -> bool {
    name.starts_with('/')
}

fn expanded<'a>(urls: &'a [String], addresses: &'a [String]) -> impl Iterator<Item = String> + 'a {
    urls.iter().flat_map(move |url| match url.contains(Preflight::PLACE) {
        true => addresses.iter().map(|address| url.replace(Preflight::PLACE, address)).collect(),
        false => vec![url.clone()],
    })
}

impl Writer {
    pub fn members(&mut self, webhook: usize, listed: &[String]) {
        let Some(ward) = self.wards.get_mut(webhook) else { return };
        let before = ward.members.clone();
        merge(&mut ward.members, listed, ward.record.phase != Phase::Idle);
        if ward.members != before {
            self.enroll(webhook);
        }
    }

    /// Takes members that vanished out of the list; without names, all of them. Says who was dismissed.
    pub fn dismiss(&mut self, webhook: usize, names: &[String], actor: &str) -> Result<Vec<String>, String> {
        let Some(ward) = self.wards.get_mut(webhook) else { return Ok(Vec::new()) };
        let of = |member: &Member, name: &String| {
            name.strip_prefix(Replica::FILE).unwrap_or(name) == member.address || name.contains(&format!("//{}/", member.address))
        };
        for name in names {
            match ward.members.iter().find(|member| of(member, name)) {
                Some(member) if !member.listed => {}
                Some(member) => {
                    return Err(format!("{} is still listed: only one that has vanished can be dismissed", member.address));
                }
                None => return Err(format!("{name} is not one of the replicas that `preflight` has found")),
            }
        }
        let (gone, kept): (Vec<Member>, Vec<Member>) = ward
            .members
            .drain(..)
            .partition(|member| !member.listed && (names.is_empty() || names.iter().any(|name| of(member, name))));
        ward.members = kept;
        let gone: Vec<String> = gone.into_iter().map(|member| member.address).collect();
        let now = self.clock.unix_millis();
        for replica in &gone {
            ward.write_down(Note::Dismissed { replica: replica.clone() }, actor, now);
        }
        if !gone.is_empty() {
            self.enroll(webhook);
        }
        Ok(gone)
    }

    /// The list as it is now goes on record, and to the core.
    fn enroll(&mut self, webhook: usize) {
        let Some(ward) = self.wards.get_mut(webhook) else { return };
        ward.memo("members", serde_json::to_value(&ward.members).unwrap_or_default());
        let mut replicas = ward.asked();
        replicas.sort_unstable();
        if replicas != ward.volatile.roster {
            // A roster is never refused once booted.
            let _ = ward.take(&Event::Roster { replicas }, "daemon", &self.clock, self.doors_open);
        }
        ward.touched = true;
    }
}

/// What a person asks for; the answer comes back after it is on record.
pub(super) struct Dismissal {
    pub webhook: usize,
    pub names: Vec<String>,
    pub actor: String,
    pub reply: oneshot::Sender<Result<Vec<String>, String>>,
    pub done: oneshot::Sender<()>,
}

/// Reads the list again and again. A list that cannot be read is no empty list: nothing changes then.
pub(super) async fn watch(
    place: usize,
    name: String,
    preflight: Preflight,
    inbox: mpsc::Sender<Message>,
    shutdown: CancellationToken,
) {
    let mut trouble = None;
    loop {
        match listed(&preflight).await {
            Ok(listed) => {
                trouble = None;
                if inbox.send(Message::Members { webhook: place, listed }).await.is_err() {
                    return;
                }
            }
            Err(reason) if trouble.as_ref() != Some(&reason) => {
                tracing::warn!(webhook = name, "preflight: {reason}; the replicas known before stay");
                trouble = Some(reason);
            }
            Err(_) => {}
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

async fn listed(preflight: &Preflight) -> Result<Vec<String>, String> {
    let mut listed = match &preflight.replicas {
        Some(list) => addresses(list).await?,
        None => Vec::new(),
    };
    listed.extend(files(preflight.read_back_files.clone()).await?);
    match listed.len() {
        ..=AT_MOST => Ok(listed),
        many => Err(format!("{many} replicas are more than {AT_MOST}")),
    }
}

/// Every file that matches one of the patterns, but for hidden ones, which may be half written.
async fn files(patterns: Vec<String>) -> Result<Vec<String>, String> {
    let how = MatchOptions { require_literal_separator: true, require_literal_leading_dot: true, ..MatchOptions::new() };
    let search = move || {
        let mut found = Vec::new();
        for pattern in &patterns {
            for path in glob_with(pattern, how).map_err(|error| format!("{pattern}: {error}"))? {
                let path = path.map_err(|error| error.to_string())?;
                let path = path.into_os_string().into_string().map_err(|path| format!("{path:?} is not UTF-8"))?;
                found.push(path);
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    };
    tokio::task::spawn_blocking(search).await.unwrap_or_else(|_| Err("the thread that looked ended early".to_owned()))
}

async fn addresses(list: &Membership) -> Result<Vec<String>, String> {
    let mut listed = match list {
        Membership::Dns(name) => {
            let found = tokio::net::lookup_host(name.as_str()).await.map_err(|error| format!("{name}: {error}"))?;
            found.map(|address| address.to_string()).collect()
        }
        Membership::File(path) => read(path).await?,
    };
    listed.sort_unstable();
    listed.dedup();
    Ok(listed)
}

async fn read(path: &Path) -> Result<Vec<String>, String> {
    let text = tokio::fs::read_to_string(path).await.map_err(|error| format!("{}: {error}", path.display()))?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let mut listed = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let sound = line.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".:-_[]".contains(&byte));
        let port = line.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if !sound || !port {
            return Err(format!("{}: {line:?} is not HOST:PORT", path.display()));
        }
        listed.push(line.to_owned());
    }
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(known: &[Member]) -> Vec<(&str, bool)> {
        known.iter().map(|member| (member.address.as_str(), member.listed)).collect()
    }

    #[test]
    fn a_new_one_is_included_and_a_vanished_one_waited_for_while_a_rotation_is_under_way() {
        let mut known = Vec::new();
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        merge(&mut known, &list(&["b:1", "a:1"]), false);
        assert_eq!(listed(&known), [("a:1", true), ("b:1", true)]);
        merge(&mut known, &list(&["c:1", "a:1"]), true);
        assert_eq!(listed(&known), [("a:1", true), ("b:1", false), ("c:1", true)]);
        merge(&mut known, &list(&["b:1", "a:1"]), true);
        assert_eq!(listed(&known), [("a:1", true), ("b:1", true), ("c:1", false)], "it is back");
        merge(&mut known, &list(&["b:1"]), false);
        assert_eq!(listed(&known), [("b:1", true)], "between rotations the list is the list");
    }

    #[test]
    fn an_address_takes_its_place_in_every_url() {
        let urls = ["http://{replica}/hook".to_owned(), "http://fixed:1/hook".to_owned()];
        let addresses = ["a:1".to_owned(), "[::1]:2".to_owned()];
        let expanded: Vec<String> = expanded(&urls, &addresses).collect();
        assert_eq!(expanded, ["http://a:1/hook", "http://[::1]:2/hook", "http://fixed:1/hook"]);
    }

    #[tokio::test]
    async fn a_name_has_all_its_addresses_and_a_file_its_lines() {
        let found = addresses(&Membership::Dns("localhost:9000".to_owned())).await.expect("an address");
        assert!(found.iter().any(|address| address == "127.0.0.1:9000" || address == "[::1]:9000"), "{found:?}");
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("replicas");
        std::fs::write(&path, "# the blue ones\n10.0.0.7:9000\n\nbilling-2:9000   # new\n10.0.0.7:9000\n").expect("written");
        let found = addresses(&Membership::File(path.clone())).await.expect("addresses");
        assert_eq!(found, ["10.0.0.7:9000", "billing-2:9000"]);
        for wrong in ["billing\n", "http://a:1\n", "a:b\n", ":9\n"] {
            std::fs::write(&path, wrong).expect("written");
            assert!(addresses(&Membership::File(path.clone())).await.is_err(), "{wrong}");
        }
        assert!(addresses(&Membership::File(dir.path().join("none"))).await.is_err(), "no file is no empty list");
    }
}
