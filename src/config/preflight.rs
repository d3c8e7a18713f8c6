//! How it is to be shown that every replica accepts a new secret.

use std::{ops::Range, path::Path};

use serde_spanned::Spanned;

use super::{
    Keystore, Membership, Preflight, ProbeBody, Problem, raw,
    section::{Section, span_of},
    value::{self, BadValue},
};

pub(super) fn preflight(s: &mut Section, merged: &raw::Webhook, keystore: Option<&Keystore>) -> Option<Preflight> {
    let raw = merged.preflight.as_ref()?;
    let bodies = [("unparseable", ProbeBody::Unparseable), ("json", ProbeBody::Json)];
    let probe_body = s.word("probe_body", &raw.probe_body, &bodies);
    let base = s.base;
    let probe = urls(s, &raw.probe, url);
    let read_back = urls(s, &raw.read_back, |text| match text.strip_prefix(FILE) {
        Some(pattern) => files(pattern, base),
        None => url(text),
    });
    let (read_back_files, read_back): (Vec<String>, Vec<String>) =
        read_back.into_iter().partition(|place| place.starts_with('/'));
    let read_back_token = s.credential("read_back_token", &raw.read_back_token);
    let replicas = s.optional(&raw.replicas, |text| membership(text, base));
    places(s, raw, probe.iter().chain(&read_back));
    let status = raw.status.as_ref().is_some_and(|status| *status.get_ref());
    if let (true, Some(Keystore::Exec { .. })) = (status, keystore) {
        let problem = Problem::new("status files lie beside a keystore file, and this keystore is not a file");
        s.problem(span_of(&raw.status), problem.help("take `status` out and write preflight.probe, one URL per replica"));
    }
    let accepted = raw.unproven.as_ref().is_some_and(|word| word.get_ref() == "accept");
    if let (true, false, Some(keystore)) = (!asked(&raw.probe) && !asked(&raw.read_back), accepted, keystore) {
        provable(s, span_of(&merged.keystore), status, keystore);
    }
    let probe_body = probe_body?;
    Some(Preflight { probe, probe_body, read_back, read_back_files, read_back_token, replicas, status })
}

fn asked(urls: &Option<Spanned<Vec<raw::Text>>>) -> bool {
    urls.as_ref().is_some_and(|list| !list.get_ref().is_empty())
}

/// What stands before a pattern of files.
const FILE: &str = "file:";

/// One URL per replica, none of them twice.
fn urls(
    s: &mut Section,
    written: &Option<Spanned<Vec<raw::Text>>>,
    read: impl Fn(&str) -> Result<String, BadValue>,
) -> Vec<String> {
    let mut urls: Vec<String> = Vec::new();
    for written in written.as_ref().map_or(&[][..], |list| list.get_ref()) {
        match read(written.get_ref()) {
            Ok(url) if urls.contains(&url) => {
                let help = "a replica is asked once: give each replica its own address, not the load balancer's";
                s.bad(written.span(), BadValue::new("this URL is listed twice", help));
            }
            Ok(url) => urls.push(url),
            Err(bad) => s.bad(written.span(), bad),
        }
    }
    urls
}

/// A URL, or one with a place in it for an address.
fn url(text: &str) -> Result<String, BadValue> {
    if !text.contains(Preflight::PLACE) {
        return value::probe_url(text);
    }
    value::probe_url(&text.replace(Preflight::PLACE, "127.0.0.1:9000")).map(|_| text.to_owned())
}

/// An absolute pattern.
fn files(pattern: &str, base: &Path) -> Result<String, BadValue> {
    let help = "write \"file:/srv/billing-*/hookturn.json\": each file that matches is one replica";
    let absolute = value::resolved(base, pattern);
    let Some(text) = absolute.to_str().filter(|text| !pattern.is_empty() && text.starts_with('/')) else {
        return Err(BadValue::new("this is no pattern of files", help));
    };
    match glob::Pattern::new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(BadValue::new(format!("this is no pattern of files: {}", error.msg), help)),
    }
}

/// `dns:NAME:PORT`, `file:PATH`.
fn membership(text: &str, base: &Path) -> Result<Membership, BadValue> {
    let help = "write \"dns:billing.internal:9000\" (every address of the name) or \"file:/path\" (one HOST:PORT a line)";
    match text.split_once(':') {
        Some(("dns", name)) => match name.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => {
                Ok(Membership::Dns(name.to_owned()))
            }
            _ => Err(BadValue::new("a name of replicas needs a port", help)),
        },
        Some(("file", path)) if !path.is_empty() => Ok(Membership::File(value::resolved(base, path))),
        _ => Err(BadValue::new(format!("`replicas` cannot be \"{text}\""), help)),
    }
}

/// Addresses need a place to go to, and a place needs addresses.
fn places<'u>(s: &mut Section, raw: &raw::Preflight, mut urls: impl Iterator<Item = &'u String>) {
    let has_place = urls.any(|url| url.contains(Preflight::PLACE));
    let help = "write preflight.replicas = \"dns:NAME:PORT\" and preflight.probe = [\"http://{replica}/hook\"]";
    match (has_place, raw.replicas.is_some()) {
        (true, false) => {
            let written = if asked(&raw.probe) { span_of(&raw.probe) } else { span_of(&raw.read_back) };
            s.bad(written, BadValue::new("`{replica}` stands for an address, and `replicas` names none", help));
        }
        (false, true) => {
            let problem = "`replicas` names addresses, and no URL has `{replica}` for them";
            s.bad(span_of(&raw.replicas), BadValue::new(problem, help));
        }
        _ => {}
    }
}

/// Without a probe, only a replica's own status file can show that it accepts a new secret.
fn provable(s: &mut Section, at: Range<usize>, status: bool, keystore: &Keystore) {
    let directory = match keystore {
        Keystore::File { path, .. } if status || has_status_file(path) => return,
        Keystore::File { path, .. } => format!(" (in {}.status/)", path.display()),
        Keystore::Exec { .. } => String::new(),
    };
    let message = format!("{}: nothing could show that its replicas accept a new secret before DialNexa uses it", s.title);
    let help = format!(
        "one of three: preflight.probe = [\"http://127.0.0.1:9000/hook\"], one URL per replica; preflight.status = true with a \
         file keystore, where every replica writes its status file{directory}; or preflight.unproven = \"accept\", to go on \
         without proof"
    );
    s.problem(at, Problem::new(message).label("no acceptance proof").help(help));
}

fn has_status_file(keystore: &Path) -> bool {
    let mut directory = keystore.as_os_str().to_owned();
    directory.push(".status");
    let Ok(entries) = Path::new(&directory).read_dir() else { return false };
    entries.flatten().any(|entry| entry.path().extension().is_some_and(|extension| extension == "json"))
}
