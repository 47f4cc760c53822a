//! A fixed table of slots, kept in shared pages: what a control remembers about each of many keys.
//!
//! A key has exactly one home page, chosen by one half of its hash, and any slot in it; the other half is the
//! fingerprint by which it is found. One home, instead of a choice of two, means that one load finds a key or proves it
//! absent, and that a compare-and-set of that one page settles every race: two workers that meet the same new key
//! can never give it two slots.
//!
//! Keys do not fall evenly on pages, so the table is built twice as large as asked. With [`SLOTS`] = 64 slots where 32
//! keys are expected, a page is full with probability 2e-7 (the Poisson tail), so that of a table of 65 536 live keys
//! even one finds its page full in 4 of 10 000 cases. Half the slots per page would need a table three times
//! as large as asked for the same odds; twice the slots would copy 2 KiB for each look. A table of at most [`SLOTS`]
//! keys is one page of exactly as many slots as asked.
//!
//! Fingerprints have 64 bits: a new key is taken for one of the at most 64 others of its page with probability
//! 3.5e-18. Both halves come from a keyed hash, so nobody outside can aim at a page or at a fingerprint.
//!
//! Layout of a page, little endian: [`HEADER`] words that belong to the control, then the slots, each a fingerprint and
//! `words` words of state. The first word of the state is the time in nanoseconds from which on it equals a fresh one:
//! such a slot is free. A page of zeros is a page of free slots.

use super::{Pages, ShareError, SharedState, Version};

/// Slots in a page of a table with more keys than that.
pub const SLOTS: u32 = 64;

/// Words at the start of each page that belong to the control.
pub const HEADER: usize = 4;

/// The most words of state in a slot.
pub const MAX_WORDS: usize = 3;

/// The state of one key; words beyond the table's width are zero and not kept.
pub type Words = [u64; MAX_WORDS];

const WORD: usize = size_of::<u64>();

/// The table: where its pages are and how they are divided.
#[derive(Debug, Clone)]
pub struct SlotTable {
    pages: Pages,
    homes: u32,
    count: u32,
    slots: u32,
    words: usize,
}

/// A slot's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The page.
    pub page: u32,
    /// The slot's number in its page.
    pub slot: usize,
}

/// What a search for a key found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The key's own slot.
    Own(usize),
    /// The key has none; this one is free.
    Free(usize),
    /// The key has none and every slot belongs to a live key.
    Full,
}

impl SlotTable {
    /// Opens a table for `keys` keys, and `reserved` slots beside them that are found by number, with `words` (1 to
    /// [`MAX_WORDS`]) words of state each. At configure time only.
    ///
    /// # Errors
    /// Those of [`SharedState::pages`].
    pub fn open(
        share: &dyn SharedState,
        name: &str,
        keys: u32,
        reserved: u32,
        words: usize,
    ) -> Result<Self, ShareError> {
        let table = Self::planned(keys, reserved, words);
        let pages = share.pages(name, table.count, &vec![0; table.page_bytes()])?;
        Ok(Self { pages, ..table })
    }

    /// How many bytes all pages of such a table have.
    pub fn bytes(keys: u32, reserved: u32, words: usize) -> u64 {
        Self::planned(keys, reserved, words).shared_bytes()
    }

    /// Such a table, its pages not opened.
    fn planned(keys: u32, reserved: u32, words: usize) -> Self {
        let keys = keys.max(1);
        let (homes, slots) = if keys <= SLOTS { (1, keys) } else { (keys.div_ceil(SLOTS / 2), SLOTS) };
        let words = words.clamp(1, MAX_WORDS);
        // A sum past u32::MAX would need 2^38 slots; the host refuses long before.
        let count = homes.saturating_add(reserved.div_ceil(slots));
        Self { pages: Pages(0), homes, count, slots, words }
    }

    /// An empty copy of a page, to load into.
    pub fn page(&self) -> Page {
        Page { bytes: vec![0; self.page_bytes()], words: self.words }
    }

    /// The only page in which a key with this hash can be.
    pub fn home(&self, hash: u64) -> u32 {
        // The high half of the product is uniform below `homes`. In two parts, since a product of 128 bits is a call in
        // WebAssembly; neither it nor the sum can pass 64 bits.
        let homes = u64::from(self.homes);
        let (high, low) = (hash >> u32::BITS, hash & u64::from(u32::MAX));
        let scaled = (high.wrapping_mul(homes).wrapping_add(low.wrapping_mul(homes) >> u32::BITS)) >> u32::BITS;
        u32::try_from(scaled).unwrap_or(0)
    }

