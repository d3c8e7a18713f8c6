//! From the file to its meaning: the tables of the top level, and what only shows when all of them are known.

use std::{collections::BTreeMap, net::SocketAddr, ops::Range, path::Path};

use serde::de::DeserializeOwned;
use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::{
    Config, Dialnexa, Door, Keystore, Listen, Notify, Problem, Store, Webhook, layers, raw,
    section::{Section, span_of},
    shape::{self, shape},
    value, webhook,
};

/// Everything that the file means, or everything that is wrong with it.
pub(super) fn check(path: &Path, text: &str) -> Result<Config, Vec<Problem>> {
    let table = DeTable::parse(text).map_err(|e| vec![shape::problem(&e)])?.into_inner();
    let shipped = layers::shipped().map_err(|e| vec![shape::problem(&e)])?;
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let base = absolute.parent().unwrap_or(Path::new("/"));
    let mut check = Check { base, table, shipped, problems: Vec::new() };
    let config = check.config(path);
    match config {
        Some(config) if check.problems.is_empty() => Ok(config),
        _ => Err(check.problems),
    }
}

struct Check<'a> {
    base: &'a Path,
    table: DeTable<'a>,
    shipped: DeTable<'static>,
    problems: Vec<Problem>,
}

impl<'a> Check<'a> {
    fn config(&mut self, path: &Path) -> Option<Config> {
        self.unknown_sections();
        let dialnexa = self.dialnexa();
        let store = self.store();
        let listen = self.listen();
        let notify = self.notify();
        let webhooks = self.webhooks();
        self.strangers(&webhooks);
        if let Some(listen) = &listen {
            self.doors(listen, &webhooks);
        }
        let webhooks = webhooks.into_iter().map(|(_, webhook)| webhook).collect();
        Some(Config { path: path.to_owned(), dialnexa: dialnexa?, store: store?, listen: listen?, notify: notify?, webhooks })
    }

    fn unknown_sections(&mut self) {
        for key in self.table.keys().filter(|key| !raw::SECTIONS.contains(&key.get_ref().as_ref())) {
            self.problems.push(shape::unknown_key(key.get_ref(), &raw::SECTIONS).at(key.span()));
        }
    }

    fn dialnexa(&mut self) -> Option<Dialnexa> {
        let (raw, mut section) = self.section::<raw::Dialnexa>("dialnexa")?;
        let base_url = section.required("base_url", &raw.base_url, value::base_url);
        let api_key = section.credential("api_key", &raw.api_key);
        let ca_file = raw.ca_file.map(|path| section.path(path.get_ref()));
        Some(Dialnexa { base_url: base_url?, api_key: api_key?, ca_file })
    }

    fn store(&mut self) -> Option<Store> {
        let (raw, mut section) = self.section::<raw::Store>("store")?;
        let base = section.base;
        let path = section.required("url", &raw.url, |text| value::store_path(text, base));
        let sealing_key = section.credential("sealing_key", &raw.sealing_key);
        let path = path?;
        let anchor = match &raw.anchor {
            Some(anchor) => section.path(anchor.get_ref()),
            None => {
                let mut name = path.clone().into_os_string();
                name.push(".anchor");
                name.into()
            }
        };
        if anchor == path {
            let help = "the anchor is a witness beside the database: give it a file of its own";
            section.problem(span_of(&raw.anchor), Problem::new("the anchor and the store are the same file").help(help));
        }
        Some(Store { path, sealing_key: sealing_key?, anchor })
    }

