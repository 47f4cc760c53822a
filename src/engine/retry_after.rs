//! How long a response asks to be left alone: its `Retry-After`, as seconds or as a date (RFC 9110, section 10.2.3).
//!
//! A date is taken relative to the response's own `Date`, so that no clock needs to agree with another; without one it
//! says nothing. All three forms are read that a recipient must accept (RFC 9110, section 5.6.7). Whatever cannot be
//! meant, a date gone by or more than a day, is no wish at all: it is more likely a mistake, say a timestamp in place of
//! seconds.

use crate::control::Nanos;

/// Nobody asks for longer than this, and means it.
const LONGEST_SECONDS: u64 = 86_400;

/// How long the response asks to be left alone, by its `Retry-After` and, where that is a date, its `Date`.
pub(super) fn retry_after<'a>(value: &[u8], date: impl FnOnce() -> Option<&'a [u8]>) -> Option<Nanos> {
    let value = value.trim_ascii();
    let seconds = match number(value) {
        Some(seconds) => seconds,
        None => seconds_between(Date::read(date()?.trim_ascii())?, Date::read(value)?)?,
    };
    // At most a day: cannot overflow.
    (seconds <= LONGEST_SECONDS).then(|| seconds.saturating_mul(1_000_000_000))
}

/// Digits only: a sign or a fraction is not allowed here.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A moment as it is written.
#[derive(Debug, Clone, Copy)]
struct Date {
    year: u64,
    /// Of the year only the last two digits are known.
    two_digits: bool,
    /// 0 for March to 11 for February.
    month: u64,
    day: u64,
    /// Of the day.
    second: u64,
}

impl Date {
    /// Reads `Sun, 06 Nov 1994 08:49:37 GMT`, `Sunday, 06-Nov-94 08:49:37 GMT` or `Sun Nov  6 08:49:37 1994`. The name of
    /// the day is not checked against the date.
    fn read(text: &[u8]) -> Option<Self> {
        let name = text.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
        let mut rest = Rest(text.get(name..)?);
        let mut date = Self { year: 0, two_digits: false, month: 0, day: 0, second: 0 };
        if rest.skip(b", ") {
            date.day = rest.number(2)?;
            date.two_digits = rest.skip(b"-");
            rest.expect(if date.two_digits { b"" } else { b" " })?;
            date.month = rest.month()?;
            rest.expect(if date.two_digits { b"-" } else { b" " })?;
            date.year = rest.number(if date.two_digits { 2 } else { 4 })?;
            rest.expect(b" ")?;
            date.second = rest.time()?;
            rest.expect(b" GMT")?;
        } else {
            rest.expect(b" ")?;
            date.month = rest.month()?;
            rest.expect(b" ")?;
            date.day = if rest.skip(b" ") { rest.number(1)? } else { rest.number(2)? };
            rest.expect(b" ")?;
            date.second = rest.time()?;
            rest.expect(b" ")?;
            date.year = rest.number(4)?;
        }
        let name_fits = if date.two_digits { (6..=9).contains(&name) } else { name == 3 };
        let fits = name_fits && rest.0.is_empty() && (1..=31).contains(&date.day);
        (fits && (date.two_digits || date.year > 0)).then_some(date)
    }

    /// The same with all digits of its year: of those it may be the one nearest to `year`, at most 50 later.
    fn near(self, year: u64) -> Self {
        if !self.two_digits {
            return self;
        }
        let same_century = year - year % 100 + self.year;
        let year = if same_century > year + 50 {
            same_century.saturating_sub(100)
        } else if same_century + 50 <= year {
            same_century + 100
        } else {
            same_century
        };
        Self { year, two_digits: false, ..self }
    }

    /// Seconds since 1 March of the year 0.
    fn seconds(self) -> u64 {
        // Years that begin in March end with the leap day, and their months' lengths follow a line: 30.6 days each.
        let year = self.year.saturating_sub(u64::from(self.month >= 10));
        let days = year * 365 + year / 4 - year / 100 + year / 400 + (self.month * 306 + 5) / 10 + self.day - 1;
        days * 86_400 + self.second
    }
}

