//! Values as they are written on the command line.

use std::time::Duration;

/// The units of a duration, longest name first.
const UNITS: [(&str, f64); 4] = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];

/// A duration such as `250ms`, `1.5s`, `2m` or `1h`, up to a year.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = UNITS.iter().find_map(|(unit, seconds)| {
        let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
        Some(number * seconds).filter(|seconds| (0.0..=31_536_000.0).contains(seconds))
    });
    parsed.map(Duration::from_secs_f64).ok_or_else(|| "expected a duration such as 250ms, 1.5s or 2m".to_owned())
}

/// Requests per second, above 0 and up to a million.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).parse().ok();
    number
        .filter(|rate: &f64| *rate > 0.0 && *rate <= 1_000_000.0)
        .ok_or_else(|| "expected requests per second such as 100 or 100/s".to_owned())
}

/// A header such as `x-api-key: gold`.
pub(super) fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected a header such as \"x-api-key: gold\"")?;
    let (name, value) = (name.trim(), value.trim());
    let valid =
        hyper::header::HeaderName::try_from(name).is_ok() && hyper::header::HeaderValue::try_from(value).is_ok();
    if valid { Ok((name.to_owned(), value.to_owned())) } else { Err(format!("not a header: {name}")) }
}

/// A method such as `POST`.
pub(super) fn method(text: &str) -> Result<String, String> {
    text.parse::<hyper::Method>().map(|_| text.to_owned()).map_err(|_| "expected a method such as GET".to_owned())
}

/// A header's name.
pub(super) fn header_name(text: &str) -> Result<String, String> {
    let name = hyper::header::HeaderName::try_from(text).map_err(|_| format!("not a header's name: {text}"))?;
    Ok(name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "5", "s", "-1s", "NaNs", "1e99h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rates_are_above_nothing() {
        assert_eq!(rate("100/s"), Ok(100.0));
        assert_eq!(rate("0.5"), Ok(0.5));
        for wrong in ["0", "-1", "NaN", "inf", "fast"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn headers_have_a_name_and_a_value() {
        assert_eq!(header("x-key: a:b"), Ok(("x-key".to_owned(), "a:b".to_owned())));
        assert!(header("x-key").is_err());
        assert!(header("x key: a").is_err());
    }
}
