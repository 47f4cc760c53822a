//! Which worker counts and logs an update of the configuration: every worker configures itself, and the update is one.
//!
//! A configuration is known by its digest. Each worker knows how often it has taken each, and a page that all share how
//! often any worker has: whoever is the first to take one for the n-th time counts it. So it does not matter in which
//! order the updates of several listeners reach the workers, and a configuration that comes back counts again. A worker
//! that has not seen a configuration which others have, since its VM is new, catches up and counts nothing.
//!
//! The last [`REMEMBERED`] configurations are told apart in this way; one that was forgotten is new again.

use std::collections::HashMap;
use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use crate::share::{ShareError, SharedState};

/// How many configurations of a scope are remembered.
pub const REMEMBERED: usize = 64;

/// Each try fails only because another worker counted another update in the meantime.
const ATTEMPTS: usize = 128;

const WORD: usize = size_of::<u64>();
const ENTRY: usize = 2 * WORD;

/// What this worker has taken, by scope: a digest and how often, the latest first.
#[derive(Debug, Default)]
pub struct Updates {
    taken: HashMap<String, Vec<(u64, u64)>>,
}

impl Updates {
    /// This worker takes a configuration: whether it is the one to say so. `scope` is what tells plugins apart.
    pub fn is_first(&mut self, share: &dyn SharedState, scope: &str, configuration: &[u8]) -> bool {
        let mut hasher = SipHasher13::new();
        hasher.write(configuration);
        // 0 marks a place in the page that is not used.
        let digest = hasher.finish().max(1);
        let own = self.taken.entry(scope.to_owned()).or_default();
        let before = times(own, digest);
        let shared = count(share, scope, digest, before);
        // Where nothing is shared each worker speaks for itself.
        let (now, first) = shared.unwrap_or((before.saturating_add(1), true));
        remember(own, digest, now);
        first
    }
}

/// How often any worker has taken it, one that had `before` times included, and whether that one is the first.
fn count(share: &dyn SharedState, scope: &str, digest: u64, before: u64) -> Result<(u64, bool), ShareError> {
    let pages = share.pages(&format!("{scope}/configurations"), 1, &[0; REMEMBERED * ENTRY])?;
    for _ in 0..ATTEMPTS {
        let mut bytes = [0; REMEMBERED * ENTRY];
        let version = share.load(pages, 0, &mut bytes)?;
        let mut all = read(&bytes);
        let seen = times(&all, digest);
        let now = if before == 0 { seen.max(1) } else { before.saturating_add(1) };
        if now <= seen {
            return Ok((now, false));
        }
        remember(&mut all, digest, now);
        match share.store(pages, 0, &write(&all), version) {
            Ok(()) => return Ok((now, true)),
            Err(ShareError::Conflict) => {}
            Err(error) => return Err(error),
        }
    }
    Err(ShareError::Conflict)
}

fn times(all: &[(u64, u64)], digest: u64) -> u64 {
    all.iter().find(|(one, _)| *one == digest).map_or(0, |(_, times)| *times)
}

fn remember(all: &mut Vec<(u64, u64)>, digest: u64, times: u64) {
    all.retain(|(one, _)| *one != digest);
    all.insert(0, (digest, times));
    all.truncate(REMEMBERED);
}

fn read(bytes: &[u8; REMEMBERED * ENTRY]) -> Vec<(u64, u64)> {
    let words: Vec<u64> = bytes.as_chunks::<WORD>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    let entries = words.as_chunks::<2>().0.iter().map(|[digest, times]| (*digest, *times));
    entries.filter(|(digest, _)| *digest != 0).collect()
}

fn write(all: &[(u64, u64)]) -> [u8; REMEMBERED * ENTRY] {
    let mut bytes = [0; REMEMBERED * ENTRY];
    let words = all.iter().flat_map(|(digest, times)| [digest, times]);
    for (word, value) in bytes.as_chunks_mut::<WORD>().0.iter_mut().zip(words) {
        *word = value.to_le_bytes();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::share::Memory;

    /// Who counts when these workers take these configurations, one after the other.
    fn counted(workers: &mut [Updates], share: &Memory, script: &[(usize, &str)]) -> Vec<bool> {
        script.iter().map(|(worker, text)| workers[*worker].is_first(share, "p", text.as_bytes())).collect()
    }

    fn workers(count: usize) -> Vec<Updates> {
        (0..count).map(|_| Updates::default()).collect()
    }

    #[test]
    fn one_of_all_workers_counts_an_update() {
        let (mut workers, share) = (workers(4), Memory::new());
        for text in ["a", "b", "c", "a", "b", "a"] {
            let script: Vec<_> = (0..4).map(|worker| (worker, text)).collect();
            assert_eq!(counted(&mut workers, &share, &script), [true, false, false, false], "{text}");
        }
    }

    #[test]
    fn two_listeners_that_update_at_once_count_two_whatever_the_order_over_workers() {
        for script in [
            [(0, "a"), (0, "b"), (1, "a"), (1, "b"), (2, "a"), (2, "b")],
            [(0, "a"), (1, "b"), (2, "a"), (1, "a"), (0, "b"), (2, "b")],
        ] {
            let (mut workers, share) = (workers(3), Memory::new());
            let count = counted(&mut workers, &share, &script).into_iter().filter(|first| *first).count();
            assert_eq!(count, 2, "{script:?}");
            let again = counted(&mut workers, &share, &script).into_iter().filter(|first| *first).count();
            assert_eq!(again, 2, "taken a second time they are two more");
        }
    }

    #[test]
    fn a_new_vm_catches_up_and_counts_with_the_others_from_then_on() {
        let (mut workers, share) = (workers(2), Memory::new());
        counted(&mut workers, &share, &[(0, "a"), (1, "a"), (0, "b"), (1, "b"), (0, "a"), (1, "a")]);
        workers[0] = Updates::default();
        assert_eq!(counted(&mut workers, &share, &[(0, "a"), (0, "c"), (1, "c")]), [false, true, false]);
        assert_eq!(counted(&mut workers, &share, &[(0, "a"), (1, "a")]), [true, false]);
    }

    #[test]
    fn scopes_count_for_themselves() {
        let (mut updates, share) = (Updates::default(), Memory::new());
        assert!(updates.is_first(&share, "p", b"a") && updates.is_first(&share, "q", b"a"));
    }

    #[test]
    fn what_is_remembered_has_a_bound_and_what_is_forgotten_is_new() {
        let (mut workers, share) = (workers(2), Memory::new());
        let texts: Vec<String> = (0..=REMEMBERED).map(|number| number.to_string()).collect();
        for text in &texts {
            assert_eq!(counted(&mut workers, &share, &[(0, text), (1, text)]), [true, false]);
        }
        assert_eq!(counted(&mut workers, &share, &[(0, "0"), (1, "0")]), [true, false]);
        assert!(workers[0].taken.values().all(|taken| taken.len() == REMEMBERED));
    }
}
