//! One life of the program: how it is started, how it dies, and how far it came.

use std::{
    fs::OpenOptions,
    io,
    os::unix::process::ExitStatusExt,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::lane::Lane;
use crate::{
    admin::remote::Remote,
    boundary::{self, Boundary},
    daemon::{Office, Request},
    sandbox::provider::Injection,
};

/// Which command does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `hookturn run`, asked through its control socket.
    Daemon,
    /// `hookturn rotate-now`, with no daemon.
    OneShot,
}

/// What becomes of a life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Live,
    /// It aborts at the boundary, for the so-manieth time.
    DieAt(Boundary, u32),
    /// SIGKILL while DialNexa works on a PATCH.
    KillInPatch,
    KillAfter(Duration),
    /// SIGTERM: an orderly end.
    TermAfter(Duration),
    /// SIGSTOP, and SIGKILL so much later.
    FreezeAndKill(Duration, Duration),
    /// Once a daemon is up: SIGSTOP, and SIGCONT so much later. Meanwhile another is started, which must not get the store.
    Stall(Duration, Duration),
}

/// How far a life came.
#[derive(Debug)]
pub(super) enum End {
    Completed,
    Held(String),
    /// By a signal, or in an orderly way because it was told to.
    Died {
        aborted: bool,
    },
    /// It could not begin; to be tried again.
    NotNow,
    /// What must never happen.
    Broke(String),
}

/// How often a daemon is asked where it is.
const LOOK_EVERY: Duration = Duration::from_millis(90);
/// A PATCH is looked out for closely: its answer takes some milliseconds.
const WATCH_EVERY: Duration = Duration::from_millis(1);

/// Starts a life and follows it until rotation `number` is over, it is held, or dead. `later` is injected once the rotation
/// has begun. The process may still be there at the end.
pub(super) async fn live(
    lane: &Lane,
    kind: Kind,
    fate: Fate,
    number: u64,
    later: &mut Option<Injection>,
) -> (End, Option<Child>) {
    let mut command = match kind {
        Kind::Daemon => lane.command(&["--log", "info", "run"]),
        Kind::OneShot => {
            lane.command(&["--log", "info", "rotate-now", lane.name(), "--unconfirmed", "--until", "retired", "--timeout", "5m"])
        }
    };
    if let Fate::DieAt(boundary, count) = fate {
        command.env(boundary::DIE_AT, format!("{boundary}:{count}"));
    }
    let patches = lane.provider().patch_count();
    let mut child = match spawn(lane, &mut command) {
        Ok(child) => child,
        Err(error) => return (End::Broke(format!("the program does not start: {error}")), None),
    };
    let pid = pid(&child);
    let end = tokio::select! {
        exit = child.wait() => ended(lane, fate, exit).await,
        end = follow(lane, kind, number, later) => return (end, Some(child)),
        end = strike(lane, fate, pid, patches) => return (end, Some(child)),
    };
    (end, None)
}

/// Starts a process whose output goes to the lane's log.
pub(super) fn spawn(lane: &Lane, command: &mut Command) -> io::Result<Child> {
    let log = OpenOptions::new().create(true).append(true).open(lane.log())?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true).spawn()
}

fn pid(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
}

/// Sends what the fate has for the process, and then waits for ever, unless somebody takes over what is not free.
async fn strike(lane: &Lane, fate: Fate, pid: Option<Pid>, patches: u64) -> End {
    let send = |signal| {
        // A process that is gone already needs no signal.
        let _ = pid.map(|pid| kill_process(pid, signal));
    };
    match fate {
        Fate::Live | Fate::DieAt(..) => {}
        Fate::KillInPatch => {
            while lane.provider().patch_count() == patches {
                tokio::time::sleep(WATCH_EVERY).await;
            }
            send(Signal::KILL);
        }
        Fate::KillAfter(time) => {
            tokio::time::sleep(time).await;
            send(Signal::KILL);
        }
        Fate::TermAfter(time) => {
            tokio::time::sleep(time).await;
            send(Signal::TERM);
        }
        Fate::FreezeAndKill(time, frozen) => {
            tokio::time::sleep(time).await;
            send(Signal::STOP);
            tokio::time::sleep(frozen).await;
            send(Signal::KILL);
        }
        Fate::Stall(time, stalled) => {
            while !matches!(Remote::connect(&lane.admin()).await, Ok(Some(_))) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            tokio::time::sleep(time).await;
            send(Signal::STOP);
            let (second, ()) = tokio::join!(second(lane), tokio::time::sleep(stalled));
            send(Signal::CONT);
            if let Err(why) = second {
                return End::Broke(why);
            }
        }
    }
    std::future::pending().await
}

/// Starts another daemon beside one that stands still. It must not come up.
async fn second(lane: &Lane) -> Result<(), String> {
    let mut child = spawn(lane, &mut lane.command(&["run"])).map_err(|error| format!("a second daemon: {error}"))?;
    let exit = tokio::time::timeout(lane.patience, child.wait()).await;
    match exit.map(|exit| exit.map(|exit| exit.code())) {
        Ok(Ok(Some(75))) => Ok(()),
        other => Err(format!("a second daemon, beside one that stood still, ended with {other:?}")),
    }
}

async fn ended(lane: &Lane, fate: Fate, exit: io::Result<ExitStatus>) -> End {
    let exit = match exit {
        Ok(exit) => exit,
        Err(error) => return End::Broke(format!("its end cannot be seen: {error}")),
    };
    match (exit.code(), fate) {
        (None, _) => death(exit),
        (Some(0), Fate::TermAfter(_)) => End::Died { aborted: false },
        (Some(0), _) => End::Completed,
        // What is held is told by the store: the command says it for people.
        (Some(1), _) => match lane.held().await {
            Some(hold) => End::Held(hold),
            None => End::NotNow,
        },
        (Some(3 | 69 | 75), _) => End::NotNow,
        (Some(code), _) => End::Broke(format!("it ended with {code}")),
    }
}

/// The end of a process that a signal has ended.
pub(super) fn death(exit: ExitStatus) -> End {
    End::Died { aborted: exit.signal() == Some(Signal::ABORT.as_raw()) }
}

/// Asks the daemon for the rotation, and then where it is, until there is something to tell.
async fn follow(lane: &Lane, kind: Kind, number: u64, later: &mut Option<Injection>) -> End {
    let mut office: Option<Remote> = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if kind == Kind::OneShot {
            continue;
        }
        let Some(remote) = &office else {
            office = Remote::connect(&lane.admin()).await.unwrap_or(None);
            continue;
        };
        let Some(status) = remote.status().await.ok().and_then(|all| all.into_iter().next()) else {
            continue;
        };
        if let Some(hold) = status.hold {
            return End::Held(hold);
        }
        if status.completed >= number {
            return End::Completed;
        }
        if status.rotation < number {
            // A refusal of the preflight passes: it is asked again.
            let _ = remote.perform(lane.name(), Request::Rotate { compromised: false, unconfirmed: true }, "drill").await;
        } else if let Some(injection) = later.take() {
            lane.provider().inject(injection);
        }
    }
}
