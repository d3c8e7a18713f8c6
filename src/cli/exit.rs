//! How a command ends.

use std::{
    fmt,
    io::{self, IsTerminal},
    process::ExitCode,
};

use crate::{
    config::ConfigError,
    daemon::{Failure, StartError},
    dialnexa::ProviderError,
};

/// The exit codes, which are fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The asked state was reached.
    Done,
    /// Held or failed: a person is needed, and the message says what and how.
    PersonNeeded,
    /// Time-out, or nothing is running to finish it; it goes on or can go on.
    NotYet,
    Usage,
    /// DialNexa, keystore or store.
    Unreachable,
    Bug,
    /// Another hookturn holds the store.
    TryAgain,
    Config,
    /// As the daemon says.
    Other(u8),
}

impl Code {
    pub fn number(self) -> u8 {
        match self {
            Code::Done => 0,
            Code::PersonNeeded => 1,
            Code::NotYet => 3,
            Code::Usage => 64,
            Code::Unreachable => 69,
            Code::Bug => 70,
            Code::TryAgain => 75,
            Code::Config => 78,
            Code::Other(number) => number,
        }
    }

    /// The one of two that a caller should hear of: what needs a person or failed before what only waits, before done.
    pub fn worse(self, other: Code) -> Code {
        let rank = |code: Code| match code.number() {
            0 => 0,
            3 => 1,
            1 => 3,
            _ => 2,
        };
        if rank(other) > rank(self) { other } else { self }
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> ExitCode {
        ExitCode::from(code.number())
    }
}

/// A command ended before it could do what was asked.
#[derive(Debug)]
pub struct Stop {
    pub code: Code,
    text: Text,
}

#[derive(Debug)]
enum Text {
    /// The reader of our output went away: nothing to say, and nothing wrong.
    Silent,
    Plain(String),
    Config(Box<ConfigError>),
}

impl Stop {
    pub fn new(code: Code, text: impl Into<String>) -> Stop {
        Stop { code, text: Text::Plain(text.into()) }
    }

    pub fn usage(text: impl Into<String>) -> Stop {
        Stop::new(Code::Usage, text)
    }

    /// Says it on stderr.
    pub fn report(self) -> ExitCode {
        match self.text {
            Text::Silent => {}
            Text::Plain(text) => eprintln!("hookturn: {text}"),
            Text::Config(error) => report_config(*error),
        }
        self.code.into()
    }
}

/// With the place underlined for a person, one problem per line for a log.
fn report_config(error: ConfigError) {
    if io::stderr().is_terminal() {
        eprintln!("{:?}", miette::Report::new(error));
        return;
    }
    eprintln!("hookturn: {error}");
    for problem in error.problems() {
        if let Some(help) = &problem.help {
            eprintln!("  way out: {help}");
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Text::Silent => Ok(()),
            Text::Plain(text) => f.write_str(text),
            Text::Config(error) => write!(f, "{error}"),
        }
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Stop { code: Code::Done, text: Text::Silent },
            _ => Stop::new(Code::Unreachable, format!("the output cannot be written: {error}")),
        }
    }
}

impl From<ConfigError> for Stop {
    fn from(error: ConfigError) -> Stop {
        Stop { code: Code::Config, text: Text::Config(Box::new(error)) }
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::new(Code::Other(failure.exit), failure.text)
    }
}

impl From<StartError> for Stop {
    fn from(error: StartError) -> Stop {
        Stop::new(Code::Other(error.exit()), error.to_string())
    }
}

impl From<ProviderError> for Stop {
    fn from(error: ProviderError) -> Stop {
        Stop::new(provider_code(&error), error.to_string())
    }
}

/// A refused key or a missing webhook needs a person; the rest may pass.
pub fn provider_code(error: &ProviderError) -> Code {
    match error {
        ProviderError::ApiKeyRefused { .. } | ProviderError::NotFound { .. } | ProviderError::Refused { .. } => {
            Code::PersonNeeded
        }
        ProviderError::Limited { .. } | ProviderError::Unreachable(_) | ProviderError::Nonsense(_) => Code::Unreachable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_person_is_heard_before_what_waits() {
        assert_eq!(Code::Done.worse(Code::NotYet), Code::NotYet);
        assert_eq!(Code::NotYet.worse(Code::Unreachable), Code::Unreachable);
        assert_eq!(Code::PersonNeeded.worse(Code::Unreachable), Code::PersonNeeded);
        assert_eq!(Code::PersonNeeded.worse(Code::NotYet), Code::PersonNeeded);
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        assert_eq!(Stop::from(io::Error::from(io::ErrorKind::BrokenPipe)).code, Code::Done);
    }
}
