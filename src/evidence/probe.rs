use std::{
    fmt::Write as _,
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use rand::{TryRng, rngs::SysRng};
use rustls::RootCertStore;
use sha2::{Digest, Sha256};

use super::{
    judge::{Answers, Learned, judge},
    read_back::MAX_ANSWER,
};
use crate::{
    config::ProbeBody,
    rotation::Verdict,
    secret::{
        Kid, Secret,
        signature::{HEADERS, sign},
    },
};

/// The keys that one replica is to be asked about.
pub struct ProbeKeys<'a> {
    /// What it must accept.
    pub accept: (Kid, &'a Secret),
    /// What it is known to accept, as a yardstick. `None` where the keys that stay are the question themselves.
    pub control: Option<(Kid, &'a Secret)>,
    /// What it must no longer accept.
    pub refuse: Vec<(Kid, &'a Secret)>,
    /// With every control; else only a look at `accept`, to be judged by what a full probe has learned.
    pub full: bool,
}

/// One request of a probe. Its digest must be durable before it is sent.
pub struct PlannedRequest {
    pub body: Vec<u8>,
    pub sha256: [u8; 32],
    /// `sha256=<hex>`.
    pub signature: String,
    pub role: Role,
    /// `None`: a key that nobody has.
    pub kid: Option<Kid>,
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Random,
    Control,
    Target,
    Removed(Kid),
}

/// What one replica made of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeResult {
    pub verdict: Verdict,
    /// `current 400, target 400, random key 401`: for people, in the order of asking.
    pub answers: String,
    /// After a full probe that showed acceptance: what to judge the looks after it by.
    pub learned: Option<Learned>,
}

/// The requests of one probe, each with a nonce of its own. Without a control the target is asked twice.
///
/// What should be accepted comes first and the random key last: a consumer (or a firewall before it) that answers everybody
/// in one way after a wrong signature would otherwise give the target an answer that only looks unlike the random key's.
///
/// Empty if the operating system gives no random bytes: [`Prober::send`] then finds it inconclusive.
pub fn plan_bodies(form: ProbeBody, keys: &ProbeKeys<'_>) -> Vec<PlannedRequest> {
    try_plan(form, keys).unwrap_or_default()
}

/// `None`: no randomness.
fn try_plan(form: ProbeBody, keys: &ProbeKeys<'_>) -> Option<Vec<PlannedRequest>> {
    let (kid, accept) = keys.accept;
    let target = || request(form, Role::Target, Some(kid), accept);
    if !keys.full {
        return Some(vec![target()?]);
    }
    let mut plan = match keys.control {
        Some((control, secret)) => vec![request(form, Role::Control, Some(control), secret)?, target()?],
        None => vec![target()?, target()?],
    };
    for (kid, secret) in &keys.refuse {
        plan.push(request(form, Role::Removed(*kid), Some(*kid), secret)?);
    }
    plan.push(request(form, Role::Random, None, &Secret::generate().ok()?)?);
    Some(plan)
}

fn request(form: ProbeBody, role: Role, kid: Option<Kid>, secret: &Secret) -> Option<PlannedRequest> {
    let mut nonce = [0u8; 16];
    SysRng.try_fill_bytes(&mut nonce).ok()?;
    let body = body(form, &hex::encode(nonce)).into_bytes();
    Some(PlannedRequest { sha256: Sha256::digest(&body).into(), signature: sign(secret, &body), body, role, kid })
}

fn body(form: ProbeBody, nonce: &str) -> String {
    match form {
        // No closing brace: no JSON parser takes it, so no event can come of it.
        ProbeBody::Unparseable => format!(r#"{{"hookturn-probe":"{nonce}""#),
        ProbeBody::Json => {
            format!(r#"{{"event":"hookturn.probe","event_type":"hookturn_probe","hookturn_probe":"{nonce}"}}"#)
        }
    }
}

/// Carries one request to a replica and brings back its answer: over HTTP, or in a simulation.
#[async_trait]
pub trait Courier: Send + Sync {
    /// The status that the replica answered, or in a few words why there is none. Safe to cancel.
    async fn post(&self, url: &str, request: PlannedRequest) -> Result<u16, &'static str>;

    /// The status and the body of a GET.
    async fn get(&self, _url: &str, _token: Option<&Secret>) -> Result<(u16, Vec<u8>), &'static str> {
        Err("it cannot be asked here")
    }
}

/// Posts probes to replicas.
pub struct Prober {
    pub(super) courier: Box<dyn Courier>,
}

/// The courier that goes over HTTP.
struct Http {
    plain: reqwest::Client,
    /// Made when the first replica is asked over TLS: to read the system's certificates is much of what a start would cost.
    secure: OnceLock<reqwest::Client>,
    timeout: Duration,
}

/// There is no HTTP client.
#[derive(Debug, thiserror::Error)]
#[error("no HTTP client for probes: {reason}")]
pub struct ProberError {
    reason: String,
}

impl Prober {
    /// `timeout` bounds each single request. Every request has a connection of its own, follows no redirect and uses no
    /// proxy: the answer is that of the replica at the URL, or none.
    ///
    /// # Errors
    /// If the TLS side of the client cannot be set up.
    pub fn new(timeout: Duration) -> Result<Prober, ProberError> {
        let plain = client(timeout, RootCertStore::empty())?;
        Ok(Prober::over(Http { plain, secure: OnceLock::new(), timeout }))
    }

    /// Sends with another courier.
    pub fn over(courier: impl Courier + 'static) -> Prober {
        Prober { courier: Box::new(courier) }
    }

    /// Asks one replica, one request after the other, and judges its answers. Stops at the first that is not answered.
    /// Safe to repeat and to cancel.
    pub async fn send(&self, url: &str, plan: Vec<PlannedRequest>, learned: Option<&Learned>) -> ProbeResult {
        let mut asked = Vec::with_capacity(plan.len());
        let mut text = String::new();
        for request in plan {
            // Once silent, the rest is not asked: each could take the whole time-out again.
            let silent = asked.last().is_some_and(|(_, status): &(Role, Option<u16>)| status.is_none());
            let role = request.role;
            let answer = if silent { Err("not asked") } else { self.courier.post(url, request).await };
            describe(&mut text, role, &answer);
            asked.push((role, answer.ok()));
        }
        let Some(answers) = sort(&asked) else {
            let answers = "not asked: the operating system gave no random bytes".to_owned();
            return ProbeResult { verdict: Verdict::Inconclusive, answers, learned: None };
        };
        let verdict = judge(&answers, learned);
        let learned = match answers {
            Answers::Full { random: Some(random), target: Some(right), .. } if verdict == Verdict::Accepts => {
                Some(Learned { random, right })
            }
            _ => None,
        };
        ProbeResult { verdict, answers: text, learned }
    }
}

impl Http {
    /// A system without CA certificates can still be asked over plain http.
    fn client(&self, url: &str) -> Result<&reqwest::Client, &'static str> {
        let secure = url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"));
        match (secure, self.secure.get()) {
            (false, _) => Ok(&self.plain),
            (true, Some(client)) => Ok(client),
            (true, None) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                let made = client(self.timeout, roots).map_err(|_| "TLS cannot be set up")?;
                Ok(self.secure.get_or_init(|| made))
            }
        }
    }
}

fn client(timeout: Duration, roots: RootCertStore) -> Result<reqwest::Client, ProberError> {
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| ProberError { reason: error.to_string() })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .pool_max_idle_per_host(0)
        .timeout(timeout)
        .user_agent(concat!("hookturn/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| ProberError { reason: chain(&error) })
}

#[async_trait]
impl Courier for Http {
    async fn post(&self, url: &str, request: PlannedRequest) -> Result<u16, &'static str> {
        let mut post = self.client(url)?.post(url).header("content-type", "application/json").header("x-hookturn-probe", "1");
        for header in HEADERS {
            post = post.header(header, &request.signature);
        }
        let answer = post.body(request.body).send().await;
        answer.map(|response| response.status().as_u16()).map_err(|error| why(&error))
    }

    async fn get(&self, url: &str, token: Option<&Secret>) -> Result<(u16, Vec<u8>), &'static str> {
        let mut get = self.client(url)?.get(url).header("accept", "application/json");
        if let Some(token) = token {
            get = get.bearer_auth(token.expose());
        }
        let mut answer = get.send().await.map_err(|error| why(&error))?;
        let (status, mut body) = (answer.status().as_u16(), Vec::new());
        while let Some(chunk) = answer.chunk().await.map_err(|error| why(&error))? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err("its answer is too long");
            }
            body.extend_from_slice(&chunk);
        }
        Ok((status, body))
    }
}

