use std::path::Path;

use hookturn::config::Config;

/// A configuration file. A mistake is said with its place, and never with a secret that was written into the file.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Config::parse(Path::new("/etc/hookturn/hookturn.toml"), text) {
        Ok(config) => whole(&config),
        Err(error) => {
            assert!(!error.problems().is_empty());
            for problem in error.problems() {
                if let Some(span) = &problem.span {
                    assert!(span.start <= span.end && text.is_char_boundary(span.start.min(text.len())), "{problem:?}");
                }
            }
            let mut said: String = error.lines().collect::<Vec<_>>().join("\n");
            said.push_str(&error.to_string());
            said.push_str(&format!("{:?}", miette::Report::new(error)));
            super::no_signing_secret(text, &said);
        }
    }
}

/// What the rest of the program relies on without asking again.
fn whole(config: &Config) {
    for webhook in &config.webhooks {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(!webhook.name.is_empty() && webhook.name.chars().all(fits), "{}", webhook.name);
        assert!(config.webhooks.iter().filter(|other| other.name == webhook.name).count() == 1, "{} twice", webhook.name);
        let policy = webhook.policy;
        assert!(policy.quarantine > 0 && policy.repeat_min > 0 && policy.repeat_min <= policy.repeat_max, "{policy:?}");
        assert!(policy.min_deliveries > 0 && policy.slots.is_none_or(|slots| slots >= 2), "{policy:?}");
        let proven = !webhook.preflight.probe.is_empty() || webhook.preflight.status || policy.unproven;
        assert!(proven, "{}: nothing can show that a replica accepts", webhook.name);
        assert!(!webhook.schedule.to_string().is_empty() && !webhook.keystore.to_string().is_empty());
        assert_eq!(config.identity(webhook), config.identity(webhook));
    }
}
