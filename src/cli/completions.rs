//! `completions`: a script for the shell.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{
    Cli,
    exit::{Code, Stop},
    out,
};

#[derive(Args)]
pub struct Completions {
    shell: Shell,
}

impl Completions {
    pub fn run(self) -> Result<Code, Stop> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "hookturn", &mut script);
        out::raw(&script)?;
        Ok(Code::Done)
    }
}
