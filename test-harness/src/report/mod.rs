//! The report of a demonstration: charts, a table and one self-contained page. Other reports draw with the same pens.

pub(crate) mod html;
mod model;
pub(crate) mod page;
mod series;
pub(crate) mod svg;
mod table;
mod wrap;

pub use model::{Act, BreakerState, Comparison, Fate, Figures, Group, Mark, Performance, Report, Sample, Transitions};
pub use page::html as page;
pub use table::{milliseconds, text as table};
pub use wrap::wrap;

/// The processor and how many of its cores there are for us.
pub fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown processor");
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!(
        "{}, {cores} cores, {} {}",
        model.trim_start_matches([' ', '\t', ':']),
        std::env::consts::OS,
        std::env::consts::ARCH
    )
}
