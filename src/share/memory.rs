//! Shared state in memory: one per test, or one per worker where the host shares nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Cell, Names, Pages, ShareError, SharedState, Version};

/// Shared state in memory. Clones see the same state, as workers do.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    names: Names,
    cells: Vec<i64>,
    page_names: HashMap<String, u32>,
    rows: Vec<Row>,
    lazy: bool,
    /// How many more bytes of pages may be opened, if there is an end.
    room: Option<u64>,
}

impl Inner {
    /// Makes sure that so many more pages of this length may be opened.
    fn take_room(&mut self, pages: u32, length: usize) -> Result<(), ShareError> {
        let Some(room) = &mut self.room else { return Ok(()) };
        // A product past u64::MAX is more than any room there is.
        let page = u64::try_from(length.saturating_add(size_of::<Page>())).unwrap_or(u64::MAX);
        let wanted = u64::from(pages).saturating_mul(page);
        *room = room.checked_sub(wanted).ok_or(ShareError::Unavailable)?;
        Ok(())
    }
}

/// Bytes and version; of a page without bytes nothing has been stored yet.
type Page = (Vec<u8>, u32);

#[derive(Debug)]
struct Row {
    initial: Vec<u8>,
    pages: Vec<Page>,
}

impl Row {
    /// Makes room for so many pages at least.
    fn extend_to(&mut self, count: u32, lazy: bool) {
        let wanted = self.pages.len().max(index(count));
        let initial = if lazy { &[] } else { self.initial.as_slice() };
        self.pages.resize_with(wanted, || (initial.to_vec(), 1));
    }
}

impl Memory {
    /// Fresh state.
    pub fn new() -> Self {
        Self::default()
    }

    /// Fresh state whose pages take memory only once they are stored: for what may never be used.
    pub fn lazy() -> Self {
        let memory = Self::default();
        memory.lock().lazy = true;
        memory
    }

    /// The same, with room for so many bytes: pages beyond that are refused where they are opened, so that those which are
    /// open can all be stored. What is open stays so for good.
    pub fn lazy_within(bytes: u64) -> Self {
        let memory = Self::lazy();
        memory.lock().room = Some(bytes);
        memory
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A holder that panicked (only in tests) leaves whole values behind: every change below is one assignment.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn index(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn next_id(len: usize) -> Result<u32, ShareError> {
    u32::try_from(len).map_err(|_| ShareError::Unavailable)
}

impl SharedState for Memory {
    fn cell(&self, name: &str) -> Result<Cell, ShareError> {
        let Inner { names, cells, .. } = &mut *self.lock();
        names.get_or(name, || {
            let id = next_id(cells.len())?;
            cells.push(0);
            Ok(Cell(id))
        })
    }

    fn add(&self, cell: Cell, delta: i64) {
        if let Some(value) = self.lock().cells.get_mut(index(cell.0)) {
            *value = value.saturating_add(delta);
        }
    }

    fn read(&self, cell: Cell) -> i64 {
        self.lock().cells.get(index(cell.0)).copied().unwrap_or(0)
    }

    fn pages(&self, name: &str, count: u32, initial: &[u8]) -> Result<Pages, ShareError> {
        let mut inner = self.lock();
        let lazy = inner.lazy;
        let known = inner.page_names.get(name).copied();
        let open = known.and_then(|id| inner.rows.get(index(id))).map_or(0, |row| row.pages.len());
        let more = count.saturating_sub(u32::try_from(open).unwrap_or(u32::MAX));
        inner.take_room(more, initial.len())?;
        if let Some(id) = known {
            if let Some(row) = inner.rows.get_mut(index(id)) {
                row.extend_to(count, lazy);
            }
            return Ok(Pages(id));
        }
        let id = next_id(inner.rows.len())?;
        let mut row = Row { initial: initial.to_vec(), pages: Vec::new() };
        row.extend_to(count, lazy);
        inner.rows.push(row);
        inner.page_names.insert(name.to_owned(), id);
        Ok(Pages(id))
    }

    fn load(&self, pages: Pages, page: u32, into: &mut [u8]) -> Result<Version, ShareError> {
        let inner = self.lock();
        let row = inner.rows.get(index(pages.0)).ok_or(ShareError::Unavailable)?;
        let (bytes, version) = row.pages.get(index(page)).ok_or(ShareError::Unavailable)?;
        let bytes = if bytes.is_empty() { &row.initial } else { bytes };
        if bytes.len() != into.len() {
            return Err(ShareError::Unavailable);
        }
        into.copy_from_slice(bytes);
        Ok(Version(*version))
    }

    fn store(&self, pages: Pages, page: u32, bytes: &[u8], expected: Version) -> Result<(), ShareError> {
        let mut inner = self.lock();
        let row = inner.rows.get_mut(index(pages.0)).ok_or(ShareError::Unavailable)?;
        let (old, version) = row.pages.get_mut(index(page)).ok_or(ShareError::Unavailable)?;
        if *version != expected.0 {
            return Err(ShareError::Conflict);
        }
        if old.is_empty() {
            old.clone_from(&row.initial);
        }
        if old.len() != bytes.len() {
            return Err(ShareError::Unavailable);
        }
        old.copy_from_slice(bytes);
        // The host counts versions from 1 and treats 0 as "whatever is there": skip it when the count wraps.
        *version = version.checked_add(1).unwrap_or(1);
        Ok(())
    }
}
