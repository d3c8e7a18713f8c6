//! Pages that people read at three in the night say what the program says.

use std::{fs, path::Path};

use hookturn::rotation::Hold;

#[test]
fn every_hold_has_its_row_and_its_way_out() {
    let page = page("docs/operations.md");
    for hold in Hold::ALL {
        // A new hold does not compile until it stands here; it belongs into `Hold::ALL` too.
        match hold {
            Hold::KeystoreContested
            | Hold::KeystoreForeign
            | Hold::Restored
            | Hold::TargetRefused
            | Hold::ApiKeyRefused
            | Hold::WebhookGone
            | Hold::RejectedByConsumer
            | Hold::ConfigDrift => {}
        }
        let row = page.lines().find(|line| line.starts_with(&format!("| `{}` |", hold.name())));
        let cells = row.map(|row| row.split('|').filter(|cell| !cell.trim().is_empty()).count());
        assert_eq!(cells, Some(3), "docs/operations.md: {}", hold.name());
    }
}

#[test]
fn every_diagnosis_has_its_heading_with_what_a_person_does() {
    let page = page("docs/operations.md");
    for word in hookturn::daemon::WORDS {
        let heading = format!("### `{word}`\n");
        let section = page.split_once(&heading).map(|(_, rest)| rest.split("\n#").next().unwrap_or_default());
        let section = section.unwrap_or_else(|| panic!("docs/operations.md has no heading for {word}"));
        for part in ["Cause: ", "hookturn: ", "You: "] {
            assert!(section.contains(part), "docs/operations.md, {word}: no {part:?}");
        }
    }
}

/// What a newcomer does first, and what runs for every change.
#[test]
fn the_first_screen_names_the_two_commands() {
    let first_screen: String = page("README.md").lines().take(30).collect::<Vec<_>>().join("\n");
    assert!(first_screen.contains("cargo run --release -- demo") && first_screen.contains("`tests/run`"));
    assert!(page(".ci/run").contains("exec tests/run"), ".ci/run runs what the README says");
}

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect(name)
}
