//! Asking a replica which keys it accepts, by signing bodies and posting them as DialNexa would.
//!
//! In two steps, because a probe that came back through a door would otherwise forge evidence: [`plan_bodies`] makes the
//! requests, **the caller stores the digest of every body**, and only then [`Prober::send`] sends them.
//!
//! Each request carries its signature under both documented header names, since which of them DialNexa uses is what its
//! own pages disagree on, and a consumer looks for the one that it knows. `x-hookturn-probe: 1` is there for people who
//! read access logs; nothing relies on it.
//!
//! The requests that ought to be accepted go first and the random key goes last: a consumer that locks its door after a
//! bad signature then locks it behind the answers that count.

use std::time::Duration;

use rand::{TryRng, rngs::SysRng};
use reqwest::header::CONTENT_TYPE;

use super::{
    judge::{Answer, Learned, Role, describe, judge, judge_look},
    verify::body_sha256,
};
use crate::{
    config::ProbeBody,
    rotation::Verdict,
    secret::{Kid, NoRandomness, Secret, signature},
};

/// Says in an access log what the request is.
pub const PROBE_HEADER: &str = "x-hookturn-probe";

/// One request is given up after this.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What a replica is asked for.
pub struct ProbeKeys<'a> {
    /// It should accept this one.
    pub accept: (Kid, &'a Secret),
    /// It is known to accept this one. `None`: nobody knows such a key.
    pub control: Option<(Kid, &'a Secret)>,
    /// It should accept none of these any more.
    pub refuse: Vec<(Kid, &'a Secret)>,
    /// With a random key, the control and what must be refused; otherwise only `accept`, and the answer is read with what
    /// a full probe has [`Learned`].
    pub full: bool,
}

/// One request, ready to be sent. It has no secret any more.
pub struct PlannedRequest {
    pub body: Vec<u8>,
    /// Of the body. Must be stored before the request is sent.
    pub sha256: [u8; 32],
    pub role: Role,
    signature: String,
}

/// What a replica answered, and what that means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeResult {
    pub verdict: Verdict,
    /// For a person: `current 400, target 401, random 401`.
    pub answers: String,
    /// From a full probe that ended in [`Verdict::Accepts`].
    pub learned: Option<Learned>,
}

/// The HTTP client for probes.
pub struct Prober {
    client: reqwest::Client,
}

/// The HTTP client could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client for probes could not be set up")]
pub struct NoProber(#[source] reqwest::Error);

/// Makes the requests of one probe of one replica, each with a body that never was before.
///
/// # Errors
/// When the operating system gives no randomness.
pub fn plan_bodies(kind: ProbeBody, keys: &ProbeKeys<'_>) -> Result<Vec<PlannedRequest>, NoRandomness> {
    let random = Secret::generate()?;
    roles(keys, &random).into_iter().map(|(role, secret)| Ok(PlannedRequest::new(kind, role, secret, nonce()?))).collect()
}

fn roles<'a>(keys: &ProbeKeys<'a>, random: &'a Secret) -> Vec<(Role, &'a Secret)> {
    let target = (Role::Target(keys.accept.0), keys.accept.1);
    if !keys.full {
        return vec![target];
    }
    let mut roles = Vec::with_capacity(3 + keys.refuse.len());
    roles.extend(keys.control.map(|(kid, secret)| (Role::Control(kid), secret)));
    roles.push(target);
    roles.extend(keys.refuse.iter().map(|(kid, secret)| (Role::Removed(*kid), *secret)));
    roles.push((Role::Random, random));
    roles
}

impl PlannedRequest {
    fn new(kind: ProbeBody, role: Role, secret: &Secret, nonce: [u8; 16]) -> PlannedRequest {
        let nonce = hex::encode(nonce);
        let body = match kind {
            ProbeBody::Json => format!(r#"{{"event":"hookturn.probe","event_type":"hookturn_probe","probe":"{nonce}"}}"#),
            // Without the closing brace no JSON parser takes it, so no event can be made of it.
            ProbeBody::Unparseable => format!(r#"{{"hookturn-probe":"{nonce}""#),
        };
        let body = body.into_bytes();
        PlannedRequest { sha256: body_sha256(&body), signature: signature::sign(secret, &body), body, role }
    }

    /// The key that it is signed with; `None` for the random one.
    pub fn kid(&self) -> Option<Kid> {
        match self.role {
            Role::Control(kid) | Role::Target(kid) | Role::Removed(kid) => Some(kid),
            Role::Random => None,
        }
    }
}

impl Prober {
    /// A client that follows no redirect, uses no proxy, keeps no connection and repeats nothing: each planned request is
    /// sent once, to the replica that was named.
    ///
    /// # Errors
    /// When the TLS set-up fails in a way that even plain HTTP cannot do without.
    pub fn new() -> Result<Prober, NoProber> {
        // Whichever provider was installed before will do; without any, reqwest panics.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .no_proxy()
                .pool_max_idle_per_host(0)
                .timeout(TIMEOUT)
                .user_agent(concat!("hookturn-probe/", env!("CARGO_PKG_VERSION")))
        };
        // A machine without any CA certificate can still probe over plain HTTP.
        let client = builder().build().or_else(|_| builder().tls_certs_only([]).build()).map_err(NoProber)?;
        Ok(Prober { client })
    }

    /// Sends a plan of [`plan_bodies`], whose digests are stored by now, and judges the answers. `learned` is for a look.
    /// Takes up to 5 s for each request; dropping the future stops it.
    pub async fn send(&self, url: &str, plan: Vec<PlannedRequest>, learned: Option<&Learned>) -> ProbeResult {
        let mut answers = Vec::with_capacity(plan.len());
        for request in plan {
            let role = request.role;
            answers.push((role, self.send_one(url, request).await));
        }
        let (verdict, learned) = match answers.as_slice() {
            [(Role::Target(_), answer)] => (judge_look(*answer, learned), None),
            answers => judge(answers),
        };
        ProbeResult { verdict, answers: describe(&answers), learned }
    }

    async fn send_one(&self, url: &str, request: PlannedRequest) -> Answer {
        let mut post = self.client.post(url).header(CONTENT_TYPE, "application/json").header(PROBE_HEADER, "1");
        for name in signature::HEADERS {
            post = post.header(name, &request.signature);
        }
        match post.body(request.body).send().await {
            Ok(response) => Answer::Status(response.status().as_u16()),
            Err(error) if error.is_timeout() => Answer::TimedOut,
            Err(_) => Answer::Unreachable,
        }
    }
}

fn nonce() -> Result<[u8; 16], NoRandomness> {
    let mut nonce = [0u8; 16];
    SysRng.try_fill_bytes(&mut nonce).map_err(NoRandomness)?;
    Ok(nonce)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn kid(text: &str) -> Kid {
        Kid::parse(text).expect("a kid")
    }

    fn secret(text: &str) -> Secret {
        Secret::parse(text).expect("a secret")
    }

    #[test]
    fn a_full_plan_asks_for_acceptance_first_and_for_refusal_last() {
        let (current, target, gone) = (secret("c"), secret("t"), secret("g"));
        let keys = ProbeKeys {
            accept: (kid("t"), &target),
            control: Some((kid("c"), &current)),
            refuse: vec![(kid("g"), &gone)],
            full: true,
        };
        let plan = plan_bodies(ProbeBody::Json, &keys).expect("a plan");
        let roles: Vec<Role> = plan.iter().map(|request| request.role).collect();
        assert_eq!(roles, [Role::Control(kid("c")), Role::Target(kid("t")), Role::Removed(kid("g")), Role::Random]);
        let kids: Vec<Option<Kid>> = plan.iter().map(PlannedRequest::kid).collect();
        assert_eq!(kids, [Some(kid("c")), Some(kid("t")), Some(kid("g")), None]);
        for (request, secret) in plan.iter().zip([&current, &target, &gone]) {
            assert_eq!(request.signature, signature::sign(secret, &request.body));
            assert_eq!(request.sha256, body_sha256(&request.body));
        }
        let bodies: HashSet<[u8; 32]> = plan.iter().map(|request| request.sha256).collect();
        assert_eq!(bodies.len(), plan.len());
    }

    #[test]
    fn a_look_is_one_request_with_the_target() {
        let target = secret("t");
        let keys = ProbeKeys { accept: (kid("t"), &target), control: Some((kid("t"), &target)), refuse: vec![], full: false };
        let plan = plan_bodies(ProbeBody::Unparseable, &keys).expect("a plan");
        assert_eq!(plan.iter().map(|request| request.role).collect::<Vec<_>>(), [Role::Target(kid("t"))]);
    }

    #[test]
    fn no_json_parser_takes_the_unparseable_body_and_every_one_takes_the_other() {
        let key = secret("t");
        let body = |kind| PlannedRequest::new(kind, Role::Random, &key, [0xab; 16]).body;
        assert!(serde_json::from_slice::<serde_json::Value>(&body(ProbeBody::Unparseable)).is_err());
        let event: serde_json::Value = serde_json::from_slice(&body(ProbeBody::Json)).expect("JSON");
        assert_eq!(event["event"], "hookturn.probe");
        assert_eq!(event["event_type"], "hookturn_probe");
        assert_eq!(event["probe"], "ab".repeat(16));
    }
}
