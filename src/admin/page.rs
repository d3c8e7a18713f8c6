//! The status page: one table, no script, nothing loaded from elsewhere.

use std::fmt::Write;

use chrono::{DateTime, Utc};

use crate::daemon::Status;

const HEAD: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" content=\"15\">\
<title>hookturn</title><style>body{font:15px/1.5 system-ui,sans-serif;margin:2rem;color:#222}table{border-collapse:collapse}\
td,th{padding:.3rem .9rem;text-align:left;vertical-align:top;border-bottom:1px solid #ddd}.person{background:#fdd}\
.long{background:#fe9}small{color:#555}</style></head><body><h1>hookturn</h1>\n";

pub(super) fn render(statuses: &[Status], now: DateTime<Utc>) -> String {
    let mut page = String::from(HEAD);
    page.push_str("<table><tr><th>webhook<th>phase<th>what it waits for<th>since<th>last completed<th>next due\n");
    for status in statuses {
        page.push_str(&row(status));
    }
    let _ = writeln!(page, "</table><p><small>{}</small></p></body></html>", now.format("%Y-%m-%d %H:%M:%S UTC"));
    page
}

fn row(status: &Status) -> String {
    let class = match status.exit_code() {
        1 => "person",
        3 => "long",
        _ => "",
    };
    let phase = match &status.hold {
        Some(hold) => format!("{} ({hold})", status.phase),
        None => status.phase.clone(),
    };
    let cells = [
        escaped(&status.name),
        escaped(&phase),
        story(status),
        at(status.since),
        at(status.last_completed_at),
        at(status.next_due),
    ];
    format!("<tr class=\"{class}\"><td>{}\n", cells.join("<td>"))
}

/// What it waits for, what is wrong, and what a person can do: each on its own line.
fn story(status: &Status) -> String {
    let mut lines: Vec<String> = Vec::new();
    if !status.adopted {
        lines.push(format!("no secret was adopted yet: <code>hookturn adopt {}</code>", escaped(&status.name)));
    }
    lines
        .extend(status.findings.iter().map(|finding| format!("<em>{}</em>: {}", escaped(&finding.word), escaped(&finding.text))));
    let hold = if status.hold.is_some() { &status.detail } else { &None };
    for text in [&status.waiting_for, hold, &status.keystore_trouble, &status.provider_trouble]
        .into_iter()
        .flatten()
        .filter(|text| !text.is_empty())
    {
        lines.push(escaped(text));
    }
    if status.unproven {
        lines.push("without an acceptance proof (preflight.unproven = \"accept\")".to_owned());
    }
    lines.extend(status.ways_out.iter().map(|way| format!("<code>{}</code>", escaped(way))));
    lines.join("<br>")
}

fn at(at: Option<i64>) -> String {
    at.and_then(DateTime::from_timestamp_millis).map(|at| at.format("%Y-%m-%d %H:%M:%S").to_string()).unwrap_or_default()
}

/// Text as text, in an element or a quoted attribute: some of it came from consumers and from DialNexa.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::Finding;

    #[test]
    fn what_others_wrote_is_shown_as_text() {
        let status = Status {
            name: "billing".into(),
            phase: "patch".into(),
            adopted: true,
            findings: vec![Finding { word: "neither".into(), text: "<script>alert('x')</script> & \"y\"".into(), person: false }],
            ways_out: vec!["hookturn abort <b>".into()],
            ..Status::default()
        };
        let page = render(&[status], DateTime::UNIX_EPOCH);
        assert!(!page.contains("<script>") && !page.contains("<b>"), "{page}");
        assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;y&quot;"), "{page}");
    }
}
