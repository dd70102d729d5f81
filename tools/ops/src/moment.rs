//! Points in time as people write them, in milliseconds since 1970-01-01T00:00Z, and back.
//!
//! Understood are milliseconds (13 digits or more), seconds (10 digits), `2026-01-31`, `2026-01-31T12:00:00`, either with `Z` or an offset such as `+02:00`,
//! with a fraction of a second, and `-1h30m`, which is that long ago. A time without an offset is UTC.
//!
//! Knows nothing of the clock: now is an argument.

const DAY_MS: i64 = 86_400_000;

/// What [`parse`] understands, for help texts.
pub const FORMS: &str = "2026-01-31, 2026-01-31T12:00:00Z, seconds or milliseconds since 1970, or -1h for an hour ago";

/// `None` when `text` is no point in time.
pub fn parse(text: &str, now_ms: i64) -> Option<i64> {
    if let Some(ago) = text.strip_prefix('-') {
        return now_ms.checked_sub(duration(ago)?);
    }
    if text.len() >= 10 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let number: i64 = text.parse().ok()?;
        return if text.len() < 13 { number.checked_mul(1000) } else { Some(number) };
    }
    date_and_time(text)
}

/// A length of time such as `250ms`, `90s`, `1h30m` or `2d`, in milliseconds; `None` for anything else.
pub fn duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut sum: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: i64 = rest.get(..digits)?.parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = match &rest[..letters] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => DAY_MS,
            _ => return None,
        };
        rest = &rest[letters..];
        sum = sum.checked_add(number.checked_mul(unit)?)?;
    }
    (!text.is_empty()).then_some(sum)
}

fn date_and_time(text: &str) -> Option<i64> {
    let (date, time) = match text.split_once(['T', ' ']) {
        Some((date, time)) => (date, Some(time)),
        None => (text.trim_end_matches('Z'), None),
    };
    let mut parts = date.splitn(3, '-');
    let (year, month, day) = (digits(parts.next()?, 4)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    if !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) {
        return None;
    }
    let midnight = days_since_1970(year, month, day).checked_mul(DAY_MS)?;
    time.map_or(Some(midnight), |time| midnight.checked_add(time_of_day(time)?))
}

/// Milliseconds since midnight UTC; an offset takes them below 0 or beyond a day.
fn time_of_day(text: &str) -> Option<i64> {
    let (text, offset) = match text.strip_suffix('Z') {
        Some(text) => (text, 0),
        None => match text.rfind(['+', '-']) {
            Some(at) => {
                let sign = if text[at..].starts_with('-') { -1 } else { 1 };
                let (hours, minutes) = text[at + 1..].split_once(':')?;
                (&text[..at], sign * (digits(hours, 2)? * 60 + digits(minutes, 2)?) * 60_000)
            }
            None => (text, 0),
        },
    };
    let mut parts = text.splitn(3, ':');
    let (hour, minute, second) = (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?, parts.next().unwrap_or("00"));
    let (second, fraction) = second.split_once('.').unwrap_or((second, "0"));
    let second = digits(second, 2)?;
    if hour > 23 || minute > 59 || second > 59 || fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let millis: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    Some(((hour * 60 + minute) * 60 + second) * 1000 + millis - offset)
}

fn digits(text: &str, count: usize) -> Option<i64> {
    (text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Of a date of the Gregorian calendar. Years begin in March here, so that a leap day is a year's last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468
}

/// `ms` as `2026-01-31T12:00:00.000Z`.
pub fn shown(ms: i64) -> String {
    let (days, of_day) = (ms.div_euclid(DAY_MS), ms.rem_euclid(DAY_MS));
    // Begins near the year that has `days`.
    let mut year = 1970 + days.div_euclid(365);
    while days_since_1970(year, 1, 1) > days {
        year -= 1 + (days_since_1970(year, 1, 1) - days) / 367;
    }
    while days_since_1970(year + 1, 1, 1) <= days {
        year += 1;
    }
    let mut day = days - days_since_1970(year, 1, 1);
    let mut month = 1;
    while day >= days_in(year, month) {
        day -= days_in(year, month);
        month += 1;
    }
    let (seconds, millis) = (of_day / 1000, of_day % 1000);
    format!("{year:04}-{month:02}-{:02}T{:02}:{:02}:{:02}.{millis:03}Z", day + 1, seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    #[test]
    fn every_form_is_understood() {
        let check = |text: &str, expected: i64| assert_eq!(parse(text, NOW), Some(expected), "{text}");
        check("1700000000", 1_700_000_000_000);
        check("1700000000123", 1_700_000_000_123);
        check("1970-01-01", 0);
        check("2000-02-29Z", 951_782_400_000);
        check("2023-11-14T22:13:20Z", 1_700_000_000_000);
        check("2023-11-14T22:13:20.5", 1_700_000_000_500);
        check("2023-11-15 00:13:20+02:00", 1_700_000_000_000);
        check("2023-11-14T20:43:20.000-01:30", 1_700_000_000_000);
        check("2023-11-14T22:13", 1_699_999_980_000);
        check("1969-12-31T23:59:59.999Z", -1);
        check("-1h30m", NOW - 5_400_000);
        check("-250ms", NOW - 250);
    }

    #[test]
    fn what_is_no_time_is_not_taken_for_one() {
        for text in [
            "",
            "-",
            "-1",
            "-1x",
            "5",
            "2023-13-01",
            "2023-02-29",
            "1900-02-29",
            "2023-1-1",
            "2023-01-01T24:00",
            "2023-01-01T1:00",
            "tomorrow",
            "2023-01-01T10:00:00.Z",
            "-99999999999999999999d",
        ] {
            assert_eq!(parse(text, NOW), None, "{text}");
        }
    }

    #[test]
    fn what_is_shown_is_read_again() {
        for ms in [0, -1, 1, NOW, 951_782_400_000, 951_868_799_999, -62_135_596_800_000, 253_402_300_799_999, 4_107_542_400_000] {
            assert_eq!(parse(&shown(ms), 0), Some(ms), "{}", shown(ms));
        }
        assert_eq!(shown(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        for day in 0..200_000 {
            assert_eq!(parse(&shown(day * DAY_MS), 0), Some(day * DAY_MS));
        }
    }
}
