//! Finding out which of two secrets signed a body, against the two bare HMAC passes.
//!
//! The key that matched last is tried first, so a genuine delivery costs one pass most of the time; one that no key signed
//! costs both.

#[allow(dead_code, reason = "each bench uses a part of the rig")]
#[path = "rig/mod.rs"]
mod rig;

use std::{hint::black_box, process::ExitCode, time::Instant};

use hmac::Mac;
use hookturn::{
    evidence::{Verification, verify},
    secret::{Keyring, Kid, Secret, Standing, signature},
};
use http::HeaderMap;

fn main() -> ExitCode {
    let secrets = rig::SECRETS.map(|text| Secret::parse(text).expect("a secret"));
    let ring = Keyring::new(
        secrets
            .iter()
            .zip(["k_1", "k_2"])
            .map(|(secret, kid)| (Kid::parse(kid).expect("kid"), secret.clone(), Standing::Accepted))
            .collect(),
    );
    let keyed = secrets.each_ref().map(signature::keyed);
    let mut all_hold = true;
    for (name, size) in rig::SIZES {
        let body = rig::body(size);
        // As a delivery comes: among other headers.
        let mut headers = HeaderMap::new();
        for (header, value) in [("host", "hooks.example"), ("content-type", "application/json"), ("user-agent", "DialNexa/1")] {
            headers.insert(header, value.parse().expect("a value"));
        }
        let mut strange = headers.clone();
        headers.insert(signature::HEADERS[0], rig::signed(rig::SECRETS[1], &body).parse().expect("a value"));
        strange.insert(signature::HEADERS[0], rig::signed("whsec_stranger", &body).parse().expect("a value"));
        let times = if rig::long() { 40_000 } else { 8_000 } * 1024 / size.max(1024) + 50;
        let nanos = |work: &mut dyn FnMut()| {
            let began = Instant::now();
            for _ in 0..times {
                work();
            }
            began.elapsed().as_nanos() as f64 / times as f64
        };
        let mut bare = || {
            nanos(&mut || {
                for keyed in &keyed {
                    let mut mac = keyed.clone();
                    mac.update(black_box(&body));
                    black_box(mac.finalize());
                }
            })
        };
        for (what, headers, right) in [("a genuine delivery", &headers, true), ("a strange one", &strange, false)] {
            let ours = || {
                nanos(&mut || {
                    let found = verify(black_box(headers), black_box(&body), &ring);
                    assert_eq!(matches!(black_box(found), Verification::Matched { .. }), right);
                })
            };
            let (ratio, ours, bare) = rig::in_turn(101, ours, &mut bare);
            println!("{name}, {what}: verification {ours:.0} ns, two bare HMAC passes {bare:.0} ns");
            all_hold &= rig::verdict(&format!("{name}, {what}: verification / bare passes"), ratio, "at most 1.20", ratio <= 1.2);
        }
    }
    rig::end(all_hold)
}
