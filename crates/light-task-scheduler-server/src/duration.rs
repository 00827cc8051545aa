//! Durations and rates as people write them: `30s`, `1h30m`, `500ms`; `10/s`, `600/m`, `5/10s`.

use std::time::Duration;

use light_task_scheduler::RateLimit;

/// Longer units first: `ms` must not be read as `m`.
const UNITS_MS: [(&str, f64); 5] = [("ms", 1.0), ("s", 1e3), ("m", 60e3), ("h", 3_600e3), ("d", 86_400e3)];
/// The longest duration that is accepted, in milliseconds (ten years): beyond it a zero too many is likelier.
const LONGEST_MS: f64 = 10.0 * 365.0 * 86_400e3;

/// Reads a duration longer than zero.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    match parse_delay(text)? {
        Duration::ZERO => Err(bad(text, "it is zero")),
        duration => Ok(duration),
    }
}

fn bad(text: &str, why: &str) -> String {
    format!("`{text}` is not a duration: {why}; write for example 30s, 1h30m or 500ms")
}

/// The same where nothing is a duration too: from now on.
pub(crate) fn parse_delay(text: &str) -> Result<Duration, String> {
    let bad = |why: &str| bad(text, why);
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(bad("it is empty"));
    }
    let mut total_ms = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, behind) = rest.split_at(digits);
        let number: f64 = number.parse().map_err(|_| bad("a number is missing"))?;
        let Some((unit, ms)) = UNITS_MS.iter().find(|(unit, _)| behind.starts_with(unit)) else {
            return Err(bad(if behind.is_empty() { "it has no unit" } else { "its units are ms, s, m, h and d" }));
        };
        total_ms += number * ms;
        rest = behind[unit.len()..].trim_start();
    }
    if total_ms > LONGEST_MS {
        return Err(bad("it is longer than ten years"));
    }
    Ok(Duration::from_secs_f64(total_ms / 1e3))
}

/// Reads a rate: so many starts per period, evenly spread.
pub(crate) fn parse_rate(text: &str) -> Result<RateLimit, String> {
    let bad = |why: &str| format!("`{text}` is not a rate: {why}; write for example 10/s, 600/m or 5/10s");
    let (count, period) = text.split_once('/').ok_or_else(|| bad("it has no `/`"))?;
    let count: u32 = count.trim().parse().map_err(|_| bad("its count is not a whole number"))?;
    if count == 0 {
        return Err(bad("its count is zero"));
    }
    let period = period.trim();
    let period =
        if period.starts_with(|c: char| c.is_ascii_digit()) { period.to_owned() } else { format!("1{period}") };
    let period = parse_duration(&period).map_err(|_| bad("its period is not a duration"))?;
    Ok(RateLimit { count, period, burst: 1 })
}

/// Seconds with one decimal, as the summary shows them.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_written() {
        for (text, ms) in [
            ("30s", 30_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            ("1.5s", 1_500),
            ("2d", 172_800_000),
            ("1m 5s", 65_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn bad_durations_say_what_is_wrong() {
        for (text, why) in [
            ("", "empty"),
            ("30", "no unit"),
            ("s", "number is missing"),
            ("3 weeks", "units"),
            ("0s", "zero"),
            ("-1s", "number is missing"),
            ("1..5s", "number is missing"),
            ("99999999d", "ten years"),
        ] {
            let error = parse_duration(text).unwrap_err();
            assert!(error.contains(why) && error.contains("30s"), "{text}: {error}");
        }
    }

    #[test]
    fn rates_are_read_as_written() {
        let rate = |text| parse_rate(text).map(|rate| (rate.count, rate.period.as_millis(), rate.burst));
        assert_eq!(rate("10/s"), Ok((10, 1_000, 1)));
        assert_eq!(rate("600/m"), Ok((600, 60_000, 1)));
        assert_eq!(rate("5/10s"), Ok((5, 10_000, 1)));
        for bad in ["10", "0/s", "x/s", "1/", "1/0s", "1/fortnight", "-1/s"] {
            assert!(rate(bad).unwrap_err().contains("is not a rate"), "{bad}");
        }
    }
}