/// From one date to another that is not earlier.
fn seconds_between(earlier: Date, later: Date) -> Option<u64> {
    // Any century will do for a date relative to which another is taken.
    let earlier = earlier.near(2_000);
    later.near(earlier.year).seconds().checked_sub(earlier.seconds())
}

/// What is left to read.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn skip(&mut self, text: &[u8]) -> bool {
        let rest = self.0.strip_prefix(text);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn expect(&mut self, text: &[u8]) -> Option<()> {
        self.skip(text).then_some(())
    }

    fn number(&mut self, digits: usize) -> Option<u64> {
        let (found, rest) = self.0.split_at_checked(digits)?;
        self.0 = rest;
        number(found)
    }

    fn month(&mut self) -> Option<u64> {
        const FROM_MARCH: [&[u8]; 12] =
            [b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec", b"Jan", b"Feb"];
        let month = FROM_MARCH.iter().position(|name| self.0.starts_with(name))?;
        self.0 = self.0.get(3..)?;
        Some(month as u64)
    }

    fn time(&mut self) -> Option<u64> {
        let hour = self.number(2)?;
        self.expect(b":")?;
        let minute = self.number(2)?;
        self.expect(b":")?;
        let second = self.number(2)?;
        // A leap second is the 60th.
        (hour <= 23 && minute <= 59 && second <= 60).then_some((hour * 60 + minute) * 60 + second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn wish(value: &str, date: Option<&'static str>) -> Option<u64> {
        retry_after(value.as_bytes(), || date.map(str::as_bytes)).map(|nanos| nanos / 1_000_000_000)
    }

    #[test]
    fn seconds_are_taken_as_they_are() {
        assert_eq!(wish("120", None), Some(120));
        assert_eq!(wish(" 0 ", None), Some(0));
        assert_eq!(wish("86400", None), Some(86_400));
    }

    #[test]
    fn a_date_is_taken_relative_to_the_responses_own() {
        assert_eq!(wish("Sun, 06 Nov 1994 08:50:07 GMT", Some(DATE)), Some(30));
        assert_eq!(wish(DATE, Some(DATE)), Some(0));
        assert_eq!(wish("Mon, 07 Nov 1994 00:00:00 GMT", Some(DATE)), Some(54_623));
    }

    #[test]
    fn all_forms_of_dates_that_a_recipient_must_read_say_the_same() {
        let forms = |second: u32| {
            [
                format!("Sun, 06 Nov 1994 08:49:{second} GMT"),
                format!("Sunday, 06-Nov-94 08:49:{second} GMT"),
                format!("Sun Nov  6 08:49:{second} 1994"),
            ]
        };
        for later in forms(57) {
            for earlier in forms(37) {
                let said = retry_after(later.as_bytes(), || Some(earlier.as_bytes()));
                assert_eq!(said, Some(20_000_000_000), "{later} after {earlier}");
            }
        }
        assert_eq!(wish("Wed Nov 16 00:00:10 1994", Some("Wednesday, 16-Nov-94 00:00:00 GMT")), Some(10));
        // RFC 9110's own examples of one moment.
        for same in [DATE, "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(wish(same, Some(DATE)), Some(0), "{same}");
        }
    }

    #[test]
    fn a_year_of_two_digits_is_the_nearest() {
        let turns = [
            ("Saturday, 01-Jan-00 00:00:00 GMT", "Fri, 31 Dec 1999 23:59:50 GMT"),
            ("Friday, 01-Jan-00 00:00:00 GMT", "Thu, 31 Dec 2099 23:59:50 GMT"),
            ("Friday, 01-Jan-00 00:00:00 GMT", "Thursday, 31-Dec-99 23:59:50 GMT"),
            ("Saturday, 01-Jan-50 00:00:00 GMT", "Friday, 31-Dec-49 23:59:50 GMT"),
            ("Saturday, 01-Jan-51 00:00:00 GMT", "Friday, 31-Dec-50 23:59:50 GMT"),
        ];
        for (later, earlier) in turns {
            assert_eq!(wish(later, Some(earlier)), Some(10), "{later} after {earlier}");
        }
        let year = |said: &str, now: u64| Date::read(said.as_bytes()).map(|date| date.near(now).year);
        let said = "Sunday, 06-Nov-94 08:49:37 GMT";
        for (now, expected) in [(1994, 1994), (2026, 1994), (2043, 1994), (2044, 2094), (2094, 2094), (1945, 1994)] {
            assert_eq!(year(said, now), Some(expected), "seen in {now}");
        }
    }

    #[test]
    fn the_calendar_holds_over_months_years_and_leap_days() {
        for (later, earlier) in [
            ("Tue, 01 Mar 1994 00:00:00 GMT", "Mon, 28 Feb 1994 23:59:59 GMT"),
            ("Thu, 29 Feb 1996 00:00:00 GMT", "Wed, 28 Feb 1996 23:59:59 GMT"),
            ("Fri, 01 Mar 1996 00:00:00 GMT", "Thu, 29 Feb 1996 23:59:59 GMT"),
            ("Tue, 29 Feb 2000 00:00:00 GMT", "Mon, 28 Feb 2000 23:59:59 GMT"),
            ("Mon, 01 Mar 2100 00:00:00 GMT", "Sun, 28 Feb 2100 23:59:59 GMT"),
            ("Sun, 01 Jan 1995 00:00:00 GMT", "Sat, 31 Dec 1994 23:59:59 GMT"),
            ("Mon, 01 Aug 1994 00:00:00 GMT", "Sun, 31 Jul 1994 23:59:59 GMT"),
        ] {
            assert_eq!(wish(later, Some(earlier)), Some(1), "{later}");
        }
        // A published pair: the epoch of Unix and that of NTP.
        let epochs = [&b"Mon, 01 Jan 1900 00:00:00 GMT"[..], b"Thu, 01 Jan 1970 00:00:00 GMT"].map(Date::read);
        assert_eq!(epochs[0].zip(epochs[1]).and_then(|(ntp, unix)| seconds_between(ntp, unix)), Some(2_208_988_800));
    }

    #[test]
    fn what_cannot_be_meant_is_ignored() {
        assert_eq!(wish("Sun, 06 Nov 1994 08:49:36 GMT", Some(DATE)), None, "gone by");
        assert_eq!(wish("Tue, 08 Nov 1994 08:49:37 GMT", Some(DATE)), None, "two days");
        assert_eq!(wish("Sun, 06 Nov 1994 08:50:07 GMT", None), None, "relative to nothing");
        for value in [
            "",
            "-5",
            "+5",
            "1.5",
            "5s",
            "soon",
            "86401",
            "99999999999999999999999",
            "1764000000",
            "Sunday, 06-Nov-1994 08:50:07 GMT",
            "Sun, 06-Nov-94 08:50:07 GMT",
            "Sunday, 06 Nov 1994 08:50:07 GMT",
            "Sunday, 06-Nov-94 08:50:07",
            "Sun Nov  6 08:50:07 1994 GMT",
            "Sun Nov 6 08:50:07 1994",
            "Sun Nov 06 08:50:07 94",
            "Sunday Nov  6 08:50:07 1994",
            "Sun Nov  0 08:50:07 1994",
            "Sun, 06 Nov 1994 08:50:07 CET",
            "Sun, 06 Nov 1994 24:50:07 GMT",
            "Sun, 00 Nov 1994 08:50:07 GMT",
            "Sun, 06 Now 1994 08:50:07 GMT",
            "Sun, 06 Nov 0000 08:50:07 GMT",
            "Sun, 06 Nov 99999999999999999999 08:50:07 GMT",
            "\u{fc}ber, 06 Nov 1994 08:50:07 GMT",
        ] {
            assert_eq!(wish(value, Some(DATE)), None, "{value:?}");
        }
    }
}
