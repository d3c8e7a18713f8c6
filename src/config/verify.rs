//! What counts as evidence, and what may provoke some.

use std::net::IpAddr;

use super::{
    Door, Ignore, Problem, Provocation, Stimulus, Verify,
    nearest::nearest,
    raw::{self, Words},
    section::Section,
    value::{self, BadValue},
};

pub(super) fn verify(s: &mut Section, merged: &raw::Webhook, has_gateway: bool) -> Option<Verify> {
    let raw = merged.verify.as_ref()?;
    let mut sources = Vec::new();
    let written = raw.sources.as_ref()?;
    for source in written.get_ref() {
        match source.get_ref().as_str() {
            "report" => sources.push(Door::Report),
            "keystore" => sources.push(Door::Keystore),
            "tap" => sources.push(Door::Tap),
            "gateway" if has_gateway => sources.push(Door::Gateway),
            "gateway" => s.bad(
                source.span(),
                BadValue::new("this webhook has no gateway", "add gateway = { upstream = \"http://127.0.0.1:9000/hook\" }"),
            ),
            other => s.bad(source.span(), BadValue::new(format!("there is no door \"{other}\""), DOORS)),
        }
    }
    // Who puts a gateway into the path of deliveries means it to count, unless he says which doors do.
    if has_gateway && written.span().is_empty() {
        sources.push(Door::Gateway);
    }
    sources.sort_unstable();
    sources.dedup();
    if written.get_ref().is_empty() {
        s.bad(written.span(), BadValue::new("no door counts, so no rotation could ever end", DOORS));
    }
    let report_token = s.credential("report_token", &raw.report_token);
    let tap_token = s.credential("tap_token", &raw.tap_token);
    let require = require(s, raw, &sources);
    let ignore = ignore(s, raw);
    Some(Verify { sources, require: require?, ignore: ignore?, report_token, tap_token })
}

/// `"any"`, `"all"`, or the doors by name. Each must be one of the sources.
fn require(s: &mut Section, raw: &raw::Verify, sources: &[Door]) -> Option<Vec<Door>> {
    let written = raw.require.as_ref()?;
    let words = match written.get_ref() {
        Words::One(word) if word == "any" => return Some(Vec::new()),
        Words::One(word) if word == "all" => return Some(sources.to_vec()),
        Words::One(word) => std::slice::from_ref(word),
        Words::Many(words) => words,
    };
    let mut doors = Vec::new();
    for word in words {
        match sources.iter().find(|door| door.name() == word) {
            Some(door) => doors.push(*door),
            None => {
                let named: Vec<&str> = sources.iter().map(|door| door.name()).chain(["any", "all"]).collect();
                let near = nearest(word, named.iter().copied()).map(|near| format!("did you mean \"{near}\"? "));
                let help = format!(
                    "{}it is \"any\", \"all\", or a list of what `verify.sources` has: \"{}\"",
                    near.unwrap_or_default(),
                    sources.iter().map(|door| door.name()).collect::<Vec<_>>().join("\", \"")
                );
                s.bad(written.span(), BadValue::new(format!("`verify.require` cannot ask for \"{word}\""), help));
                return None;
            }
        }
    }
    doors.sort_unstable();
    doors.dedup();
    Some(doors)
}

fn ignore(s: &mut Section, raw: &raw::Verify) -> Option<Vec<Ignore>> {
    let mut rules = Vec::new();
    for written in raw.ignore.as_ref()?.get_ref() {
        let rule = match (&written.get_ref().header, &written.get_ref().value, &written.get_ref().address) {
            (Some(name), value, None) => header(name.get_ref(), value.as_ref().map(|value| value.get_ref().clone())),
            (None, None, Some(address)) => network(address.get_ref()),
            _ => Err(BadValue::new("each entry of `verify.ignore` names one thing", IGNORE)),
        };
        match rule {
            Ok(rule) => rules.push(rule),
            Err(bad) => s.bad(written.span(), bad),
        }
    }
    Some(rules)
}

const IGNORE: &str =
    "write { header = \"x-synthetic\" }, { header = \"x-synthetic\", value = \"yes\" } or { address = \"10.0.0.0/8\" }";

fn header(name: &str, value: Option<String>) -> Result<Ignore, BadValue> {
    let known = http::HeaderName::from_bytes(name.as_bytes());
    let name = known.map_err(|_| BadValue::new(format!("\"{name}\" is no name of a header"), IGNORE))?;
    Ok(Ignore::Header { name: name.as_str().to_owned(), value })
}

/// `10.0.0.0/8`, `2001:db8::/32`, or one address.
fn network(text: &str) -> Result<Ignore, BadValue> {
    let bad = || BadValue::new(format!("\"{text}\" is neither an address nor a network"), IGNORE);
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let network: IpAddr = address.parse().map_err(|_| bad())?;
    let most = if network.is_ipv4() { 32 } else { 128 };
    let bits = bits.map_or(Ok(most), |bits| bits.parse::<u8>().map_err(|_| bad()))?;
    if bits > most { Err(bad()) } else { Ok(Ignore::Address { network, bits }) }
}

/// `None`: there is none, or something is wrong with it.
pub(super) fn stimulus(s: &mut Section, merged: &raw::Webhook) -> Option<Stimulus> {
    let raw = merged.stimulus.as_ref()?;
    if let (Some(_), Some(post)) = (&raw.command, &raw.post) {
        let problem =
            Problem::new("`command` and `post` both say how a delivery is provoked").label("the other one is `command`");
        s.problem(post.span(), problem.help("keep one of them"));
        return None;
    }
    let after = s.positive("after", &raw.after);
    let token = s.credential("token", &raw.token);
    let (what, timeout) = if raw.command.is_some() {
        let command = s.command("command", &raw.command, "timeout", &raw.timeout)?;
        (Provocation::Run(command.argv), command.timeout)
    } else {
        let url = s.optional(&raw.post, value::probe_url)?;
        (Provocation::Post { url, token }, s.positive("timeout", &raw.timeout)?)
    };
    Some(Stimulus { what, after: after?, timeout })
}

const DOORS: &str = "the doors are \"report\", \"keystore\", \"tap\" and \"gateway\"";
