//! What is wrong with a configuration, said so that it can be put right without opening the manual.

use std::{fmt, ops::Range, path::PathBuf};

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};

use super::redact::{message_without_secrets, without_literal_secrets};

/// Everything that is wrong with one configuration file. Never empty.
///
/// A terminal shows it through `miette`, each place underlined; a log takes [`ConfigError::lines`]. The text it carries is
/// the file's, less every value that looks like a secret written into it.
pub struct ConfigError {
    path: PathBuf,
    text: NamedSource<String>,
    problems: Vec<Problem>,
}

/// One thing to correct.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// One sentence.
    pub message: String,
    /// The way out.
    pub help: Option<String>,
    /// What is underlined, in bytes of the file. `None`: the file as a whole.
    pub span: Option<Range<usize>>,
    /// Two or three words under the line.
    pub label: String,
}

impl Problem {
    pub fn new(message: impl Into<String>) -> Problem {
        Problem { message: message.into(), help: None, span: None, label: String::new() }
    }

    #[must_use]
    pub fn at(mut self, span: Range<usize>) -> Problem {
        self.span = Some(span);
        self
    }

    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Problem {
        self.label = label.into();
        self
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(help.into());
        self
    }
}

impl ConfigError {
    pub(super) fn new(path: PathBuf, text: &str, mut problems: Vec<Problem>) -> ConfigError {
        for problem in &mut problems {
            problem.message = message_without_secrets(&problem.message);
            problem.label = message_without_secrets(&problem.label);
            problem.help = problem.help.take().map(|help| message_without_secrets(&help));
        }
        problems.sort_by_key(|problem| problem.span.as_ref().map_or(usize::MAX, |span| span.start));
        problems.dedup();
        let text = NamedSource::new(path.display().to_string(), without_literal_secrets(text)).with_language("TOML");
        ConfigError { path, text, problems }
    }

    /// In the order of the file.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// `FILE:LINE:COLUMN: message`, one for each problem.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.problems.iter().map(|problem| format!("{}: {}", self.place(problem), problem.message))
    }

    /// What a problem underlines, as the file has it.
    pub fn underlined(&self, problem: &Problem) -> Option<&str> {
        self.text.inner().get(problem.span.clone()?)
    }

    /// `FILE:LINE:COLUMN`, or `FILE`.
    fn place(&self, problem: &Problem) -> String {
        let path = self.path.display();
        match problem.span.as_ref().and_then(|span| self.text.inner().get(..span.start)) {
            Some(before) => {
                let line = before.matches('\n').count() + 1;
                let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
                format!("{path}:{line}:{column}")
            }
            None => path.to_string(),
        }
    }

    fn only(&self) -> Option<&Problem> {
        match self.problems.as_slice() {
            [one] => Some(one),
            _ => None,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.only() {
            Some(problem) => write!(f, "{}: {}", self.place(problem), problem.message),
            None => write!(f, "{}: {} things to correct", self.path.display(), self.problems.len()),
        }
    }
}

impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigError").field("path", &self.path).field("problems", &self.problems).finish()
    }
}

impl std::error::Error for ConfigError {}

impl Diagnostic for ConfigError {
    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.text)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.only().and_then(Diagnostic::help)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.only().and_then(Diagnostic::labels)
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        match self.only() {
            Some(_) => None,
            None => Some(Box::new(self.problems.iter().map(|problem| problem as &dyn Diagnostic))),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.span.clone()?;
        let label = (!self.label.is_empty()).then(|| self.label.clone());
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(label, span))))
    }
}
