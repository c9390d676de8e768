//! The date of a result.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in UTC: `2026-11-27T09:30:00Z`. A clock before 1970 counts as that.
pub fn now() -> String {
    utc(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// The date of a number of seconds since 1970, by the Gregorian calendar (Howard Hinnant, "chrono-compatible low-level date
/// algorithms", `civil_from_days`): years are counted from March, so that the day of a leap year is the last one.
fn utc(seconds: u64) -> String {
    // Days since 1 March of the year 0; an era is 400 years.
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let year = 400 * era + year + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        // As `date -u -d @N` has them.
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (1_795_773_600, "2026-11-27T10:00:00Z"),
        ] {
            assert_eq!(utc(seconds), date);
        }
        assert!(now().as_str() > "2026");
    }
}
