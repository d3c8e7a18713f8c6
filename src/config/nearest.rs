//! The known word that a mistyped one was probably meant to be.

/// The nearest of `known`, if it is near enough to be worth saying: at most two in five letters wrong, or one is the
/// beginning of the other.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let near = |candidate: &str| {
        let wrong = distance(&word, candidate);
        let prefix = word.len() >= 3 && (candidate.starts_with(&word) || word.starts_with(candidate));
        (prefix || wrong * 5 <= 2 * word.chars().count().max(candidate.len())).then_some(wrong)
    };
    known.into_iter().filter_map(|candidate| near(candidate).map(|wrong| (wrong, candidate))).min().map(|(_, found)| found)
}

/// How many letters must be put in, taken out, changed or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut next = vec![i];
        for j in 1..=b.len() {
            let changed = row[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = changed.min(row[j] + 1).min(next[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised_and_a_stranger_is_not() {
        let known = ["schedule", "every", "only_between", "drain", "probe", "probe_body"];
        assert_eq!(nearest("schedul", known), Some("schedule"));
        assert_eq!(nearest("shcedule", known), Some("schedule"));
        assert_eq!(nearest("dian", known), Some("drain"));
        assert_eq!(nearest("Probe", known), Some("probe"));
        assert_eq!(nearest("only-between", known), Some("only_between"));
        assert_eq!(nearest("retention", known), None);
    }

    #[test]
    fn distance_counts_a_swap_as_one() {
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
