//! `adopt`: the secret that is there already, from wherever it is had.

use super::{
    super::{
        request::{AdoptedSecret, Failure, Reply},
        status::Status,
    },
    Local, failure, refusal,
};
use crate::{
    keystore::{Contents, KeyState},
    rotation::Op,
    secret::{Kid, Secret},
    steps::{
        Tools,
        generate::{Fresh, seal},
    },
    store::Origin,
};

/// What is to be adopted, and the generation of the keystore where it holds exactly that.
struct Adoption {
    kid: Option<Kid>,
    generation: Option<u64>,
    secrets: Vec<Fresh>,
}

impl Local {
    pub(super) async fn adopt(&self, name: &str, secret: &AdoptedSecret, actor: &str) -> Result<Reply, Failure> {
        let (webhook, tools) = self.find(name)?;
        let status = self.status_of(name).unwrap_or_default();
        if status.target.is_some() {
            return Err(failure(1, format!("{name}: a rotation is under way; adopt nothing under it")));
        }
        let unreadable = |error: crate::keystore::KeystoreError| {
            failure(69, format!("{name}: {}; nothing was changed", tools.vault.redact(&error.to_string())))
        };
        let plan = match secret {
            AdoptedSecret::Unknown => Adoption { kid: None, generation: None, secrets: Vec::new() },
            AdoptedSecret::Given(text) => {
                let secret = Secret::parse(text).map_err(|bad| failure(64, format!("{name}: {bad}")))?;
                let there = tools.keystore.read().await.map_err(unreadable)?;
                self.adopt_given(tools, &status, secret, there)?
            }
            AdoptedSecret::FromKeystore => {
                let there = tools.keystore.read().await.map_err(unreadable)?;
                self.adopt_found(tools, there)?
            }
        };
        // A secret that never verified is replaced where there is no room for both.
        let slots = tools.config.policy.slots.map_or(usize::MAX, usize::from);
        let replace = !status.confirmed && status.accepted.len() + 2 > slots;
        let op = Op::Adopt { kid: plan.kid, generation: plan.generation, replace };
        self.send(webhook, op, plan.secrets, actor).await?.map_err(|refused| refusal(name, refused))?;
        let text = match plan.kid {
            Some(kid) => format!(
                "{name}: adopted as {kid}; unconfirmed until a delivery verifies under it (a rotation before that asks for --unconfirmed)"
            ),
            None => format!(
                "{name}: adopted without knowing the secret: there is no way back to it; the consumer must go on accepting it until a rotation has retired it"
            ),
        };
        Ok(Reply { text, rotation: None, joined: false })
    }

    fn adopt_given(&self, tools: &Tools, status: &Status, secret: Secret, there: Option<Contents>) -> Result<Adoption, Failure> {
        let name = &tools.config.name;
        let known = tools.vault.kid_of(&secret);
        let keys = there.as_ref().map(|contents| contents.keys.as_slice()).unwrap_or_default();
        let same = keys.iter().find(|key| key.secret.as_ref().is_some_and(|theirs| theirs.same_as(&secret)));
        let ours = !keys.is_empty() && keys.iter().all(|key| status.accepted.iter().any(|kid| kid == key.kid.as_str()));
        match (same, keys) {
            (Some(key), [_]) => {
                let generation = there.as_ref().map(|contents| contents.generation);
                Ok(Adoption { kid: Some(key.kid), generation, secrets: self.seal_new(tools, key.kid, secret)? })
            }
            (Some(_), _) => Err(failure(
                1,
                format!(
                    "{name}: {}: holds this secret and others beside it; nothing was changed. Take the others out, or adopt with --from-keystore",
                    tools.keystore.place()
                ),
            )),
            (None, []) => self.adopt_as_first(tools, known, secret),
            (None, _) if ours => self.adopt_as_first(tools, known, secret),
            (None, _) => Err(failure(
                1,
                format!(
                    "{name}: {}: holds another secret than the one given; nothing was changed. If the keystore is right, `hookturn adopt {name} --from-keystore`; if it is left over, remove it and adopt again",
                    tools.keystore.place()
                ),
            )),
        }
    }

    fn adopt_as_first(&self, tools: &Tools, known: Option<Kid>, secret: Secret) -> Result<Adoption, Failure> {
        let kid = match known {
            Some(kid) => kid,
            None => tools.chance.kid().map_err(|error| failure(70, error.to_string()))?,
        };
        Ok(Adoption { kid: Some(kid), generation: None, secrets: self.seal_new(tools, kid, secret)? })
    }

    fn adopt_found(&self, tools: &Tools, there: Option<Contents>) -> Result<Adoption, Failure> {
        let name = &tools.config.name;
        let place = tools.keystore.place();
        let contents = there.ok_or_else(|| failure(1, format!("{name}: {place}: there is nothing to adopt")))?;
        let mut current = contents.keys.iter().filter(|key| key.state == KeyState::Current);
        let key = match (contents.keys.as_slice(), current.next(), current.next()) {
            ([only], ..) => only,
            (_, Some(key), None) => key,
            _ => {
                return Err(failure(
                    1,
                    format!("{name}: {place}: holds several keys and none that is current alone; nothing was changed"),
                ));
            }
        };
        let Some(secret) = key.secret.clone() else {
            return Err(failure(1, format!("{name}: {place}: does not give values back; adopt the secret on stdin instead")));
        };
        let alone = contents.keys.len() == 1;
        let generation = alone.then_some(contents.generation);
        Ok(Adoption { kid: Some(key.kid), generation, secrets: self.seal_new(tools, key.kid, secret)? })
    }

    fn seal_new(&self, tools: &Tools, kid: Kid, secret: Secret) -> Result<Vec<Fresh>, Failure> {
        let name = &tools.config.name;
        match tools.vault.secret(kid) {
            Some(known) if known.same_as(&secret) => Ok(Vec::new()),
            Some(_) => {
                Err(failure(1, format!("{name}: the key id {kid} belongs to another secret already; nothing was changed")))
            }
            None => seal(&tools.sealing, name, kid, secret, Origin::Adopted, self.clock.unix_millis())
                .map(|fresh| vec![fresh])
                .map_err(|error| failure(70, error.to_string())),
        }
    }
}
