//! One webhook: from its merged table to its meaning.

use std::{ops::Range, time::Duration};

use chrono::{DateTime, Utc};
use serde_spanned::Spanned;

use super::{
    Cron, Format, Gateway, Keystore, Mode, Problem, Rule, Schedule, Webhook, Window, raw,
    section::{Section, span_of},
    value::{self, BadValue, duration_text},
};
use crate::rotation::{OnReject, Policy};

/// `own` is what the webhook's table says itself, `merged` the same over every default.
pub(super) fn check(mut section: Section, own: &raw::Webhook, merged: &raw::Webhook) -> Option<Webhook> {
    let s = &mut section;
    let name = match &merged.name {
        None => {
            s.missing("name", "add name = \"billing\": the word by which commands and paths call it");
            None
        }
        name => s.optional(name, value::webhook_name),
    };
    let id = match &merged.id {
        None => {
            s.missing("id", "add id = \"whk_...\" as DialNexa shows it; `hookturn webhook list` prints them");
            None
        }
        id => s.optional(id, value::webhook_id),
    };
    plane(s, merged);
    let keystore = keystore(s, own, merged);
    let preflight = super::preflight::preflight(s, merged, keystore.as_ref());
    let gateway = gateway(s, own, merged, keystore.as_ref());
    let tap_answers = tap_answers(s, merged);
    let verify = super::verify::verify(s, merged, gateway.is_some());
    let stimulus = super::verify::stimulus(s, merged);
    let policy = policy(s, merged, keystore.as_ref());
    let schedule = schedule(s, merged);
    Some(Webhook {
        name: name?,
        id: id?,
        schedule: schedule?,
        policy: policy.as_ref()?.0,
        patch_timeout: policy?.1,
        keystore: keystore?,
        preflight: preflight?,
        verify: verify?,
        tap_answers,
        gateway,
        stimulus,
    })
}

fn plane(s: &mut Section, merged: &raw::Webhook) {
    s.optional(&merged.plane, |plane| match plane {
        "user" => Ok(()),
        "external" => Err(BadValue::new(
            "a dashboard (external) webhook cannot be rotated: DialNexa's API has no call that changes its secret",
            "make it a user webhook (POST /user-webhooks), which hookturn can rotate, or rotate it by hand",
        )),
        _ => Err(BadValue::new(format!("`plane` cannot be \"{plane}\""), "it is \"user\"")),
    });
}

fn schedule(s: &mut Section, merged: &raw::Webhook) -> Option<Schedule> {
    let timezone = s.required("timezone", &merged.timezone, |text| {
        text.parse::<chrono_tz::Tz>().map_err(|_| {
            let near = super::nearest::nearest(text, chrono_tz::TZ_VARIANTS.iter().map(|tz| tz.name()));
            let near = near.map(|name| format!("did you mean \"{name}\"? ")).unwrap_or_default();
            BadValue::new(
                format!("there is no time zone \"{text}\""),
                format!("{near}names are those of the IANA data base: \"Europe/Paris\", \"UTC\""),
            )
        })
    });
    let window = match &merged.only_between {
        Some(text) if text.get_ref() == "always" => Some(None),
        None => Some(None),
        written => s.optional(written, Window::parse).map(Some),
    };
    let jitter = s.duration("jitter", &merged.jitter);
    let rule = rule(s, merged);
    let schedule = Schedule { rule: rule?, timezone: timezone?, window: window?, jitter: jitter? };
    spacing(s, merged, &schedule);
    Some(schedule)
}

fn rule(s: &mut Section, merged: &raw::Webhook) -> Option<Rule> {
    if let (Some(every), Some(_)) = (&merged.every, &merged.schedule) {
        let problem = Problem::new("`every` and `schedule` both say when to rotate").label("the other one is `schedule`");
        s.problem(every.span(), problem.help("keep one: `every` counts from the last rotation, `schedule` goes by the calendar"));
        return None;
    }
    if merged.schedule.is_some() {
        return s.optional(&merged.schedule, Cron::parse).map(Rule::Cron);
    }
    match &merged.every {
        None => Some(Rule::Never),
        Some(every) if every.get_ref().as_ref() == "never" => Some(Rule::Never),
        every => s.positive("every", every).map(Rule::Every),
    }
}

/// The jitter must fit between two rotations. A drain longer than the period only delays: a rotation under way is never joined by
/// a second one.
fn spacing(s: &mut Section, merged: &raw::Webhook, schedule: &Schedule) {
    let (span, period) = match &schedule.rule {
        Rule::Never => return,
        Rule::Every(period) => (span_of(&merged.every), Some(*period)),
        Rule::Cron(cron) => {
            let span = span_of(&merged.schedule);
            if cron.next_after(schedule.timezone, REFERENCE).is_none() {
                s.bad(
                    span,
                    BadValue::new("this date never comes", "the days of the month run to 31, 30, or 28 and 29 in February"),
                );
                return;
            }
            (span, cron.shortest_gap(schedule.timezone, REFERENCE, 100).and_then(|gap| gap.to_std().ok()))
        }
    };
    let Some(period) = period else { return };
    if schedule.jitter >= period {
        let message =
            format!("the jitter ({}) is not shorter than the period ({})", duration_text(schedule.jitter), duration_text(period));
        let span = if span_of(&merged.jitter).is_empty() { span.clone() } else { span_of(&merged.jitter) };
        s.bad(span, BadValue::new(message, "rotations would run into each other: make it a fraction of the period"));
    }
}

