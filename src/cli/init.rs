//! `init`: a first configuration, checked against DialNexa before it is written.

use std::{
    fs,
    io::{self, BufRead, IsTerminal, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};

use super::{
    exit::{Code, Stop},
    keygen, out, provider,
};
use crate::{
    config::{Config, Credential},
    dialnexa::{self, Provider},
    secret::{SealingKey, Secret},
};

const API_KEY_FILE: &str = "dialnexa-api-key";
const SEALING_KEY_FILE: &str = "hookturn-sealing-key";
/// Where the unit's LoadCredential= lines look.
const UNIT_DIR: &str = "/etc/hookturn";
const BASE_URL: &str = "https://api.dialnexa.com/v1";

#[derive(Args)]
pub struct Init {
    /// Where the files go
    #[arg(long, default_value = "/etc/hookturn", value_name = "DIR")]
    dir: PathBuf,
    /// Who reads the two keys: systemd, which hands them to the unit, or hookturn itself [default: systemd where DIR is
    /// /etc/hookturn, else files]
    #[arg(long, value_enum, value_name = "WHO")]
    credentials: Option<Credentials>,
    /// The file with DialNexa's API key [default: DIR/dialnexa-api-key]
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// DialNexa's id of the webhook; asked for on a terminal
    #[arg(long, value_name = "ID")]
    webhook_id: Option<String>,
    /// What to call the webhook here: a-z, 0-9 and -
    #[arg(long)]
    name: Option<String>,
    #[arg(long, default_value = BASE_URL, value_name = "URL")]
    base_url: String,
    /// The file that the consumer reads its secrets from [default: /var/lib/hookturn-keys/NAME/secrets.json]
    #[arg(long, value_name = "FILE")]
    keystore: Option<PathBuf>,
    /// A replica's webhook URL, once for each replica
    #[arg(long, value_name = "URL")]
    probe: Vec<String>,
    /// Where hookturn keeps its store [default: /var/lib/hookturn/hookturn.db]
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
    /// Do not ask DialNexa
    #[arg(long)]
    offline: bool,
    /// Ask nothing: what was not said takes its default
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Credentials {
    Systemd,
    Files,
}

/// What the file will say.
struct Answers {
    id: String,
    name: String,
    keystore: PathBuf,
    probe: Vec<String>,
}

impl Init {
    pub async fn run(self) -> Result<Code, Stop> {
        let dir = std::path::absolute(&self.dir).map_err(|error| self.failed(&self.dir, &error))?;
        let file = dir.join("hookturn.toml");
        if file.exists() {
            return Err(Stop::new(Code::PersonNeeded, format!("{} is there already, and is never overwritten", file.display())));
        }
        let api_key_file = self.api_key_file.clone().unwrap_or_else(|| dir.join(API_KEY_FILE));
        let api_key_file = std::path::absolute(&api_key_file).unwrap_or(api_key_file);
        let there = if self.offline { Vec::new() } else { self.list(&api_key_file).await? };
        let answers = self.answers(&there)?;
        let text = self.text(&dir, &api_key_file, &answers);
        // Only what `run` would take is written.
        Config::parse(&file, &text)?;
        self.write(&dir, &file, &text)?;
        self.next_steps(&dir, &file, &api_key_file, &answers)?;
        Ok(Code::Done)
    }

    async fn list(&self, api_key_file: &Path) -> Result<Vec<dialnexa::Webhook>, Stop> {
        let wrong = |text: String| Stop::new(Code::Config, text);
        let key = Credential::File(api_key_file.to_owned()).read().map_err(|error| {
            wrong(format!(
                "{error}\nput DialNexa's API key there (mode 0600), name its file with --api-key-file, or say --offline"
            ))
        })?;
        let key = Secret::parse(&key).map_err(|_| wrong(format!("{}: not an API key", api_key_file.display())))?;
        Ok(provider::client_for(self.base_url.clone(), key, None)?.list().await?)
    }

    fn answers(&self, there: &[dialnexa::Webhook]) -> Result<Answers, Stop> {
        let asks = !self.yes && io::stdin().is_terminal() && io::stderr().is_terminal();
        let id = match (&self.webhook_id, there) {
            (Some(id), []) => id.clone(),
            (Some(id), there) if there.iter().any(|webhook| webhook.id == *id) => id.clone(),
            (Some(id), there) => return Err(Stop::usage(format!("the account has no webhook {id}\n{}", shown(there)))),
            (None, there) if asks => choose(there)?,
            (None, [only]) => only.id.clone(),
            (None, there) => return Err(Stop::usage(format!("--webhook-id says which one\n{}", shown(there)))),
        };
        let name = answer(asks, "a name for it (a-z, 0-9 and -)", self.name.clone(), "billing")?;
        let keystore = self.keystore.as_ref().map(|path| path.display().to_string());
        let usual = format!("/var/lib/hookturn-keys/{name}/secrets.json");
        let keystore = PathBuf::from(answer(asks, "the file that the consumer reads its secrets from", keystore, &usual)?);
        let said = (!self.probe.is_empty()).then(|| self.probe.join(" "));
        let probe = answer(asks, "the consumer's webhook URL, one for each replica", said, "http://127.0.0.1:9000/hook")?;
        Ok(Answers { id, name, keystore, probe: probe.split_whitespace().map(str::to_owned).collect() })
    }

    fn credentials(&self, dir: &Path) -> Credentials {
        let usual = if dir == Path::new(UNIT_DIR) { Credentials::Systemd } else { Credentials::Files };
        self.credentials.unwrap_or(usual)
    }

    fn text(&self, dir: &Path, api_key_file: &Path, answers: &Answers) -> String {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let path = |path: &Path| quoted(&path.display().to_string());
        let base_url = match self.base_url.as_str() {
            BASE_URL => String::new(),
            url => format!("base_url = {}\n", quoted(url)),
        };
        let store = self
            .store
            .as_ref()
            .map(|store| format!("url = {}\n", quoted(&format!("sqlite:{}", store.display()))))
            .unwrap_or_default();
        let sealing_key_file = dir.join(SEALING_KEY_FILE);
        let credential = |name: &str, file: &Path| match self.credentials(dir) {
            Credentials::Systemd => format!("{{ credential = {} }}   # LoadCredential= of the unit", quoted(name)),
            Credentials::Files => format!("{{ file = {} }}", path(file)),
        };
        format!(
            "# hookturn. Every key, its meaning and its default: hookturn.toml of the documentation. After a change: `hookturn check`.\n\
             \n\
             [dialnexa]\n\
             {base_url}\
             api_key = {api_key}\n\
             \n\
             [store]\n\
             {store}\
             # Seals every secret in the store. Keep a copy of it apart from backups of the store.\n\
             sealing_key = {sealing_key}\n\
             \n\
             [[webhook]]\n\
             name = {name}\n\
             id = {id}\n\
             # every = \"30d\"                           # on demand only, until you say this\n\
             # only_between = \"Mon-Thu 09:00-16:00\"    # when traffic is there and people are awake\n\
             # The consumer reads this file and accepts every key in it. Mount its directory, never the file.\n\
             keystore = {{ kind = \"file\", path = {keystore} }}\n\
             # One URL per replica: shown to accept a new secret before DialNexa uses it.\n\
             preflight = {{ probe = [{probe}] }}\n",
            api_key = credential(API_KEY_FILE, api_key_file),
            sealing_key = credential(SEALING_KEY_FILE, &sealing_key_file),
            name = quoted(&answers.name),
            id = quoted(&answers.id),
            keystore = path(&answers.keystore),
            probe = answers.probe.iter().map(|url| quoted(url)).collect::<Vec<_>>().join(", "),
        )
    }

    /// The sealing key first: a configuration without its key is worse than a key without a configuration.
    fn write(&self, dir: &Path, file: &Path, text: &str) -> Result<(), Stop> {
        if !dir.is_dir() {
            fs::DirBuilder::new().mode(0o750).create(dir).map_err(|error| self.failed(dir, &error))?;
        }
        let sealing_key = dir.join(SEALING_KEY_FILE);
        if !sealing_key.exists() {
            let key = SealingKey::generate().map_err(|error| Stop::new(Code::Bug, error.to_string()))?;
            keygen::write_new(&sealing_key, &key)?;
        }
        let write = || {
            let mut new = fs::OpenOptions::new().write(true).create_new(true).mode(0o640).open(file)?;
            new.write_all(text.as_bytes())?;
            new.sync_all()
        };
        write().map_err(|error| self.failed(file, &error))
    }

    fn next_steps(&self, dir: &Path, file: &Path, api_key_file: &Path, answers: &Answers) -> Result<(), Stop> {
        let (name, sealing_key_file) = (&answers.name, dir.join(SEALING_KEY_FILE));
        let config = match file == Path::new(UNIT_DIR).join("hookturn.toml") {
            true => String::new(),
            false => format!(" -c {}", file.display()),
        };
        let run = match self.credentials(dir) {
            Credentials::Systemd => "systemctl start hookturn".to_owned(),
            Credentials::Files => format!("hookturn{config} run              # stays in the foreground"),
        };
        let mut text = format!(
            "written: {}, {}\nnext:\n  {run}\n  hookturn{config} adopt {name}      # hand over the secret that the consumer has \
             now\n  hookturn{config} check --probe {name}\n  hookturn{config} rotate-now {name}",
            file.display(),
            sealing_key_file.display(),
        );
        for (credential, file) in [(API_KEY_FILE, api_key_file), (SEALING_KEY_FILE, &sealing_key_file)] {
            if self.credentials(dir) == Credentials::Systemd && file != Path::new(UNIT_DIR).join(credential) {
                let line = format!("LoadCredential={credential}:{}", file.display());
                text.push_str(&format!("\nthe unit looks elsewhere: `systemctl edit hookturn`, and in [Service]: {line}"));
            }
        }
        out::line(&text)
    }

    fn failed(&self, path: &Path, error: &io::Error) -> Stop {
        Stop::new(Code::PersonNeeded, format!("{}: {error}", path.display()))
    }
}

fn shown(there: &[dialnexa::Webhook]) -> String {
    let line = |(i, webhook): (usize, &dialnexa::Webhook)| {
        format!("  {}  {}  {}", i + 1, webhook.id, webhook.url.as_deref().unwrap_or("-"))
    };
    there.iter().enumerate().map(line).collect::<Vec<_>>().join("\n")
}

fn choose(there: &[dialnexa::Webhook]) -> Result<String, Stop> {
    if there.is_empty() {
        return answer(true, "DialNexa's id of the webhook", None, "");
    }
    eprintln!("{}", shown(there));
    loop {
        let chosen = answer(true, "which one", None, "1")?;
        let by_number = chosen.parse::<usize>().ok().and_then(|n| there.get(n.checked_sub(1)?));
        match by_number.or_else(|| there.iter().find(|webhook| webhook.id == chosen)) {
            Some(webhook) => return Ok(webhook.id.clone()),
            None => eprintln!("a number from 1 to {}, or an id", there.len()),
        }
    }
}

/// What was said on the command line, else what a person types, else the usual.
fn answer(asks: bool, question: &str, said: Option<String>, usual: &str) -> Result<String, Stop> {
    if let Some(said) = said {
        return Ok(said);
    }
    if !asks {
        return Ok(usual.to_owned());
    }
    eprint!("{question} [{usual}]: ");
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line).map_err(|error| Stop::usage(format!("stdin: {error}")))?;
    if read == 0 {
        return Err(Stop::usage("the answers ended before the questions; nothing was written"));
    }
    Ok(match line.trim() {
        "" => usual.to_owned(),
        typed => typed.to_owned(),
    })
}
