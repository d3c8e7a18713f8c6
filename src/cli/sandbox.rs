//! `sandbox`: a DialNexa look-alike, a consumer and traffic, until Ctrl-C, to try every other command on.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    exit::{Code, Stop},
    out,
};
use crate::{
    config,
    sandbox::{Sandbox as World, SandboxOptions},
};

#[derive(Args)]
pub struct Sandbox {
    /// Where everything goes, to be used again; a temporary directory that is removed at the end, where nothing is said
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The port of the DialNexa look-alike, on loopback; 0 is any free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Processes of the consumer
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    replicas: u16,
    /// Deliveries per second
    #[arg(long, default_value_t = 2.0, value_parser = rate)]
    rate: f64,
    /// How long a PATCH may still be applied, for the configuration that is written
    #[arg(long, default_value = "5s", value_parser = duration)]
    quarantine: Duration,
    /// How long deliveries signed with the old secret may come, for the same
    #[arg(long, default_value = "10s", value_parser = duration)]
    drain: Duration,
    /// The consumer mirrors its deliveries to the tap
    #[arg(long)]
    mirror: bool,
    /// The consumer reports nothing
    #[arg(long)]
    no_reports: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    config::duration(text).map_err(|bad| format!("{}: {}", bad.reason, bad.help))
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=1000.0).contains(&rate) { Ok(rate) } else { Err("0 to 1000".to_owned()) }
}

impl Sandbox {
    pub async fn run(self) -> Result<Code, Stop> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let temporary = match self.dir {
            Some(_) => None,
            None => Some(
                tempfile::tempdir()
                    .map_err(|error| Stop::new(Code::Unreachable, format!("no temporary directory: {error}; --dir names one")))?,
            ),
        };
        let dir = self.dir.clone().or_else(|| temporary.as_ref().map(|dir| dir.path().to_owned())).unwrap_or_default();
        let world = World::start(self.options(&dir)).await?;
        let config = world.write_config(&dir)?;
        out::line(&told(&world, &config, temporary.is_some()))?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        let totals = world.handle().totals();
        world.shutdown().await;
        out::line(&format!(
            "\ndeliveries: sent {}, accepted {}, rejected {}, without an answer {}",
            totals.sent, totals.accepted, totals.rejected, totals.lost
        ))?;
        Ok(Code::Done)
    }

    fn options(&self, dir: &Path) -> SandboxOptions {
        SandboxOptions {
            provider: SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)),
            replicas: usize::from(self.replicas),
            per_second: self.rate,
            quarantine: self.quarantine,
            drain: self.drain,
            mirror: self.mirror,
            reports: !self.no_reports,
            ..SandboxOptions::new(dir.to_owned())
        }
    }
}

fn told(world: &World, config: &Path, temporary: bool) -> String {
    let (secret, keystore) = (world.secret_file(), world.keystore.display());
    let (config, secret) = (shell(config), shell(&secret));
    let replicas = world.consumer.urls().join("\n             ");
    let control = format!("http://{}/control/state", world.provider.addr);
    let gone = if temporary { " (removed at the end; --dir DIR keeps it)" } else { "" };
    format!(
        "DialNexa     {}  (webhook {})\n\
         behind it    {control}\n\
         consumer     {replicas}\n\
         directory    {}{gone}\n\
         keystore     {keystore}\n\
         config       {config}\n\
         secret       {secret}\n\n\
         Try, in another terminal:\n\
         \x20 hookturn -c {config} adopt billing --secret-file {secret}\n\
         \x20 hookturn -c {config} run &\n\
         \x20 hookturn -c {config} rotate-now billing --until retired\n\
         \x20 hookturn -c {config} explain billing\n\
         \x20 curl -s {control}\n\n\
         Ctrl-C ends it.",
        world.base_url(),
        world.webhook_id,
        world.dir().display(),
    )
}

/// A path as a shell takes it.
fn shell(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+,=@".contains(c));
    if plain { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_a_space_or_a_quote_is_quoted() {
        assert_eq!(shell(Path::new("/tmp/a-b.c")), "/tmp/a-b.c");
        assert_eq!(shell(Path::new("/tmp/it's a")), r"'/tmp/it'\''s a'");
    }
}