/// What is said of a schedule must not depend on the day it is checked.
const REFERENCE: DateTime<Utc> = match DateTime::from_timestamp(1_767_225_600, 0) {
    Some(new_year_2026) => new_year_2026,
    None => DateTime::UNIX_EPOCH,
};

/// The policy, and the deadline of one PATCH.
fn policy(s: &mut Section, merged: &raw::Webhook, keystore: Option<&Keystore>) -> Option<(Policy, Duration)> {
    let patch = merged.patch.as_ref();
    let (timeout_at, min_at, max_at) = (patch.map(|p| &p.timeout), patch.map(|p| &p.repeat_min), patch.map(|p| &p.repeat_max));
    let timeout = s.positive("patch.timeout", timeout_at.unwrap_or(&None));
    let repeat_min = s.positive("patch.repeat_min", min_at.unwrap_or(&None));
    let repeat_max = s.positive("patch.repeat_max", max_at.unwrap_or(&None));
    let quarantine = s.positive("quarantine", &merged.quarantine);
    let drain = s.duration("drain", &merged.drain);
    let on_reject = s.word("on_reject", &merged.on_reject, &[("switch-back", OnReject::SwitchBack), ("hold", OnReject::Hold)]);
    let preflight = merged.preflight.as_ref();
    let wait = s.duration("preflight.wait", preflight.map(|p| &p.wait).unwrap_or(&None));
    let unproven = s.word("unproven", preflight.map(|p| &p.unproven).unwrap_or(&None), &[("refuse", false), ("accept", true)]);
    let verify = merged.verify.as_ref();
    let deliveries = verify.map(|v| &v.min_deliveries).unwrap_or(&None);
    let min_deliveries = s.required("verify.min_deliveries", deliveries, |text| value::count(text, 1, 1_000_000));
    let min_span = s.duration("verify.min_span", verify.map(|v| &v.min_span).unwrap_or(&None));

    let written = |at: Option<&Option<Spanned<raw::Scalar>>>| at.is_some_and(|at| !span_of(at).is_empty());
    let (mut repeat_min, mut repeat_max) = (repeat_min, repeat_max);
    // What is written displaces a default that does not go with it.
    if !written(min_at) {
        repeat_min = repeat_min.zip(repeat_max).map(|(least, most)| least.min(most));
    } else if !written(max_at) {
        repeat_max = repeat_min.zip(repeat_max).map(|(least, most)| least.max(most));
    }
    if let (Some(least), Some(most)) = (repeat_min, repeat_max)
        && least > most
    {
        let at = [min_at, max_at].into_iter().flatten().map(span_of).find(|span| !span.is_empty()).unwrap_or(0..0);
        let message =
            format!("`patch.repeat_min` ({}) is longer than `patch.repeat_max` ({})", duration_text(least), duration_text(most));
        s.bad(at, BadValue::new(message, "repeat_min is the first pause between two PATCHes, repeat_max the longest"));
    }
    // A PATCH may be applied up to `quarantine` after its intent; half of that is for sending it, half for applying it.
    let timeout = timeout.zip(quarantine).map(|(timeout, quarantine)| timeout.min(quarantine / 2));
    let policy = Policy {
        quarantine: millis(quarantine?),
        drain: millis(drain?),
        wait: millis(wait?),
        repeat_min: millis(repeat_min?),
        repeat_max: millis(repeat_max?),
        min_deliveries: min_deliveries?,
        min_span: millis(min_span?),
        slots: keystore.map(Keystore::slots)?,
        on_reject: on_reject?,
        unproven: unproven?,
    };
    Some((policy, timeout?))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn keystore(s: &mut Section, own: &raw::Webhook, merged: &raw::Webhook) -> Option<Keystore> {
    // The shipped defaults say how a keystore is, never where: one from there alone is none.
    let Some(keystore) = merged.keystore.as_ref().filter(|keystore| !keystore.span().is_empty()) else {
        s.missing("keystore", "add keystore = { kind = \"file\", path = \"/var/lib/hookturn-keys/billing/secrets.json\" }");
        return None;
    };
    let (at, raw) = (keystore.span(), keystore.get_ref());
    let Some(kind) = &raw.kind else {
        s.problem(
            at,
            Problem::new(format!("the keystore of {} says no `kind`", s.title)).help("add kind = \"file\" (or \"exec\")"),
        );
        return None;
    };
    match kind.get_ref().as_str() {
        "file" => {
            foreign_keys(s, own, &["command", "timeout", "slots"], "exec");
            file_keystore(s, at, raw)
        }
        "exec" => {
            foreign_keys(s, own, &["path", "format", "reload", "reload_timeout"], "file");
            exec_keystore(s, at, raw)
        }
        other => {
            let help =
                "this version has kind = \"file\" and kind = \"exec\"; an exec program of a few lines can reach any other store";
            let message = match LATER_KINDS.contains(&other) {
                true => format!("keystore kind \"{other}\" is not in this version"),
                false => format!("there is no keystore kind \"{other}\""),
            };
            s.bad(kind.span(), BadValue::new(message, help));
            None
        }
    }
}

const LATER_KINDS: [&str; 6] = ["http", "vault", "aws-secrets-manager", "kubernetes", "redis", "postgres"];

/// Keys that the webhook itself writes and that belong to another kind. (From `[defaults]` they are for other webhooks.)
fn foreign_keys(s: &mut Section, own: &raw::Webhook, foreign: &[&str], kind: &str) {
    let Some(keystore) = own.keystore.as_ref().map(Spanned::get_ref) else { return };
    let written = [
        ("path", span_of(&keystore.path)),
        ("format", span_of(&keystore.format)),
        ("reload", span_of(&keystore.reload)),
        ("reload_timeout", span_of(&keystore.reload_timeout)),
        ("command", span_of(&keystore.command)),
        ("timeout", span_of(&keystore.timeout)),
        ("slots", span_of(&keystore.slots)),
    ];
    for (key, span) in written.into_iter().filter(|(key, span)| foreign.contains(key) && !span.is_empty()) {
        let problem = Problem::new(format!("`{key}` belongs to a keystore of kind \"{kind}\""));
        s.problem(span, problem.help(format!("take it out, or write kind = \"{kind}\"")));
    }
}

fn file_keystore(s: &mut Section, at: Range<usize>, raw: &raw::Keystore) -> Option<Keystore> {
    let format = s.word("format", &raw.format, &[("json", Format::Json), ("env", Format::Env)]);
    let reload = s.command("reload", &raw.reload, "reload_timeout", &raw.reload_timeout);
    let Some(path) = raw.path.as_ref().filter(|path| !path.get_ref().is_empty()) else {
        let problem = Problem::new(format!("the keystore of {} says no `path`", s.title)).label("`path` is missing");
        s.problem(
            at,
            problem.help("add path = \"/var/lib/hookturn-keys/billing/secrets.json\": the file that the consumer reads"),
        );
        return None;
    };
    Some(Keystore::File { path: s.path(path.get_ref()), format: format?, reload })
}

fn exec_keystore(s: &mut Section, at: Range<usize>, raw: &raw::Keystore) -> Option<Keystore> {
    let slots = s.optional(&raw.slots, |text| value::count(text, 2, 255));
    if raw.command.is_none() {
        let problem = Problem::new(format!("the keystore of {} says no `command`", s.title)).label("`command` is missing");
        s.problem(at, problem.help("add command = [\"/usr/local/bin/put-secrets\"]"));
    }
    let command = s.command("command", &raw.command, "timeout", &raw.timeout)?;
    Some(Keystore::Exec { command, slots: slots.and_then(|slots| u8::try_from(slots).ok()) })
}

/// The gateway reads its keys where every consumer does, and is told nothing else.
fn gateway(s: &mut Section, own: &raw::Webhook, merged: &raw::Webhook, keystore: Option<&Keystore>) -> Option<Gateway> {
    let merged = merged.gateway.as_ref()?;
    let (at, raw) = (merged.span(), merged.get_ref());
    if raw.upstream.is_none() {
        // Defaults may say how gateways are without there being one.
        if own.gateway.is_some() {
            let problem = Problem::new(format!("the gateway of {} says no `upstream`", s.title)).label("`upstream` is missing");
            let help = "add upstream = \"http://127.0.0.1:9000/hook\": where `hookturn receive` passes deliveries on";
            s.problem(at, problem.help(help));
        }
        return None;
    }
    if !matches!(keystore, None | Some(Keystore::File { format: Format::Json, .. })) {
        let problem = Problem::new("the gateway reads its keys from the keystore file, and this keystore is not one");
        s.problem(
            at,
            problem.help("write keystore = { kind = \"file\", path = \"...\" } (format \"json\"): it can be the gateway's own"),
        );
        return None;
    }
    let upstream = s.optional(&raw.upstream, value::upstream_url);
    let mode = s.word("mode", &raw.mode, &[("enforce", Mode::Enforce), ("observe", Mode::Observe)]);
    let resign = s.credential("resign", &raw.resign);
    let timeout = s.positive("gateway.timeout", &raw.timeout);
    Some(Gateway { upstream: upstream?, mode: mode?, resign, timeout: timeout? })
}

fn tap_answers(s: &mut Section, merged: &raw::Webhook) -> Option<std::path::PathBuf> {
    let base = s.base;
    s.optional(&merged.tap.as_ref()?.answers, |text| value::answers_socket(text, base))
}
