//! Shared state on the host's metrics (numbers) and shared data (pages).
//!
//! Both live in the proxy's process and outlive a VM that died, as long as another with the same `vm_id` is there.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::engine::stats::{self, full_name};
use crate::share::{Cell, Names, Pages, ShareError, SharedState, Version};

use super::abi::{self, HostError, MetricKind};

/// What all workers of the proxy share.
#[derive(Default)]
pub struct HostShare {
    cells: RefCell<Names>,
    rows: RefCell<Rows>,
}

#[derive(Default)]
struct Rows {
    by_name: HashMap<String, u32>,
    /// The key of each row's pages, with room for the page's index at its end.
    keys: Vec<Vec<u8>>,
}

const INDEX_BYTES: usize = 4;

/// What the bytes of pages and the numbers that are no stats mean. Raised when any of that changes: an update of the proxy's
/// configuration may bring another version of this module, which finds what the one before left under the same names.
const LAYOUT: &str = "4";

impl HostShare {
    /// Whether the host keeps numbers and pages at all: asked once, by writing and reading back. The number is the gauge
    /// that tells the plugin's version.
    pub fn works() -> bool {
        let probe = Self::default();
        let name = full_name(stats::BUILD_INFO, &[env!("CARGO_PKG_VERSION")]);
        let counts = abi::define_metric(MetricKind::Gauge, &name)
            .and_then(|id| abi::record_metric(id, 1).and_then(|()| abi::get_metric(id)));
        let Ok(pages) = probe.pages("probe", 1, &[7]) else { return false };
        counts == Ok(1) && probe.load(pages, 0, &mut [0]).is_ok()
    }

    fn with_key<T>(
        &self,
        pages: Pages,
        index: u32,
        call: impl FnOnce(&[u8]) -> Result<T, ShareError>,
    ) -> Result<T, ShareError> {
        let mut rows = self.rows.try_borrow_mut().map_err(|_| ShareError::Unavailable)?;
        let row = usize::try_from(pages.0).map_err(|_| ShareError::Unavailable)?;
        let key = rows.keys.get_mut(row).ok_or(ShareError::Unavailable)?;
        let end = key.len().saturating_sub(INDEX_BYTES);
        key.get_mut(end..).ok_or(ShareError::Unavailable)?.copy_from_slice(&index.to_le_bytes());
        call(key)
    }
}

fn share_error(error: HostError) -> ShareError {
    match error {
        HostError::Conflict => ShareError::Conflict,
        HostError::Absent | HostError::Failed(_) => ShareError::Unavailable,
    }
}

impl SharedState for HostShare {
    fn cell(&self, name: &str) -> Result<Cell, ShareError> {
        let mut cells = self.cells.try_borrow_mut().map_err(|_| ShareError::Unavailable)?;
        cells.get_or(name, || {
            // A number is a gauge, and so appears among the proxy's stats. Those that mean something to people have a stat's
            // name; the others go under one.
            let internal = full_name(stats::INTERNAL, &[&format!("{LAYOUT}/{name}")]);
            let shown = if name.starts_with("tidegate_") { name } else { &internal };
            abi::define_metric(MetricKind::Gauge, shown).map(Cell).map_err(share_error)
        })
    }

    fn add(&self, cell: Cell, delta: i64) {
        // Refused only for an id that was never defined; `cell` hands out no other.
        let _ = abi::increment_metric(cell.0, delta);
    }

    fn read(&self, cell: Cell) -> i64 {
        // Gauges are unsigned and wrap below zero; read as signed they come out right.
        abi::get_metric(cell.0).map_or(0, u64::cast_signed)
    }

    fn pages(&self, name: &str, count: u32, initial: &[u8]) -> Result<Pages, ShareError> {
        let key_of = |index: u32| [LAYOUT.as_bytes(), b"/", name.as_bytes(), &[0], &index.to_le_bytes()].concat();
        let mut there = 0;
        let mut page = vec![0; initial.len()];
        for index in (0..count).rev() {
            match abi::get_shared_data(&key_of(index), &mut page) {
                // Pages are created in ascending order and never removed: all before this one are there too.
                Ok(Some(_)) => {
                    there = index.saturating_add(1);
                    break;
                }
                Ok(None) | Err(HostError::Absent) => {}
                Err(error) => return Err(share_error(error)),
            }
        }
        for index in there..count {
            // Version 0 would store unconditionally, over what a faster worker has begun to use: where the proxy has tried a
            // configuration out before, all workers create its pages at once. Any other version creates a page that is not
            // there, and is refused by one that is.
            match abi::set_shared_data(&key_of(index), initial, u32::MAX) {
                Ok(()) | Err(HostError::Conflict) => {}
                Err(error) => return Err(share_error(error)),
            }
        }
        let mut rows = self.rows.try_borrow_mut().map_err(|_| ShareError::Unavailable)?;
        if let Some(&row) = rows.by_name.get(name) {
            return Ok(Pages(row));
        }
        let row = u32::try_from(rows.keys.len()).map_err(|_| ShareError::Unavailable)?;
        rows.keys.push(key_of(0));
        rows.by_name.insert(name.to_owned(), row);
        Ok(Pages(row))
    }

    fn load(&self, pages: Pages, index: u32, into: &mut [u8]) -> Result<Version, ShareError> {
        self.with_key(pages, index, |key| match abi::get_shared_data(key, into) {
            Ok(Some(version)) => Ok(Version(version)),
            Ok(None) => Err(ShareError::Unavailable),
            Err(error) => Err(share_error(error)),
        })
    }

    fn store(&self, pages: Pages, index: u32, bytes: &[u8], expected: Version) -> Result<(), ShareError> {
        self.with_key(pages, index, |key| abi::set_shared_data(key, bytes, expected.0).map_err(share_error))
    }
}