    /// Where the reserved slot of this number is.
    pub fn reserved(&self, number: u32) -> Address {
        Address {
            page: self.homes.saturating_add(number / self.slots),
            slot: usize::try_from(number % self.slots).unwrap_or(0),
        }
    }

    /// Copies a page.
    ///
    /// # Errors
    /// Those of [`SharedState::load`].
    pub fn load(&self, share: &dyn SharedState, index: u32, page: &mut Page) -> Result<Version, ShareError> {
        share.load(self.pages, index, &mut page.bytes)
    }

    /// Replaces a page if nobody else has since.
    ///
    /// # Errors
    /// Those of [`SharedState::store`].
    pub fn store(&self, share: &dyn SharedState, index: u32, page: &Page, seen: Version) -> Result<(), ShareError> {
        share.store(self.pages, index, &page.bytes, seen)
    }

    /// How many bytes all pages have.
    pub fn shared_bytes(&self) -> u64 {
        let bytes = u64::try_from(self.page_bytes()).unwrap_or(u64::MAX);
        u64::from(self.count).saturating_mul(bytes)
    }

    fn page_bytes(&self) -> usize {
        let slots = usize::try_from(self.slots).unwrap_or(usize::MAX);
        slots.saturating_mul(self.words.saturating_add(1)).saturating_add(HEADER).saturating_mul(WORD)
    }
}

/// A worker's copy of a page.
#[derive(Debug, Clone)]
pub struct Page {
    bytes: Vec<u8>,
    words: usize,
}

impl Page {
    /// The control's own words.
    pub fn header(&self) -> [u64; HEADER] {
        let mut header = [0; HEADER];
        read(&self.bytes, &mut header);
        header
    }

    /// Replaces the control's own words.
    pub fn set_header(&mut self, header: [u64; HEADER]) {
        write(&mut self.bytes, &header);
    }

    /// Makes it a page of free slots.
    pub fn clear(&mut self) {
        self.bytes.fill(0);
    }

    /// Looks for a fingerprint. A live key's slot is never handed to another key.
    pub fn find(&self, fingerprint: u64, now: u64) -> Found {
        // The loop is the longest there is in a request: of a width that is known it takes half the time.
        match self.words {
            1 => self.find_of::<2>(fingerprint, now),
            2 => self.find_of::<3>(fingerprint, now),
            _ => self.find_of::<{ 1 + MAX_WORDS }>(fingerprint, now),
        }
    }

    fn find_of<const WIDTH: usize>(&self, fingerprint: u64, now: u64) -> Found {
        let words = self.bytes.as_chunks::<WORD>().0.get(HEADER..).unwrap_or_default();
        let mut free = None;
        for (number, slot) in words.as_chunks::<WIDTH>().0.iter().enumerate() {
            let Some([owner, fresh_at]) = slot.first_chunk::<2>() else { break };
            if u64::from_le_bytes(*owner) == fingerprint {
                return Found::Own(number);
            }
            if free.is_none() && u64::from_le_bytes(*fresh_at) <= now {
                free = Some(number);
            }
        }
        free.map_or(Found::Full, Found::Free)
    }

    /// The state in a slot.
    pub fn get(&self, slot: usize) -> Words {
        let mut words = Words::default();
        let slots = self.bytes.get(HEADER * WORD..).unwrap_or_default();
        if let (Some(bytes), Some(kept)) = (slots.chunks_exact(self.width()).nth(slot), words.get_mut(..self.words)) {
            read(bytes.get(WORD..).unwrap_or_default(), kept);
        }
        words
    }

    /// Writes a slot.
    pub fn set(&mut self, slot: usize, fingerprint: u64, words: &Words) {
        let width = self.width();
        let slots = self.bytes.get_mut(HEADER * WORD..).unwrap_or_default();
        if let (Some(bytes), Some(kept)) = (slots.chunks_exact_mut(width).nth(slot), words.get(..self.words)) {
            write(bytes, &[fingerprint]);
            write(bytes.get_mut(WORD..).unwrap_or_default(), kept);
        }
    }

    fn width(&self) -> usize {
        (1 + self.words) * WORD
    }
}

fn read(bytes: &[u8], words: &mut [u64]) {
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<WORD>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
}

fn write(bytes: &mut [u8], words: &[u64]) {
    for (word, bytes) in words.iter().zip(bytes.as_chunks_mut::<WORD>().0) {
        *bytes = word.to_le_bytes();
    }
}