fn why(error: &reqwest::Error) -> &'static str {
    match error {
        error if error.is_timeout() => "no answer in time",
        error if error.is_builder() => "not a URL",
        error if error.is_connect() => "no connection",
        _ => "connection lost",
    }
}

fn describe(text: &mut String, role: Role, answer: &Result<u16, &'static str>) {
    let comma = if text.is_empty() { "" } else { ", " };
    let name = match role {
        Role::Random => "random key".to_owned(),
        Role::Control => "current".to_owned(),
        Role::Target => "target".to_owned(),
        Role::Removed(kid) => format!("removed {kid}"),
    };
    // Writing to a String does not fail.
    let _ = match answer {
        Ok(status) => write!(text, "{comma}{name} {status}"),
        Err(why) => write!(text, "{comma}{name}: {why}"),
    };
}

/// `None`: nothing was asked about the target.
fn sort(asked: &[(Role, Option<u16>)]) -> Option<Answers> {
    let of = |wanted: Role| asked.iter().filter(move |(role, _)| *role == wanted).map(|(_, status)| *status);
    let mut targets = of(Role::Target);
    let target = targets.next()?;
    let Some(random) = of(Role::Random).next() else { return Some(Answers::Look { target }) };
    let removed = asked.iter().filter_map(|(role, status)| match role {
        Role::Removed(kid) => Some((*kid, *status)),
        _ => None,
    });
    let control = of(Role::Control).next();
    Some(Answers::Full { random, control, target, again: targets.next(), removed: removed.collect() })
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let _ = write!(text, ": {error}");
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::parse(text).expect("secret")
    }

    fn kid(name: &str) -> Kid {
        Kid::parse(name).expect("kid")
    }

    fn roles(plan: &[PlannedRequest]) -> Vec<Role> {
        plan.iter().map(|request| request.role).collect()
    }

    #[test]
    fn a_plan_holds_every_control_and_a_look_the_target_alone() {
        let (new, now, old) = (secret("whsec_new"), secret("whsec_now"), secret("whsec_old"));
        let mut keys = ProbeKeys {
            accept: (kid("new"), &new),
            control: Some((kid("now"), &now)),
            refuse: vec![(kid("old"), &old)],
            full: true,
        };
        let removed = Role::Removed(kid("old"));
        let plan = plan_bodies(ProbeBody::Unparseable, &keys);
        assert_eq!(roles(&plan), [Role::Control, Role::Target, removed, Role::Random]);
        assert_eq!(plan.iter().map(|r| r.kid).collect::<Vec<_>>(), [Some(kid("now")), Some(kid("new")), Some(kid("old")), None]);
        keys.control = None;
        let plan = plan_bodies(ProbeBody::Unparseable, &keys);
        assert_eq!(roles(&plan), [Role::Target, Role::Target, removed, Role::Random]);
        keys.full = false;
        assert_eq!(roles(&plan_bodies(ProbeBody::Unparseable, &keys)), [Role::Target]);
    }

    #[test]
    fn every_body_is_its_own_rightly_signed_and_parses_only_where_it_should() {
        let new = secret("whsec_new");
        let keys = ProbeKeys { accept: (kid("new"), &new), control: None, refuse: Vec::new(), full: true };
        for (form, parses) in [(ProbeBody::Unparseable, false), (ProbeBody::Json, true)] {
            let plan = plan_bodies(form, &keys);
            for request in &plan {
                assert_eq!(serde_json::from_slice::<serde_json::Value>(&request.body).is_ok(), parses);
                assert_eq!(request.sha256, <[u8; 32]>::from(Sha256::digest(&request.body)));
                assert_eq!(request.signature == sign(&new, &request.body), request.role == Role::Target);
            }
            let distinct: std::collections::BTreeSet<_> = plan.iter().map(|request| request.sha256).collect();
            assert_eq!(distinct.len(), plan.len());
        }
    }
}
