//! `check`: the configuration and everything that it names, each problem on its own line with the way out.

use clap::Args;
use serde_json::json;

use super::{
    access,
    exit::{Code, Stop, provider_code},
    operate, out, provider, survey,
};
use crate::{
    admin::remote::Remote,
    config::{Config, Credential, CredentialError, Webhook},
    daemon::Request,
    keystore,
    secret::SealingKey,
    store::Sqlite,
};

#[derive(Args)]
pub struct Check {
    /// Do not ask DialNexa
    #[arg(long)]
    offline: bool,
    /// Find out which probe body works at each replica of this webhook, with the secret that is current now
    #[arg(long, value_name = "NAME")]
    probe: Option<String>,
    #[arg(long)]
    json: bool,
}

/// Everything that was looked at.
struct Report {
    lines: Vec<Line>,
    worst: Code,
}

struct Line {
    kind: Kind,
    text: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fine,
    /// It can go on, but a person should know.
    Note,
    Problem(Code),
}

impl Check {
    pub async fn run(self, config: Config) -> Result<Code, Stop> {
        if let Some(name) = &self.probe {
            return operate::request(&config, name, "check --probe", Request::TryProbe, self.json).await;
        }
        let mut report = Report { lines: Vec::new(), worst: Code::Done };
        report.add(Kind::Fine, format!("{}: {}", config.path.display(), webhooks(config.webhooks.len())));
        let daemon_runs = control_socket(&config, &mut report).await;
        credentials(&config, daemon_runs, &mut report);
        store(&config, daemon_runs, &mut report);
        for webhook in &config.webhooks {
            webhook_notes(webhook, &mut report);
            keystore_of(webhook, &mut report).await;
        }
        surveys(&config, &mut report).await;
        if !self.offline {
            dialnexa(&config, &mut report).await;
        }
        report.print(self.json)?;
        Ok(report.worst)
    }
}

impl Report {
    fn add(&mut self, kind: Kind, text: impl Into<String>) {
        if let Kind::Problem(code) = kind {
            self.worst = worse(self.worst, code);
        }
        self.lines.push(Line { kind, text: text.into() });
    }

    fn problem(&mut self, code: Code, text: impl Into<String>) {
        self.add(Kind::Problem(code), text);
    }

    fn print(&self, as_json: bool) -> Result<(), Stop> {
        if as_json {
            let lines: Vec<_> =
                self.lines.iter().map(|line| json!({ "kind": line.kind.word().trim(), "text": line.text })).collect();
            return out::json(&json!({ "exit": self.worst.number(), "findings": lines }));
        }
        let lines: Vec<_> = self.lines.iter().map(|line| format!("{}  {}", line.kind.word(), line.text)).collect();
        out::line(&lines.join("\n"))
    }
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Fine => "ok     ",
            Kind::Note => "note   ",
            Kind::Problem(_) => "PROBLEM",
        }
    }
}

/// A wrong configuration explains the rest, so it is what is reported.
fn worse(one: Code, other: Code) -> Code {
    if one == Code::Config {
        one
    } else if other == Code::Config {
        other
    } else {
        one.worse(other)
    }
}

fn webhooks(n: usize) -> String {
    match n {
        0 => "sound, without any webhook yet: add [[webhook]]".to_owned(),
        1 => "sound, 1 webhook".to_owned(),
        n => format!("sound, {n} webhooks"),
    }
}

async fn control_socket(config: &Config, report: &mut Report) -> bool {
    let Some(path) = &config.listen.admin else {
        report.add(Kind::Note, "listen.admin is off: the commands cannot reach a running daemon");
        return false;
    };
    match Remote::connect(path).await {
        Ok(Some(_)) => {
            report.add(Kind::Fine, format!("a daemon listens on {}", path.display()));
            true
        }
        Ok(None) => {
            report.add(Kind::Note, format!("no daemon listens on {}", path.display()));
            false
        }
        Err(error) => {
            report.add(Kind::Note, format!("{}: {error}: whether a daemon runs cannot be told by this user", path.display()));
            false
        }
    }
}

fn credentials(config: &Config, daemon_runs: bool, report: &mut Report) {
    credential(config, "dialnexa.api_key", &config.dialnexa.api_key, daemon_runs, report);
    if let Some(key) = credential(config, "store.sealing_key", &config.store.sealing_key, daemon_runs, report)
        && let Err(error) = SealingKey::parse(&key)
    {
        report.problem(Code::Config, format!("{}: {error}", config.store.sealing_key));
    }
    for webhook in &config.webhooks {
        let tokens = [("verify.report_token", &webhook.verify.report_token), ("verify.tap_token", &webhook.verify.tap_token)];
        for (key, token) in tokens {
            if let Some(token) = token {
                credential(config, &format!("{}: {key}", webhook.name), token, daemon_runs, report);
            }
        }
    }
}

