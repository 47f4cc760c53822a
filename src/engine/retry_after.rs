//! How long a response asks to be left alone: its `Retry-After`, as seconds or as a date (RFC 9110, section 10.2.3).
//!
//! A date is taken relative to the response's own `Date`, so that no clock needs to agree with another; without one it
//! says nothing. Of the three forms of dates only the one that servers may send today is read. Whatever cannot be meant,
//! a date gone by or more than a day, is no wish at all: it is more likely a mistake, say a timestamp in place of seconds.

use crate::control::Nanos;

/// Nobody asks for longer than this, and means it.
const LONGEST_SECONDS: u64 = 86_400;

/// How long the response asks to be left alone, by its `Retry-After` and, where that is a date, its `Date`.
pub(super) fn retry_after<'a>(value: &[u8], date: impl FnOnce() -> Option<&'a [u8]>) -> Option<Nanos> {
    let value = value.trim_ascii();
    let seconds = match number(value) {
        Some(seconds) => seconds,
        None => http_date(value)?.checked_sub(http_date(date()?.trim_ascii())?)?,
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

/// Seconds from 1 March of the year 0 to a date such as `Sun, 06 Nov 1994 08:49:37 GMT`. The name of the day is not
/// checked against the date.
fn http_date(text: &[u8]) -> Option<u64> {
    const MONTHS: [&[u8]; 12] =
        [b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec", b"Jan", b"Feb"];
    let [_, _, _, b',', b' ', day @ .., b' ', b'G', b'M', b'T'] = text else { return None };
    let [d1, d2, b' ', m1, m2, m3, b' ', year @ .., b' ', h1, h2, b':', n1, n2, b':', s1, s2] = day else {
        return None;
    };
    let month = MONTHS.iter().position(|name| **name == [*m1, *m2, *m3])? as u64;
    let (day, year) = (number(&[*d1, *d2])?, number(year).filter(|year| (1..=9999).contains(year))?);
    let (hour, minute, second) = (number(&[*h1, *h2])?, number(&[*n1, *n2])?, number(&[*s1, *s2])?);
    // A leap second is the 60th.
    if !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Years that begin in March end with the leap day, and their months' lengths follow a line: 30.6 days each.
    let year = year - u64::from(month >= 10);
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 306 + 5) / 10 + day - 1;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
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
        let (unix, ntp) = (http_date(b"Thu, 01 Jan 1970 00:00:00 GMT"), http_date(b"Mon, 01 Jan 1900 00:00:00 GMT"));
        assert_eq!(unix.zip(ntp).map(|(unix, ntp)| unix - ntp), Some(2_208_988_800));
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
            "Sunday, 06-Nov-94 08:50:07 GMT",
            "Sun Nov  6 08:50:07 1994",
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
