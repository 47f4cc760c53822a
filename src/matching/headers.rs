//! The host's serialized header map, read in place.
//!
//! Layout (proxy-wasm "pairs", all integers 32-bit little-endian): the number of pairs; for each pair the lengths of
//! its name and of its value; then for each pair the name, a zero byte, the value, a zero byte.

/// A header map as the host serialized it: checked once, borrowed, in the order received. Names are lower case in
/// Envoy; they compare byte for byte here.
#[derive(Debug, Clone, Copy)]
pub struct HeaderMap<'a> {
    /// Two lengths for each pair.
    lengths: &'a [u8],
    /// Names and values, each with its zero byte.
    data: &'a [u8],
}

impl<'a> HeaderMap<'a> {
    /// Checks that the lengths add up to exactly the bytes given. No bytes at all are an empty map, which is how some
    /// hosts hand one over.
    ///
    /// Returns `None` when the bytes are too few or too many for what they announce.
    #[must_use]
    pub fn parse(raw: &'a [u8]) -> Option<Self> {
        if raw.is_empty() {
            return Some(Self { lengths: raw, data: raw });
        }
        let (count, rest) = raw.split_first_chunk::<4>()?;
        let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
        let (lengths, data) = rest.split_at_checked(count.checked_mul(8)?)?;
        // A sum in 64 bits of at most 2^29 pairs of 33-bit lengths cannot wrap.
        let announced: u64 = pairs(lengths).map(|(name, value)| u64::from(name) + u64::from(value) + 2).sum();
        (u64::try_from(data.len()) == Ok(announced)).then_some(Self { lengths, data })
    }

    /// Names and values in the order received.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        self.of_length(|_| true)
    }

    /// Those whose name has a length that is `wanted`. Of the others no more than their lengths is looked at.
    pub fn of_length<W: Fn(usize) -> bool>(
        &self,
        wanted: W,
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a, W> {
        let (data, mut next) = (self.data, 0usize);
        pairs(self.lengths).filter_map(move |(name, value)| {
            let (name, value) = (usize::try_from(name).ok()?, usize::try_from(value).ok()?);
            // The sum of all is the length of the data, so none of these wraps.
            let name_at = next;
            let value_at = name_at.wrapping_add(name).wrapping_add(1);
            next = value_at.wrapping_add(value).wrapping_add(1);
            if !wanted(name) {
                return None;
            }
            Some((data.get(name_at..)?.get(..name)?, data.get(value_at..)?.get(..value)?))
        })
    }

    /// The first value of this name.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// Every value of this name, in the order received.
    pub(super) fn all<'n>(&self, name: &'n [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.of_length(move |length| length == name.len()).filter(move |(n, _)| *n == name).map(|(_, value)| value)
    }

    /// Number of pairs, pseudo-headers included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lengths.len() / 8
    }

    /// Whether there is no pair.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }
}

fn pairs(lengths: &[u8]) -> impl Iterator<Item = (u32, u32)> + use<'_> {
    let (pairs, _) = lengths.as_chunks::<8>();
    pairs.iter().map(|&[a, b, c, d, e, f, g, h]| (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])))
}
