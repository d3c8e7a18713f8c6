use std::net::IpAddr;

use http::HeaderMap;

use crate::config::Ignore;

/// Whether a delivery is one of a team's own synthetic checks: rightly signed, and no evidence.
pub fn ignored(rules: &[Ignore], headers: &HeaderMap, from: Option<IpAddr>) -> bool {
    rules.iter().any(|rule| match rule {
        Ignore::Header { name, value } => {
            let mut values = headers.get_all(name).iter();
            values.any(|found| value.as_ref().is_none_or(|value| found.as_bytes() == value.as_bytes()))
        }
        Ignore::Address { network, bits } => from.is_some_and(|from| within(from.to_canonical(), *network, *bits)),
    })
}

/// Where a copied delivery came from: what the proxy says of it, else the connection. Both can be forged, and a forged one can
/// keep the forger's own request from counting, no more.
pub fn origin(headers: &HeaderMap, peer: Option<IpAddr>) -> Option<IpAddr> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let real = text("x-real-ip");
    let forwarded = text("x-forwarded-for").and_then(|all| all.rsplit(',').next());
    real.or(forwarded).and_then(|address| address.trim().parse().ok()).or(peer)
}

fn within(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let (address, network, width) = match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => (u128::from(address.to_bits()), u128::from(network.to_bits()), 32),
        (IpAddr::V6(address), IpAddr::V6(network)) => (address.to_bits(), network.to_bits(), 128),
        _ => return false,
    };
    let rest = u32::from(width - bits.min(width));
    (address ^ network).checked_shr(rest).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn a_network_holds_its_addresses_and_no_others() {
        let rule = |network: &str, bits| [Ignore::Address { network: network.parse().expect("an address"), bits }];
        let none = HeaderMap::new();
        for (network, bits, from, inside) in [
            ("10.0.0.0", 8, "10.255.0.1", true),
            ("10.0.0.0", 8, "11.0.0.1", false),
            ("10.1.2.3", 32, "10.1.2.3", true),
            ("10.1.2.3", 32, "10.1.2.4", false),
            ("0.0.0.0", 0, "203.0.113.9", true),
            ("2001:db8::", 32, "2001:db8:1::1", true),
            ("2001:db8::", 32, "2001:db9::1", false),
            ("::", 0, "2001:db9::1", true),
            ("10.0.0.0", 8, "::ffff:10.0.0.1", true),
            ("10.0.0.0", 8, "2001:db8::1", false),
        ] {
            assert_eq!(ignored(&rule(network, bits), &none, address(from)), inside, "{from} in {network}/{bits}");
        }
        assert!(!ignored(&rule("0.0.0.0", 0), &none, None), "nobody knows where it came from");
    }

    #[test]
    fn a_header_counts_by_name_or_by_value() {
        let headers: HeaderMap = [("X-Synthetic".parse().expect("name"), "yes".parse().expect("value"))].into_iter().collect();
        let rule = |value: Option<&str>| [Ignore::Header { name: "x-synthetic".into(), value: value.map(str::to_owned) }];
        assert!(ignored(&rule(None), &headers, None) && ignored(&rule(Some("yes")), &headers, None));
        assert!(!ignored(&rule(Some("no")), &headers, None) && !ignored(&rule(None), &HeaderMap::new(), None));
    }

    #[test]
    fn the_proxy_knows_better_than_the_connection_where_it_came_from() {
        let headers = |name: &'static str, value: &'static str| -> HeaderMap {
            [(name.parse().expect("name"), value.parse().expect("value"))].into_iter().collect()
        };
        let peer = address("127.0.0.1");
        assert_eq!(origin(&HeaderMap::new(), peer), peer);
        assert_eq!(origin(&headers("x-real-ip", "203.0.113.9"), peer), address("203.0.113.9"));
        assert_eq!(origin(&headers("x-forwarded-for", "1.1.1.1, 203.0.113.9"), peer), address("203.0.113.9"), "the nearest hop");
        assert_eq!(origin(&headers("x-real-ip", "unknown"), peer), peer);
    }
}
