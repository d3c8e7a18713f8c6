//! What `demo` draws while it waits: a small panel that is redrawn on a terminal, and a line per change elsewhere.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use super::{exit::Stop, out};

/// One look at what goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// The workflow, or where the play is.
    pub headline: String,
    /// What it waits for.
    pub waiting: String,
    /// Numbers that change all the time; elsewhere than on a terminal they come with the next change of the rest.
    pub counters: String,
}

pub struct Panel {
    begun: Instant,
    live: bool,
    /// Lines on the screen that the next look replaces.
    drawn: usize,
    last: Look,
}

/// Lines of the panel longer than the terminal are cut, not wrapped: the way back up must be known.
const NO_WRAP: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";

impl Panel {
    pub fn new() -> Panel {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Panel { begun: Instant::now(), live: io::stdout().is_terminal() && !dumb, drawn: 0, last: Look::default() }
    }

    /// A line that stays.
    pub fn say(&mut self, text: &str) -> Result<(), Stop> {
        self.clear()?;
        // What was just said is not said again by the next look.
        self.last = Look { headline: text.to_owned(), ..Look::default() };
        out::line(&format!("{}  {text}", clock(self.begun.elapsed())))
    }

    pub fn show(&mut self, look: Look) -> Result<(), Stop> {
        if self.live {
            return self.redraw(&look);
        }
        let changed = (&look.headline, &look.waiting) != (&self.last.headline, &self.last.waiting);
        if changed {
            let waits = if look.waiting.is_empty() { String::new() } else { format!("  waits for {}", look.waiting) };
            self.say(&format!("{}{waits}  ({})", look.headline, look.counters))?;
            self.last = look;
        }
        Ok(())
    }

    /// Takes the panel off the screen.
    pub fn clear(&mut self) -> Result<(), Stop> {
        if self.drawn > 0 {
            out::raw(format!("\x1b[{}A\x1b[J{WRAP}", self.drawn).as_bytes())?;
            self.drawn = 0;
        }
        Ok(())
    }

    fn redraw(&mut self, look: &Look) -> Result<(), Stop> {
        let mut text = String::new();
        if self.drawn > 0 {
            let _ = write!(text, "\x1b[{}A", self.drawn);
        }
        text.push_str(NO_WRAP);
        let waits = if look.waiting.is_empty() { String::new() } else { format!("waits for  {}", look.waiting) };
        let lines = [String::new(), look.headline.clone(), waits, look.counters.clone()];
        for (number, line) in lines.iter().enumerate() {
            let time = if number == 1 { clock(self.begun.elapsed()) } else { " ".repeat(7) };
            let _ = writeln!(text, "\x1b[2K{time}  {}", line.replace(|c: char| c.is_control(), "\u{fffd}"));
        }
        text.push_str(WRAP);
        out::raw(text.as_bytes())?;
        self.drawn = lines.len();
        Ok(())
    }
}

/// `  3.4 s`
fn clock(since: Duration) -> String {
    format!("{:5.1} s", since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_stand_in_a_column() {
        assert_eq!(clock(Duration::from_millis(3_449)), "  3.4 s");
        assert_eq!(clock(Duration::from_millis(12_000)), " 12.0 s");
    }
}
