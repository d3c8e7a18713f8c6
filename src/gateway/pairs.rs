//! Two long bodies at a time. Hashing is what a long delivery costs most, and a core hashes two bodies, a block of each in turn, in
//! less time than one after the other.
//!
//! Nobody waits for a second one that may never come: a delivery lets those go on that are there already, once, and goes on by
//! itself if there was none among them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use tokio::task::yield_now;

use super::keys::Keys;
use crate::secret::{Ahead, Keyring};

/// Of one thread.
#[derive(Default)]
pub(super) struct Pairs {
    /// Gone with the request that it is of.
    first: Mutex<Weak<First>>,
}

struct First {
    body: Bytes,
    keys: Arc<Keys>,
    ahead: Mutex<Option<Ahead>>,
}

impl Pairs {
    /// The MAC that is most likely needed. `None`: there was no company.
    pub async fn ahead(&self, body: &Bytes, keys: &Arc<Keys>) -> Option<Ahead> {
        let first = std::mem::take(&mut *hold(&self.first)).upgrade();
        if let Some(first) = first {
            let [mine, theirs] = Keyring::two_ahead((&keys.keyring, body), (&first.keys.keyring, &first.body))?;
            *hold(&first.ahead) = Some(theirs);
            return Some(mine);
        }
        let first = Arc::new(First { body: body.clone(), keys: keys.clone(), ahead: Mutex::default() });
        *hold(&self.first) = Arc::downgrade(&first);
        yield_now().await;
        let ahead = hold(&first.ahead).take();
        // Whoever takes it from now on finds it gone.
        ahead
    }
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, future::join};
    use http::HeaderMap;

    use super::*;
    use crate::{
        evidence::{Verification, verify_ahead},
        secret::{Kid, Secret, Standing, signature::sign},
    };

    fn keys(secret: &str) -> Arc<Keys> {
        let (kid, secret) = (Kid::parse("k").expect("kid"), Secret::parse(secret).expect("secret"));
        Arc::new(Keys { generation: 1, keyring: Keyring::new(vec![(kid, secret, Standing::Accepted)]), kids: vec![kid] })
    }

    /// Whether `body`, signed with `secret`, verifies with what was made ahead.
    fn holds(secret: &str, body: &Bytes, keys: &Keys, ahead: Ahead) -> bool {
        let signature = sign(&Secret::parse(secret).expect("secret"), body);
        let headers = HeaderMap::from_iter([("x-nexa-signature".parse().expect("name"), signature.parse().expect("value"))]);
        matches!(verify_ahead(&headers, body, &keys.keyring, Some(ahead)), Verification::Matched { .. })
    }

    #[tokio::test]
    async fn two_at_a_time_are_made_together_each_by_its_own_keys() {
        let (pairs, one, other) = (Pairs::default(), keys("one"), keys("other"));
        let (body, other_body) = (Bytes::from(vec![1; 1000]), Bytes::from(vec![2; 300]));
        let (mine, theirs) = join(pairs.ahead(&body, &one), pairs.ahead(&other_body, &other)).await;
        let (mine, theirs) = (mine.expect("company"), theirs.expect("company"));
        assert!(holds("one", &body, &one, mine) && holds("other", &other_body, &other, theirs));
        assert!(!holds("other", &body, &one, mine) && !holds("one", &body, &one, theirs));
    }

    #[tokio::test]
    async fn alone_it_goes_on_and_what_has_gone_away_is_no_company() {
        let (pairs, keys, body) = (Pairs::default(), keys("one"), Bytes::from_static(b"{}"));
        assert!(pairs.ahead(&body, &keys).await.is_none());
        assert!(pairs.ahead(&body, &keys).await.is_none(), "the one before has gone on");
        assert!(pairs.ahead(&body, &keys).now_or_never().is_none(), "it lets others go first, and is dropped");
        assert!(pairs.ahead(&body, &keys).await.is_none());
    }
}
