//! Points in time on the command line, and windows of time.

use millrace_base::batch::Header;

/// Milliseconds since 1970: from the first, before the last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    pub from: Option<i64>,
    pub to: Option<i64>,
}

impl Window {
    pub const ALL: Window = Window { from: None, to: None };

    pub fn has(&self, timestamp: i64) -> bool {
        self.from.is_none_or(|from| timestamp >= from) && self.to.is_none_or(|to| timestamp < to)
    }

    /// Whether a record of the batch may lie in it. The first record's time is not the least one, so that only the end is believed.
    pub fn may_have(&self, header: &Header) -> bool {
        self.from.is_none_or(|from| header.max_timestamp >= from)
    }
}

/// Milliseconds, or `2026-11-28`, `2026-11-28T10:30:00`, with a fraction and `Z` or not: UTC.
///
/// # Errors
/// What can be meant.
pub fn parse(text: &str) -> Result<i64, String> {
    if let Ok(ms) = text.parse::<i64>() {
        return Ok(ms);
    }
    read(text).ok_or_else(|| format!("{text:?} is no time: give milliseconds since 1970, or UTC like 2026-11-28T10:30:00"))
}

fn read(text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00:00"));
    let mut date = date.splitn(3, '-');
    let (year, month, day) = (number(date.next()?, 4)?, number(date.next()?, 2)?, number(date.next()?, 2)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || !(1970..=9999).contains(&year) {
        return None;
    }
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut time = time.split(':');
    let (hour, minute) = (number(time.next()?, 2)?, number(time.next()?, 2)?);
    let second = time.next().map_or(Some(0), |second| number(second, 2))?;
    if time.next().is_some() || hour > 23 || minute > 59 || second > 59 || fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let ms: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    // Days from the civil calendar (Hinnant): years begin in March, so that the leap day is the last.
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let era = y / 400;
    let of_era = y - era * 400;
    let of_year = (153 * m + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + ms)
}

fn number(text: &str, digits: usize) -> Option<i64> {
    (text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// As UTC, in the form that [`parse`] reads.
pub fn text(ms: i64) -> String {
    let (days, rest) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    let z = days.saturating_add(719_468);
    let era = z.div_euclid(146_097);
    let of_era = z.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let m = (5 * of_year + 2) / 153;
    let day = of_year - (153 * m + 2) / 5 + 1;
    let month = if m < 10 { m + 3 } else { m - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second, ms) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60, rest % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written_alike() {
        for (given, ms) in [
            ("0", 0),
            ("-5", -5),
            ("1970-01-01", 0),
            ("2024-02-29T12:30:15.5Z", 1_709_209_815_500),
            ("2026-11-28 10:30", 1_795_861_800_000),
            ("2000-03-01", 951_868_800_000),
        ] {
            assert_eq!(parse(given), Ok(ms), "{given}");
        }
        for ms in [0, 951_782_400_000, 951_868_799_999, 1_709_209_815_500, 4_102_444_800_000] {
            assert_eq!(parse(&text(ms)), Ok(ms), "{}", text(ms));
        }
        assert_eq!(text(-1), "1969-12-31T23:59:59.999Z");
        for bad in ["", "yesterday", "2026-13-01", "2026-11-28T25:00", "26-11-28", "2026-11-28T10:30:00+01:00"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