    fn listen(&mut self) -> Option<Listen> {
        let (raw, mut section) = self.section::<raw::Listen>("listen")?;
        let base = section.base;
        let deliveries = section.required("deliveries", &raw.deliveries, value::listen_address);
        let status = section.required("status", &raw.status, value::listen_address);
        let admin = section.required("admin", &raw.admin, |text| value::admin_socket(text, base));
        let gateway = section.required("gateway", &raw.gateway, value::listen_address);
        let max_body = section.required("max_body", &raw.max_body, value::size);
        let header_timeout = section.positive("header_timeout", &raw.header_timeout);
        let body_timeout = section.positive("body_timeout", &raw.body_timeout);
        let connections =
            section.required("gateway_connections", &raw.gateway_connections, |text| value::count(text, 1, 1_000_000));
        let memory = section.required("gateway_memory", &raw.gateway_memory, value::size);
        let listeners = [("deliveries", deliveries, 0..0), ("status", status, span_of(&raw.status))];
        let listeners = listeners.into_iter().chain([("gateway", gateway, span_of(&raw.gateway))]);
        let mut taken: Vec<(&str, SocketAddr)> = Vec::new();
        for (name, address, span) in listeners {
            let Some(address) = address.flatten().filter(|address| address.port() != 0) else { continue };
            if let Some((other, _)) = taken.iter().find(|(_, other)| *other == address) {
                let problem = Problem::new(format!("`{other}` and `{name}` both listen on {address}"));
                section.problem(span, problem.help("give each its own port, or write \"off\""));
            }
            taken.push((name, address));
        }
        if let (Some(memory), Some(body)) = (memory, max_body)
            && memory < body
        {
            let problem = Problem::new("`gateway_memory` is smaller than one body may be (`max_body`)");
            section.problem(span_of(&raw.gateway_memory), problem.help("such a body could never be passed on"));
        }
        Some(Listen {
            deliveries: deliveries?,
            admin: admin?,
            status: status?,
            gateway: gateway?,
            max_body: max_body?,
            header_timeout: header_timeout?,
            body_timeout: body_timeout?,
            gateway_connections: usize::try_from(connections?).ok()?,
            gateway_memory: memory?,
        })
    }

    fn notify(&mut self) -> Option<Option<Notify>> {
        let (raw, mut section) = self.section::<raw::Notify>("notify")?;
        let command = section.command("exec", &raw.exec, "timeout", &raw.timeout);
        Some(command.map(|command| Notify { exec: command.argv, timeout: command.timeout }))
    }

    /// A table of the top level, laid over the shipped one.
    fn section<T: DeserializeOwned>(&mut self, name: &str) -> Option<(T, Section<'_>)> {
        let own = self.table.get(name).cloned();
        let at = own.as_ref().map_or(0..0, Spanned::span);
        let value = match (own.map(Spanned::into_inner), self.shipped.get(name).map(Spanned::get_ref)) {
            (Some(DeValue::Table(own)), Some(DeValue::Table(shipped))) => DeValue::Table(layers::laid_over(own, shipped)),
            (Some(own), _) => own,
            (None, shipped) => shipped.cloned().unwrap_or(DeValue::Table(DeTable::new())),
        };
        match shape(Spanned::new(at.clone(), value)) {
            Ok(raw) => Some((raw, Section { base: self.base, title: format!("[{name}]"), at, problems: &mut self.problems })),
            Err(problem) => {
                self.problems.push(problem);
                None
            }
        }
    }

    /// The webhooks that mean something, each with the place of its table.
    fn webhooks(&mut self) -> Vec<(Range<usize>, Webhook)> {
        let defaults = self.defaults();
        let shipped = match self.shipped.get("defaults").map(Spanned::get_ref) {
            Some(DeValue::Table(table)) => table.clone(),
            _ => DeTable::new(),
        };
        let tables = match self.table.get("webhook").cloned() {
            None => return Vec::new(),
            Some(value) => match value.get_ref() {
                DeValue::Array(tables) => tables.clone(),
                _ => {
                    let problem = Problem::new("there can be several webhooks, so each is written in double brackets");
                    self.problems.push(problem.at(value.span()).label("single brackets").help("write [[webhook]]"));
                    return Vec::new();
                }
            },
        };
        tables.into_iter().filter_map(|table| self.webhook(table, [&defaults, &shipped])).collect()
    }

