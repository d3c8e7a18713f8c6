//! Reading the keys of one table: absent, well written, or a problem with its place.

use std::{ops::Range, path::Path};

use serde_spanned::Spanned;

use super::{
    Command, Credential, Problem,
    nearest::nearest,
    raw::{self, Scalar, Text},
    value::{self, BadValue},
};

/// One table of the file while it is checked. A method that returns `None` for something that is written has noted why.
pub(super) struct Section<'a> {
    /// What relative paths are relative to.
    pub base: &'a Path,
    /// The table in words: `[store]`, `webhook billing`.
    pub title: String,
    /// Where it stands; empty where it does not.
    pub at: Range<usize>,
    pub problems: &'a mut Vec<Problem>,
}

impl Section<'_> {
    /// Notes a problem at `span`, or at the table's head where the value is a default.
    pub fn problem(&mut self, span: Range<usize>, problem: Problem) {
        let span = if span.is_empty() { self.at.clone() } else { span };
        self.problems.push(if span.is_empty() { problem } else { problem.at(span) });
    }

    pub fn bad(&mut self, span: Range<usize>, bad: BadValue) {
        self.problem(span, Problem::new(bad.reason).help(bad.help));
    }

    pub fn missing(&mut self, key: &str, help: &str) {
        let problem = Problem::new(format!("{} says no `{key}`", self.title)).label(format!("`{key}` is missing")).help(help);
        self.problem(0..0, problem);
    }

    /// The value, if it is written and well.
    pub fn optional<S: AsRef<str>, T>(
        &mut self,
        written: &Option<Spanned<S>>,
        parse: impl FnOnce(&str) -> Result<T, BadValue>,
    ) -> Option<T> {
        let written = written.as_ref()?;
        parse(written.get_ref().as_ref()).map_err(|bad| self.bad(written.span(), bad)).ok()
    }

    /// The value, which must be there (a default counts).
    pub fn required<S: AsRef<str>, T>(
        &mut self,
        key: &str,
        written: &Option<Spanned<S>>,
        parse: impl FnOnce(&str) -> Result<T, BadValue>,
    ) -> Option<T> {
        if written.is_none() {
            self.missing(key, &format!("add `{key}`; every key is described in the shipped hookturn.toml"));
        }
        self.optional(written, parse)
    }

    /// One of a few words.
    pub fn word<T: Copy>(&mut self, key: &str, written: &Option<Text>, words: &[(&str, T)]) -> Option<T> {
        self.required(key, written, |text| {
            words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning).ok_or_else(|| {
                let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                let near = nearest(text, known.iter().copied()).map(|near| format!("did you mean \"{near}\"? "));
                BadValue::new(
                    format!("`{key}` cannot be \"{text}\""),
                    format!("{}it is one of \"{}\"", near.unwrap_or_default(), known.join("\", \"")),
                )
            })
        })
    }

    pub fn path(&self, text: &str) -> std::path::PathBuf {
        value::resolved(self.base, text)
    }

    /// Where a credential is. Exactly one way is said.
    pub fn credential(&mut self, key: &str, written: &Option<Spanned<raw::Credential>>) -> Option<Credential> {
        let written = written.as_ref()?;
        let raw = written.get_ref();
        let ways = [&raw.credential, &raw.file, &raw.env];
        let named = |way: &Option<Text>| way.as_ref().map(|text| text.get_ref().clone()).filter(|name| !name.is_empty());
        let found = match (named(&raw.credential), named(&raw.file), named(&raw.env)) {
            (Some(name), None, None) if !name.contains('/') => Some(Credential::Systemd(name)),
            (None, Some(path), None) => Some(Credential::File(self.path(&path))),
            (None, None, Some(name)) if !name.contains('=') => Some(Credential::Env(name)),
            _ => None,
        };
        let found = found.filter(|_| ways.iter().filter(|way| way.is_some()).count() == 1);
        if found.is_none() {
            let help = format!("write {key} = {{ credential = \"NAME\" }}, {{ file = \"PATH\" }} or {{ env = \"NAME\" }}");
            self.problem(written.span(), Problem::new(format!("`{key}` must name one place")).help(help));
        }
        found
    }

    /// A program and its arguments, run without a shell.
    pub fn command(
        &mut self,
        key: &str,
        argv: &Option<Spanned<Vec<Text>>>,
        timeout_key: &str,
        timeout: &Option<Spanned<Scalar>>,
    ) -> Option<Command> {
        let timeout = self.positive(timeout_key, timeout);
        let argv = argv.as_ref()?;
        let mut words: Vec<String> = argv.get_ref().iter().map(|word| word.get_ref().clone()).collect();
        match words.first_mut().filter(|program| !program.is_empty()) {
            Some(program) => *program = value::program(self.base, program),
            None => {
                let help = format!("write {key} = [\"/usr/local/bin/program\", \"argument\"]; no shell is involved");
                self.problem(argv.span(), Problem::new(format!("`{key}` names no program")).help(help));
                return None;
            }
        }
        Some(Command { argv: words, timeout: timeout? })
    }

    pub fn duration(&mut self, key: &str, written: &Option<Spanned<Scalar>>) -> Option<std::time::Duration> {
        self.required(key, written, value::duration)
    }

    /// A duration longer than nothing.
    pub fn positive(&mut self, key: &str, written: &Option<Spanned<Scalar>>) -> Option<std::time::Duration> {
        self.required(key, written, |text| match value::duration(text)? {
            none if none.is_zero() => Err(BadValue::new(format!("`{key}` cannot be zero"), "write at least 1ms")),
            some => Ok(some),
        })
    }
}

/// Where something stands: nowhere, if it is not written.
pub(super) fn span_of<T>(written: &Option<Spanned<T>>) -> Range<usize> {
    written.as_ref().map_or(0..0, Spanned::span)
}
