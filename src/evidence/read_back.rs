use serde::Deserialize;

use super::Prober;
use crate::{
    rotation::{KidSet, Verdict},
    secret::{Kid, Secret},
};

/// The cap on one answer.
pub(super) const MAX_ANSWER: usize = 64 * 1024;

/// What a replica says that it has loaded: `{"generation":7,"keys":[{"kid":"k_...","state":"current"}]}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Loaded {
    pub generation: u64,
    keys: Vec<LoadedKey>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct LoadedKey {
    kid: Kid,
    /// A key in a state that hookturn does not write is not accepted by a consumer either.
    #[serde(default)]
    state: Option<String>,
}

impl Prober {
    /// Asks one replica what it has loaded. In doubt it has not: `Accepts` is said only of the content that was asked for.
    pub async fn read_back(
        &self,
        url: &str,
        token: Option<&Secret>,
        wanted: u64,
        accept: Kid,
        refuse: &KidSet,
    ) -> (Verdict, String) {
        match self.courier.get(url, token).await {
            Ok((200, body)) => judge_loaded(&body, wanted, accept, refuse),
            Ok((status @ 500.., _)) => (Verdict::Unreachable, format!("answered {status}")),
            Ok((status, _)) => (Verdict::Inconclusive, format!("answered {status}")),
            Err(why) => (Verdict::Unreachable, why.to_owned()),
        }
    }
}

/// What follows from what a replica says.
pub fn judge_loaded(said: &[u8], wanted: u64, accept: Kid, refuse: &KidSet) -> (Verdict, String) {
    match serde_json::from_slice::<Loaded>(said) {
        Ok(loaded) => loaded.judge(wanted, accept, refuse),
        Err(_) => (Verdict::Inconclusive, "what it says is not {\"generation\":...,\"keys\":[...]}".to_owned()),
    }
}

impl Loaded {
    fn judge(&self, wanted: u64, accept: Kid, refuse: &KidSet) -> (Verdict, String) {
        let states = ["current", "pending", "previous"];
        let known = |key: &&LoadedKey| key.state.as_deref().is_none_or(|state| states.contains(&state));
        let accepted: KidSet = self.keys.iter().filter(known).map(|key| key.kid).collect();
        let stale = refuse.iter().find(|kid| accepted.contains(*kid));
        match () {
            () if self.generation < wanted => {
                (Verdict::Refuses, format!("has loaded generation {}, not {wanted} yet", self.generation))
            }
            () if !accepted.contains(accept) => {
                (Verdict::Refuses, format!("has loaded generation {}, without {accept}", self.generation))
            }
            () => match stale {
                Some(kid) => (Verdict::Refuses, format!("has loaded generation {}, still with {kid}", self.generation)),
                None => (Verdict::Accepts, format!("has loaded generation {}", self.generation)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kid(name: &str) -> Kid {
        Kid::parse(name).expect("kid")
    }

    fn verdict(answer: &str, refuse: &[&str]) -> Option<Verdict> {
        let loaded: Loaded = serde_json::from_str(answer).ok()?;
        Some(loaded.judge(7, kid("new"), &refuse.iter().map(|name| kid(name)).collect()).0)
    }

    #[test]
    fn only_the_content_that_was_asked_for_is_acceptance() {
        let both = r#"{"generation":7,"keys":[{"kid":"old","state":"current"},{"kid":"new","state":"pending"}],"replica":"a"}"#;
        assert_eq!(verdict(both, &[]), Some(Verdict::Accepts));
        assert_eq!(verdict(both, &["old"]), Some(Verdict::Refuses), "the old one is still there");
        assert_eq!(verdict(&both.replace("7", "6"), &[]), Some(Verdict::Refuses));
        assert_eq!(verdict(r#"{"generation":9,"keys":[{"kid":"old"}]}"#, &[]), Some(Verdict::Refuses), "somebody else's content");
        assert_eq!(verdict(r#"{"generation":7,"keys":[{"kid":"new"}]}"#, &["old"]), Some(Verdict::Accepts));
        assert_eq!(verdict(r#"{"generation":7,"keys":[{"kid":"new","state":"burnt"}]}"#, &[]), Some(Verdict::Refuses));
        for broken in ["{}", "[]", r#"{"generation":"7","keys":[]}"#, r#"{"generation":7}"#] {
            assert_eq!(verdict(broken, &[]), None, "{broken}");
        }
    }
}