    fn webhook(&mut self, own: Spanned<DeValue<'a>>, below: [&DeTable<'a>; 2]) -> Option<(Range<usize>, Webhook)> {
        let at = own.span();
        let alone: raw::Webhook = self.noted(shape(own.clone()))?;
        let DeValue::Table(own) = own.into_inner() else { return None };
        let layered = DeValue::Table(below.into_iter().fold(own, layers::laid_over));
        let merged: raw::Webhook = self.noted(shape(Spanned::new(at.clone(), layered)))?;
        let title = merged.name.as_ref().map_or_else(|| "this webhook".to_owned(), |name| format!("webhook {}", name.get_ref()));
        let section = Section { base: self.base, title, at: at.clone(), problems: &mut self.problems };
        Some((at, webhook::check(section, &alone, &merged)?))
    }

    /// `[defaults]` as the file says them.
    fn defaults(&mut self) -> DeTable<'a> {
        let Some(own) = self.table.get("defaults").cloned() else { return DeTable::new() };
        let Some(raw) = self.noted(shape::<raw::Webhook>(own.clone())) else { return DeTable::new() };
        for (key, written) in [("name", &raw.name), ("id", &raw.id)] {
            if written.is_some() {
                let problem = Problem::new(format!("`{key}` belongs to one webhook, it cannot be a default"));
                self.problems.push(problem.at(span_of(written)).help("move it into its [[webhook]]"));
            }
        }
        match own.into_inner() {
            DeValue::Table(own) => own,
            _ => DeTable::new(),
        }
    }

    fn noted<T>(&mut self, result: Result<T, Problem>) -> Option<T> {
        result.map_err(|problem| self.problems.push(problem)).ok()
    }

    /// No two webhooks share a name, an id or a keystore file.
    fn strangers(&mut self, webhooks: &[(Range<usize>, Webhook)]) {
        let file = |webhook: &Webhook| match &webhook.keystore {
            Keystore::File { path, .. } => Some(path.display().to_string()),
            Keystore::Exec { .. } => None,
        };
        type Trait<'w> = (&'static str, &'static str, &'w dyn Fn(&Webhook) -> Option<String>);
        let traits: [Trait; 3] = [
            ("the name", "names tell webhooks apart in commands and paths: choose another", &|w| Some(w.name.clone())),
            ("the id", "one webhook of DialNexa is rotated by one [[webhook]]: remove one of the two", &|w| Some(w.id.clone())),
            ("the keystore", "each webhook needs a keystore file of its own: they would overwrite each other", &file),
        ];
        for (what, help, key) in traits {
            let mut first: BTreeMap<String, &str> = BTreeMap::new();
            for (at, webhook) in webhooks {
                let Some(value) = key(webhook) else { continue };
                if let Some(other) = first.get(value.as_str()) {
                    let message = format!("webhook {} has {what} of webhook {other}: {value}", webhook.name);
                    self.problems.push(Problem::new(message).at(at.clone()).label("the second one").help(help));
                } else {
                    first.insert(value, &webhook.name);
                }
            }
        }
    }

    /// Doors that others can reach ask for a token, and some door is open at all.
    fn doors(&mut self, listen: &Listen, webhooks: &[(Range<usize>, Webhook)]) {
        let exposed = listen.deliveries.filter(|address| !address.ip().is_loopback());
        for (at, webhook) in webhooks {
            let verify = &webhook.verify;
            let tokens = [
                (Door::Report, "report", "report_token", verify.report_token.is_some()),
                (Door::Tap, "tap", "tap_token", verify.tap_token.is_some()),
            ];
            for (door, name, key, has_token) in tokens {
                if let Some(address) = exposed.filter(|_| verify.sources.contains(&door) && !has_token) {
                    let message =
                        format!("webhook {}: its {name} door is open to others on {address}, without a token", webhook.name);
                    let help = format!(
                        "set `verify.{key}`, take \"{name}\" out of `verify.sources`, or let `listen.deliveries` be a loopback address"
                    );
                    self.problems.push(Problem::new(message).at(at.clone()).help(help));
                }
            }
            let open = |door: &Door| match door {
                Door::Report | Door::Tap => listen.deliveries.is_some(),
                Door::Keystore => matches!(webhook.keystore, Keystore::File { .. }),
                Door::Gateway => listen.deliveries.is_some() && webhook.gateway.is_some(),
            };
            for door in verify.require.iter().filter(|door| !open(door)) {
                let message =
                    format!("webhook {}: `verify.require` asks for the {} door, which is closed", webhook.name, door.name());
                let help = "\"report\" and \"tap\" need an address in `listen.deliveries`, \"keystore\" needs kind = \"file\"; or \
                            take it out of `verify.require`";
                self.problems.push(Problem::new(message).at(at.clone()).help(help));
            }
            if !verify.sources.iter().any(open) {
                let message = format!("webhook {}: no door is open through which evidence could come", webhook.name);
                let help = "let `listen.deliveries` be an address for \"report\", \"tap\" and \"gateway\"; \"keystore\" needs kind = \"file\"";
                self.problems.push(Problem::new(message).at(at.clone()).help(help));
            }
        }
    }
}
