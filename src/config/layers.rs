//! The layers of a configuration: a webhook's own table, over `[defaults]`, over the shipped file.
//!
//! They are laid over each other as they are read, before anything is interpreted, so that each value keeps the place
//! that an error underlines. Values of the shipped file carry an empty span.

use serde_spanned::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// The shipped file: documentation and defaults in one, so that they cannot drift.
pub const SHIPPED: &str = include_str!("../../config/hookturn.toml");

/// The shipped defaults, without places.
pub(super) fn shipped() -> Result<DeTable<'static>, toml::de::Error> {
    Ok(without_places(DeTable::parse(SHIPPED)?.into_inner()))
}

/// `upper`, and from `lower` whatever `upper` does not say; tables within are merged the same way, lists are replaced.
pub(super) fn laid_over<'i>(mut upper: DeTable<'i>, lower: &DeTable<'i>) -> DeTable<'i> {
    for (key, below) in lower {
        let name = key.get_ref().as_ref();
        if RIVALS.contains(&name) && RIVALS.iter().any(|rival| *rival != name && upper.contains_key(*rival)) {
            continue;
        }
        match upper.get_mut(name) {
            None => {
                upper.insert(key.clone(), below.clone());
            }
            Some(above) if ONE_OF.contains(&name) || other_kind(above.get_ref(), below.get_ref()) => {}
            Some(above) => {
                if let (DeValue::Table(over), DeValue::Table(under)) = (above.get_mut(), below.get_ref()) {
                    *over = laid_over(std::mem::take(over), under);
                }
            }
        }
    }
    upper
}

/// Saying one of these leaves no room for the other from below.
const RIVALS: [&str; 2] = ["every", "schedule"];

/// Tables that say one of several things: never a mixture of two layers.
const ONE_OF: [&str; 7] = ["api_key", "sealing_key", "report_token", "tap_token", "read_back_token", "resign", "token"];

/// Two keystores of different kinds have nothing to give each other.
fn other_kind(above: &DeValue, below: &DeValue) -> bool {
    let kind = |value: &DeValue| value.get("kind").and_then(|kind| kind.get_ref().as_str().map(str::to_owned));
    matches!((kind(above), kind(below)), (Some(above), Some(below)) if above != below)
}

fn without_places<'i>(table: DeTable<'i>) -> DeTable<'i> {
    let nowhere = |key: Spanned<DeString<'i>>| Spanned::new(0..0, key.into_inner());
    table.into_iter().map(|(key, value)| (nowhere(key), value_without_places(value))).collect()
}

fn value_without_places(value: Spanned<DeValue>) -> Spanned<DeValue> {
    let value = match value.into_inner() {
        DeValue::Table(table) => DeValue::Table(without_places(table)),
        DeValue::Array(array) => DeValue::Array(array.into_iter().map(value_without_places).collect()),
        plain => plain,
    };
    Spanned::new(0..0, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(upper: &str, lower: &str) -> toml::Table {
        let upper = DeTable::parse(upper).expect("upper").into_inner();
        let lower = DeTable::parse(lower).expect("lower").into_inner();
        let value = Spanned::new(0..0, DeValue::Table(laid_over(upper, &lower)));
        serde::Deserialize::deserialize(toml::de::ValueDeserializer::from(value)).expect("a table")
    }

    fn table(text: &str) -> toml::Table {
        text.parse().expect("a table")
    }

    #[test]
    fn tables_merge_deeply_and_lists_are_replaced() {
        assert_eq!(
            merged(
                "patch = { timeout = '1s' }\nlist = [1]",
                "drain = '1h'\nlist = [2, 3]\n[patch]\ntimeout = '9s'\nrepeat_min = '5s'"
            ),
            table("drain = '1h'\nlist = [1]\npatch = { timeout = '1s', repeat_min = '5s' }")
        );
    }

    #[test]
    fn things_that_exclude_each_other_are_never_mixed() {
        assert_eq!(merged("schedule = 'x'", "every = '30d'"), table("schedule = 'x'"));
        assert_eq!(merged("api_key = { file = 'a' }", "api_key = { env = 'B' }"), table("api_key = { file = 'a' }"));
        assert_eq!(
            merged("keystore = { kind = 'exec' }", "keystore = { kind = 'file', reload = ['x'] }"),
            table("keystore = { kind = 'exec' }")
        );
        assert_eq!(
            merged("keystore = { path = 'p' }", "keystore = { kind = 'file', format = 'env' }"),
            table("keystore = { kind = 'file', path = 'p', format = 'env' }")
        );
    }
}
