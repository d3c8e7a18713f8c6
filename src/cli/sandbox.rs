//! `sandbox`: a DialNexa look-alike, a consumer and traffic, until Ctrl-C.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

use super::{
    exit::{Code, Stop},
    out,
};
use crate::sandbox::{Sandbox, SandboxOptions};

#[derive(Args)]
pub struct SandboxCommand {
    /// Where everything on disk goes
    #[arg(long, default_value = "./hookturn-sandbox")]
    dir: PathBuf,
    /// The look-alike's port; 0 is any free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Consumer processes that read the keystore
    #[arg(long, default_value_t = 2)]
    replicas: usize,
    /// Events per second
    #[arg(long, default_value_t = 2.0)]
    rate: f64,
}

impl SandboxCommand {
    pub async fn run(self) -> Result<Code, Stop> {
        let mut options = SandboxOptions::new(self.dir.clone());
        options.provider = SocketAddr::from(([127, 0, 0, 1], self.port));
        options.replicas = self.replicas;
        options.per_second = self.rate;
        let failed =
            |error: crate::sandbox::SandboxError| Stop::new(Code::Unreachable, format!("the sandbox does not start: {error}"));
        let sandbox = Sandbox::start(options).await.map_err(failed)?;
        let config = sandbox.write_config(&self.dir).map_err(failed)?;
        let (config, secret) = (config.display(), sandbox.secret_file());
        let secret = secret.display();
        out::line(&format!("DialNexa look-alike  {}   (control: /control/state, docs/sandbox.md)", sandbox.base_url()))?;
        for url in sandbox.consumer.urls() {
            out::line(&format!("consumer replica     {url}"))?;
        }
        out::line(&format!("keystore             {}", sandbox.keystore.display()))?;
        out::line(&format!("configuration        {config}\n\nIn another terminal:"))?;
        out::line(&format!("  hookturn -c {config} adopt billing --secret-file {secret}"))?;
        out::line(&format!("  hookturn -c {config} run &"))?;
        out::line(&format!("  hookturn -c {config} rotate-now billing --until retired"))?;
        out::line("\nCtrl-C ends it; the files stay.")?;
        tokio::signal::ctrl_c().await?;
        sandbox.shutdown().await;
        Ok(Code::Done)
    }
}
