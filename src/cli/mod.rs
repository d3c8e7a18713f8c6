//! The commands. One file each; here is only what they share the door with: arguments, logging, exit codes.
//!
//! What a command prints for the caller goes to stdout, and everything about the command itself to stderr. Exit codes are in
//! [`exit`]; how a command reaches a running daemon, or does the work itself, is in [`access`].

mod access;
mod adopt;
mod check;
mod completions;
mod demo;
mod drill;
mod exit;
mod explain;
mod history;
mod init;
mod keygen;
mod logging;
mod operate;
mod out;
mod panel;
mod plan;
mod progress;
mod provider;
mod reaccept;
mod receive;
mod replay;
mod rotate_now;
mod run;
mod sandbox;
mod status;
mod survey;
mod time;
mod webhook;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};

use crate::config::Config;
use exit::{Code, Stop};

/// Rotates the signing secret of DialNexa webhooks without losing a delivery.
#[derive(Parser)]
#[command(name = "hookturn", version, max_term_width = 110, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 held or failed, a person is needed; 3 not there yet; 64 wrong usage; 69 DialNexa, keystore or store \
unreachable; 70 our own bug; 75 another hookturn holds the store; 78 wrong configuration.";

#[derive(Args)]
struct Global {
    /// The configuration file
    #[arg(
        short,
        long,
        global = true,
        env = "HOOKTURN_CONFIG",
        default_value = "/etc/hookturn/hookturn.toml",
        value_name = "FILE"
    )]
    config: PathBuf,
    /// What to log, as `info` or `hookturn=debug` (RUST_LOG says the same)
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
    #[arg(long, global = true, value_enum, default_value_t = logging::Format::Human, value_name = "FORMAT")]
    log_format: logging::Format,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon: the schedule, the doors for evidence, the control socket
    Run,
    /// Run the gateway: verify deliveries and pass them on to a consumer that can hold one secret or none
    Receive,
    /// Rotate now, and watch until the asked state is reached
    RotateNow(rotate_now::RotateNow),
    /// Show where every webhook is
    Status(status::Status),
    /// Tell what happened, what is known, why it is safe, and what comes next
    Explain(explain::Explain),
    /// Print the journal of a webhook
    History(history::History),
    /// Work the event log of a webhook out again, and say whether it comes to the same
    Replay(replay::Replay),
    /// Show what a rotation would do, and change nothing
    Plan(plan::Plan),
    /// Check the configuration and everything it names
    Check(check::Check),
    /// Hand over the secret that is there already
    Adopt(adopt::Adopt),
    /// Begin nothing new until `resume`
    Pause(operate::Named),
    /// Go on after `pause`, or leave a hold whose cause is mended
    Resume(operate::Named),
    /// Give up a rotation before its secret was sent
    Abort(operate::Named),
    /// Turn back to the previous secret
    Rollback(operate::Named),
    /// Replace the target of the rotation under way by a fresh secret
    Supersede(operate::Named),
    /// Accept a retired secret again for a while, for late retries
    Reaccept(reaccept::Reaccept),
    /// Do not wait any more for replicas whose address has vanished
    Dismiss(operate::Dismiss),
    /// Print the accepted secrets, to go on without hookturn; it is written into the journal
    Eject(operate::Named),
    /// Write a first configuration
    Init(init::Init),
    /// Make a sealing key
    Keygen(keygen::Keygen),
    /// List, show or update webhooks at DialNexa
    #[command(subcommand)]
    Webhook(webhook::Webhook),
    /// Find out on a throw-away webhook of a live account what no page of DialNexa says
    Survey(survey::Command),
    /// Watch one full rotation on this machine, against a DialNexa look-alike
    Demo(demo::Demo),
    /// Run a DialNexa look-alike with a consumer and traffic, to try things out
    Sandbox(sandbox::Sandbox),
    /// Kill this program at every boundary and at random, against a DialNexa look-alike, and judge what came of it
    Drill(drill::Drill),
    /// Print a completion script
    Completions(completions::Completions),
}

/// The program: reads the arguments, runs the command, and says how it ended.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    // Both TLS users ask the process for its provider. A second installation is not an error that matters.
    let _ = rustls::crypto::ring::default_provider().install_default();
    logging::begin(&cli.global, matches!(cli.command, Command::Run | Command::Receive));
    // All of them wait most of the time. What stands in the path of deliveries has threads of its own.
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    #[cfg(feature = "mutants")]
    if let Err(stop) = broken_rule(&mut builder) {
        return stop.report();
    }
    let runtime = match builder.worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Stop::new(Code::Bug, format!("no runtime: {error}")).report(),
    };
    let ended = runtime.block_on(dispatch(cli));
    // A blocked read of stdin must not keep the process.
    runtime.shutdown_background();
    match ended {
        Ok(code) => code.into(),
        Err(stop) => stop.report(),
    }
}

/// Breaks a rule of the core in the whole process, for the crash drill to notice (docs/testing.md).
#[cfg(feature = "mutants")]
fn broken_rule(runtime: &mut tokio::runtime::Builder) -> Result<(), Stop> {
    use crate::rotation::mutants::{self, Mutant};
    const VARIABLE: &str = "HOOKTURN_MUTANT";
    let Ok(name) = std::env::var(VARIABLE) else { return Ok(()) };
    let mutant = Mutant::named(&name).ok_or_else(|| Stop::usage(format!("{VARIABLE}={name}: there is no such mutant")))?;
    mutants::set(Some(mutant));
    runtime.on_thread_start(move || mutants::set(Some(mutant)));
    Ok(())
}

async fn dispatch(cli: Cli) -> Result<Code, Stop> {
    let file: &Path = &cli.global.config;
    let config = || Config::load(file).map_err(Stop::from);
    match cli.command {
        Command::Run => run::run(config()?).await,
        Command::Receive => receive::receive(config()?).await,
        Command::RotateNow(command) => command.run(config()?).await,
        Command::Status(command) => command.run(config()?).await,
        Command::Explain(command) => command.run(config()?).await,
        Command::History(command) => command.run(config()?).await,
        Command::Replay(command) => command.run(file).await,
        Command::Plan(command) => command.run(config()?).await,
        Command::Check(command) => command.run(config()?).await,
        Command::Adopt(command) => command.run(config()?).await,
        Command::Pause(named) => named.run(config()?, operate::Operation::Pause).await,
        Command::Resume(named) => named.run(config()?, operate::Operation::Resume).await,
        Command::Abort(named) => named.run(config()?, operate::Operation::Abort).await,
        Command::Rollback(named) => named.run(config()?, operate::Operation::Rollback).await,
        Command::Supersede(named) => named.run(config()?, operate::Operation::Supersede).await,
        Command::Reaccept(command) => command.run(config()?).await,
        Command::Dismiss(command) => operate::dismiss(config()?, command).await,
        Command::Eject(named) => operate::eject(config()?, named).await,
        Command::Init(command) => command.run().await,
        Command::Keygen(command) => command.run(),
        Command::Webhook(command) => command.run(config()?).await,
        Command::Survey(command) => command.run(config()?).await,
        Command::Demo(command) => command.run().await,
        Command::Sandbox(command) => command.run().await,
        Command::Drill(command) => command.run().await,
        Command::Completions(command) => command.run(),
    }
}

/// Help and version are what was asked for; everything else is a wrong usage.
fn usage(error: &clap::Error) -> ExitCode {
    let wrong = error.use_stderr();
    match error.print() {
        Ok(()) if wrong => Code::Usage.into(),
        Ok(()) => Code::Done.into(),
        Err(error) => Stop::from(error).report(),
    }
}
