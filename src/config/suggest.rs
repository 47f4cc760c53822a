//! What somebody may have meant by a misspelt word.

/// Longer words are no misspelling of any field, and the distance costs the product of the lengths.
const MAX_LENGTH: usize = 40;

/// The nearest of `known`, if it is near enough to be meant.
pub(super) fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    if word.len() > MAX_LENGTH {
        return None;
    }
    let word = word.to_ascii_lowercase().replace(['-', ' '], "_");
    known
        .map(|name| (distance(word.as_bytes(), name.as_bytes()), name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 5)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Optimal string alignment: insertions, deletions, substitutions and swaps of neighbours.
fn distance(a: &[u8], b: &[u8]) -> usize {
    // Row i - 2, i - 1 and i of the usual table.
    let mut two_back: Vec<usize> = Vec::new();
    let mut back: Vec<usize> = (0..=b.len()).collect();
    let mut previous_a = None;
    for (i, &ca) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        let mut left = i + 1;
        let mut previous_b = None;
        for (j, &cb) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX / 2);
            let mut best = (at(&back, j) + usize::from(ca != cb)).min(at(&back, j + 1) + 1).min(left + 1);
            if previous_a == Some(cb) && previous_b == Some(ca) {
                best = best.min(at(&two_back, j - 1) + 1);
            }
            row.push(best);
            left = best;
            previous_b = Some(cb);
        }
        previous_a = Some(ca);
        two_back = std::mem::replace(&mut back, row);
    }
    back.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{distance, nearest};

    #[test]
    fn distances_are_those_of_optimal_string_alignment() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("brust", "burst", 1),
            ("ca", "abc", 3),
            ("rate", "rate", 0),
        ] {
            assert_eq!(distance(a.as_bytes(), b.as_bytes()), expected, "{a} {b}");
        }
    }

    #[test]
    fn a_far_word_suggests_nothing() {
        assert_eq!(nearest("colour", ["rate", "burst"].into_iter()), None);
        assert_eq!(nearest("Rate-Limits", ["rate", "rate_limits"].into_iter()), Some("rate_limits"));
    }
}
