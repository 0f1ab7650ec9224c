//! How people write durations and sizes: `30s`, `5d`, `16 MiB`.

use std::time::Duration;

/// Reads a duration: a whole number and `ms`, `s`, `m`, `h` or `d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text)?;
    let millis = match unit {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    let millis = millis.ok_or("a duration is a number and one of ms, s, m, h, d: 30s")?;
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(|| "too long".to_owned())
}

/// Reads a size in bytes: a whole number and nothing, `KiB`, `MiB` or `GiB`.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text)?;
    let bytes = match unit {
        "" | "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    let bytes = bytes.ok_or("a size is a number and one of B, KiB, MiB, GiB: 50 MiB")?;
    number.checked_mul(bytes).ok_or_else(|| "too large".to_owned())
}

fn split(text: &str) -> Result<(u64, &str), String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number = number.parse().map_err(|_| "it starts with a whole number".to_owned())?;
    Ok((number, unit.trim()))
}

/// Writes a duration in its one or two largest units: `2 h 5 min`.
pub(crate) fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let parts: Vec<String> = units
        .iter()
        .map(|(size, name)| (seconds / size, *size, name))
        .scan(0, |taken, (count, size, name)| {
            let rest = count - *taken / size;
            *taken += rest * size;
            Some((rest, name))
        })
        .filter(|(count, _)| *count > 0)
        .take(2)
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    if parts.is_empty() { format!("{} ms", duration.as_millis()) } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_read_and_written() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration(" 5 d "), Ok(Duration::from_secs(5 * 86_400)));
        for bad in ["", "s", "-1s", "1.5s", "1 week", "99999999999999999999s", "9999999999999999d"]
        {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
        assert_eq!(parse_size("16 MiB"), Ok(16 << 20));
        assert!(parse_size("1 MB").is_err() && parse_size("-5").is_err());
        assert_eq!(show_duration(Duration::from_secs(7500)), "2 h 5 min");
        assert_eq!(show_duration(Duration::from_secs(86_400)), "1 d");
        assert_eq!(show_duration(Duration::from_secs(59)), "59 s");
        assert_eq!(show_duration(Duration::from_millis(12)), "12 ms");
    }
}
