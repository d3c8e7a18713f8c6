//! What goes to stdout. A closed pipe comes back as an error instead of a panic, and ends the command quietly.

use std::io::{self, Write};

use serde::Serialize;

use super::exit::{Code, Stop};

/// One line, or several, with the newline at the end.
pub fn line(text: &str) -> Result<(), Stop> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", printable(text))?;
    out.flush()?;
    Ok(())
}

pub fn json(value: &impl Serialize) -> Result<(), Stop> {
    line(&serde_json::to_string_pretty(value).map_err(|error| Stop::new(Code::Bug, error.to_string()))?)
}

/// A line of its own, for a stream of them.
pub fn json_line(value: &impl Serialize) -> Result<(), Stop> {
    line(&serde_json::to_string(value).map_err(|error| Stop::new(Code::Bug, error.to_string()))?)
}

/// Bytes as they are.
pub fn raw(bytes: &[u8]) -> Result<(), Stop> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(())
}

/// Some of what is shown was written by consumers or by DialNexa: no control character of theirs reaches the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(super::printable("a\u{1b}[2Jb\r\nc"), "a\u{fffd}[2Jb\u{fffd}\nc");
    }
}
