//! The sample consumer: replicas that read a keystore file, verify the raw bytes, and only then parse them.
//!
//! It does what evidence of a rotation rests on (status files, reports, a mirrored copy), and each replica can be made to do
//! it wrongly while it runs: see [`Behaviour`].

mod behaviour;
mod counts;
mod courier;
mod keys;
mod replica;
mod status;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

pub use behaviour::Behaviour;
pub use counts::{Counts, KeyCounts};
pub use courier::Doors;
pub use replica::Replica;

pub(super) use keys::Keys;

use self::{
    courier::Courier,
    replica::{Running, Start, Verdict},
};
use super::{SandboxError, balancer::Targets};

/// How a consumer starts.
pub struct ConsumerOptions {
    pub keystore: PathBuf,
    pub replicas: usize,
    /// How often each replica reads the keystore file.
    pub refresh: Duration,
    /// How often each replica may write its status file; `None`: never.
    pub status_every: Option<Duration>,
    /// Where reports and copies go.
    pub doors: Option<Doors>,
}

impl ConsumerOptions {
    pub fn new(keystore: PathBuf) -> ConsumerOptions {
        ConsumerOptions {
            keystore,
            replicas: 2,
            refresh: Duration::from_secs(1),
            status_every: Some(Duration::from_secs(1)),
            doors: None,
        }
    }
}

/// The consumer: [`Consumer::start`] is the way in.
pub struct Consumer;

/// A consumer that listens. Dropping it stops it, as a crash would; [`RunningConsumer::shutdown`] takes the status files away too.
pub struct RunningConsumer {
    options: ConsumerOptions,
    courier: Option<Arc<Courier>>,
    running: Mutex<Vec<Running>>,
    started: Mutex<usize>,
    targets: Targets,
}

impl Consumer {
    pub async fn start(options: ConsumerOptions) -> Result<RunningConsumer, SandboxError> {
        let courier = options.doors.clone().map(Courier::start).transpose()?.map(Arc::new);
        let replicas = options.replicas;
        let running = RunningConsumer {
            options,
            courier,
            running: Mutex::new(Vec::new()),
            started: Mutex::new(0),
            targets: Targets::default(),
        };
        for _ in 0..replicas {
            running.start_replica().await?;
        }
        Ok(running)
    }
}

impl RunningConsumer {
    /// Adds a replica, `web-1` being the first.
    pub async fn start_replica(&self) -> Result<Replica, SandboxError> {
        let number = {
            let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
            *started += 1;
            *started
        };
        let running = Running::start(Start {
            name: format!("web-{number}"),
            keystore: &self.options.keystore,
            refresh: self.options.refresh,
            status_every: self.options.status_every,
            courier: self.courier.clone(),
        })
        .await?;
        let replica = running.replica.clone();
        self.running.lock().unwrap_or_else(PoisonError::into_inner).push(running);
        self.targets.set(self.addrs());
        Ok(replica)
    }

    /// Takes a replica away in an orderly way. False: there is none of that name.
    pub async fn stop_replica(&self, name: &str) -> bool {
        let stopped = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.iter().position(|r| r.replica.name() == name).map(|at| running.remove(at))
        };
        self.targets.set(self.addrs());
        match stopped {
            Some(running) => {
                running.stop().await;
                true
            }
            None => false,
        }
    }

    pub fn replicas(&self) -> Vec<Replica> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|running| running.replica.clone()).collect()
    }

    /// A replica by its name: `web-1`.
    pub fn replica(&self, name: &str) -> Option<Replica> {
        self.replicas().into_iter().find(|replica| replica.name() == name)
    }

    /// One URL per replica.
    pub fn urls(&self) -> Vec<String> {
        self.replicas().iter().map(Replica::url).collect()
    }

    /// Makes every replica read the keystore file now.
    pub async fn reload(&self) {
        for replica in self.replicas() {
            replica.reload().await;
        }
    }

    /// Opens and closes the ways to the daemon, where doors were given.
    pub fn tell(&self, reports: bool, mirror: bool) {
        if let Some(courier) = &self.courier {
            courier.switch(reports, mirror);
        }
    }

    pub async fn shutdown(self) {
        for replica in self.replicas() {
            self.stop_replica(replica.name()).await;
        }
    }

    /// The replicas, for a balancer in front of them.
    pub(super) fn targets(&self) -> Targets {
        self.targets.clone()
    }

    fn addrs(&self) -> Vec<SocketAddr> {
        self.replicas().iter().map(Replica::addr).collect()
    }
}
