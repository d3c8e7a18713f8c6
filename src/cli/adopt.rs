//! `adopt`: hands over the secret that DialNexa signs with already. It never gives one back, so a person must.

use std::{
    fs,
    io::{self, IsTerminal, Read},
    path::{Path, PathBuf},
};

use clap::Args;
use zeroize::Zeroizing;

use super::{
    access::{Access, Need, actor, known},
    exit::{Code, Stop},
    out,
};
use crate::{
    config::Config,
    daemon::{AdoptedSecret, Request},
    secret::Secret,
};

/// Where the secret comes from; stdin, where nothing is said.
#[derive(Args)]
pub struct Adopt {
    name: String,
    /// Read it from a file; one trailing newline is stripped
    #[arg(long, value_name = "FILE", group = "origin")]
    secret_file: Option<PathBuf>,
    /// Take the one key that the consumer's keystore holds already
    #[arg(long, group = "origin")]
    from_keystore: bool,
    /// Nobody knows it: the consumer keeps what it has until the first rotation is over, and there is no way back
    #[arg(long, group = "origin")]
    unknown: bool,
    #[arg(long)]
    json: bool,
}

impl Adopt {
    pub async fn run(self, config: Config) -> Result<Code, Stop> {
        known(&config, &self.name)?;
        let secret = self.secret()?;
        let purpose = format!("adopt {}", self.name);
        let need = Need { purpose: &purpose, webhooks: std::slice::from_ref(&self.name), doors: false, read_only: false };
        let access = Access::open(&config, need).await?;
        let reply = access.office().perform(&self.name, Request::Adopt { secret }, &actor()).await;
        access.close().await;
        let reply = reply?;
        match self.json {
            true => out::json(&reply)?,
            false => out::line(&reply.text)?,
        }
        Ok(Code::Done)
    }

    fn secret(&self) -> Result<AdoptedSecret, Stop> {
        if self.unknown {
            return Ok(AdoptedSecret::Unknown);
        }
        if self.from_keystore {
            return Ok(AdoptedSecret::FromKeystore);
        }
        let (place, text) = match &self.secret_file {
            Some(path) => (path.display().to_string(), read(fs::File::open(path), &path.display().to_string())?),
            None => ("stdin".to_owned(), from_stdin()?),
        };
        let secret = Secret::parse(&text).map_err(|bad| Stop::usage(format!("{place}: {bad}")))?;
        Ok(AdoptedSecret::Given(secret.expose().to_owned()))
    }
}

/// One line from a terminal, everything from a pipe.
fn from_stdin() -> Result<Zeroizing<String>, Stop> {
    if !io::stdin().is_terminal() {
        return read(Ok(io::stdin()), "stdin");
    }
    eprintln!(
        "the secret that DialNexa signs with now, then Enter (it will be visible; --secret-file FILE reads it from a file):"
    );
    let mut text = Zeroizing::new(String::with_capacity(Secret::MAX_BYTES + 2));
    io::stdin().read_line(&mut text).map_err(|error| Stop::usage(format!("stdin: {error}")))?;
    Ok(text)
}

/// No more than a secret can be, so that a wrong file is not read into memory.
fn read(source: io::Result<impl Read>, place: &str) -> Result<Zeroizing<String>, Stop> {
    let wrong = |error: io::Error| Stop::usage(format!("{}: {error}", Path::new(place).display()));
    let mut text = Zeroizing::new(String::with_capacity(Secret::MAX_BYTES + 4));
    source.map_err(wrong)?.take(Secret::MAX_BYTES as u64 + 3).read_to_string(&mut text).map_err(wrong)?;
    Ok(text)
}