fn credential(
    config: &Config,
    key: &str,
    credential: &Credential,
    daemon_runs: bool,
    report: &mut Report,
) -> Option<zeroize::Zeroizing<String>> {
    for finding in credential.findings() {
        report.add(Kind::Note, format!("{key}: {finding}"));
    }
    match credential.read() {
        Ok(value) => {
            report.add(Kind::Fine, format!("{key}: {credential} can be read"));
            Some(value)
        }
        // The unit's credentials are not this shell's; the daemon was started with them.
        Err(CredentialError::NoCredentials(_)) if daemon_runs => {
            report.add(Kind::Note, format!("{key}: {credential} is visible to the running daemon only"));
            None
        }
        Err(error @ (CredentialError::NoCredentials(_) | CredentialError::NotLoaded(_))) => {
            report.problem(Code::Config, format!("{key}: {error}\n         {}", access::systemd_run(config)));
            None
        }
        Err(error) => {
            report.problem(Code::Config, format!("{key}: {error}"));
            None
        }
    }
}

fn store(config: &Config, daemon_runs: bool, report: &mut Report) {
    let path = &config.store.path;
    let findings = Sqlite::examine(path);
    if !findings.iter().any(|finding| finding.fatal) {
        report.add(Kind::Fine, format!("store {}", path.display()));
    }
    for finding in findings {
        match finding.fatal {
            true => report.problem(Code::Config, format!("store: {}", finding.text)),
            // That the daemon has it open is as it should be.
            false if daemon_runs && finding.text.contains("is in use by") => {}
            false => report.add(Kind::Note, format!("store: {}", finding.text)),
        }
    }
}

/// What a survey recommends, beside what is configured.
async fn surveys(config: &Config, report: &mut Report) {
    // A store that cannot be read was reported already.
    let surveys = survey::stored(config).await.unwrap_or_default();
    let Some(newest) = surveys.last() else { return };
    let kind = if newest.reliable() { Kind::Fine } else { Kind::Note };
    report.add(kind, format!("{}: {}", newest.webhook, newest.brief()));
    for webhook in config.webhooks.iter().filter(|webhook| webhook.id != newest.id) {
        for (_, text) in newest.beside(&webhook.policy).into_iter().filter(|(order, _)| order.is_lt()) {
            report.add(Kind::Note, format!("{}: {text}", webhook.name));
        }
    }
}

fn webhook_notes(webhook: &Webhook, report: &mut Report) {
    report.add(Kind::Fine, format!("{}: {}", webhook.name, webhook.schedule));
    if webhook.policy.unproven {
        let text = "preflight.unproven = \"accept\": it goes on without proof that the replicas accept a new secret";
        report.add(Kind::Note, format!("{}: {text}", webhook.name));
    }
}

async fn keystore_of(webhook: &Webhook, report: &mut Report) {
    let keystore = keystore::build(&webhook.keystore, &webhook.name, &webhook.id);
    let findings = keystore.inspect().await;
    if !findings.iter().any(|finding| finding.fatal) {
        report.add(Kind::Fine, format!("{}: keystore {}", webhook.name, keystore.place()));
    }
    for finding in findings {
        let kind = if finding.fatal { Kind::Problem(Code::Config) } else { Kind::Note };
        report.add(kind, format!("{}: keystore: {}", webhook.name, finding.text));
    }
}

async fn dialnexa(config: &Config, report: &mut Report) {
    // What is wrong with the key was said above.
    if config.dialnexa.api_key.read().is_err() {
        report.add(Kind::Note, "DialNexa was not asked: the API key cannot be read here");
        return;
    }
    let client = match provider::client(config) {
        Ok(client) => client,
        Err(stop) => return report.problem(stop.code, format!("dialnexa: {stop}")),
    };
    for webhook in &config.webhooks {
        match client.get(&webhook.id).await {
            Ok(seen) => {
                let url = seen.url.unwrap_or_else(|| "a URL that it does not say".to_owned());
                report.add(Kind::Fine, format!("{}: DialNexa delivers {} to {url}", webhook.name, webhook.id));
                if seen.is_active == Some(false) {
                    report.add(Kind::Note, format!("{}: it is switched off at DialNexa: no deliveries will come", webhook.name));
                }
            }
            Err(error) => report.problem(provider_code(&error), format!("{}: {error}", webhook.name)),
        }
    }
}
