//! What a history of starts and ends must look like where there is a limit and a rate. Pure.

use light_task_scheduler::RateLimit;

/// The most that ran at once; each from its start until just before its end.
pub(crate) fn most_at_once(times: &[(i64, i64)]) -> usize {
    let mut events: Vec<(i64, i32)> = times.iter().flat_map(|(start, end)| [(*start, 1), (*end, -1)]).collect();
    // At one moment an end comes before a start.
    events.sort_unstable();
    let mut running = 0;
    let counts = events.iter().map(|(_, change)| {
        running += change;
        running
    });
    usize::try_from(counts.max().unwrap_or(0)).unwrap_or(0)
}

/// The first window of time in which there were more starts than a rate allows: in `t` of time, the burst and as many
/// as fit into `t` and `jitter`, by which the times may be wrong. All in microseconds.
pub(crate) fn overrun(starts: &[i64], rate: RateLimit, jitter: i64) -> Option<String> {
    let interval = i64::try_from(rate.period.as_micros()).unwrap() / i64::from(rate.count);
    let mut starts = starts.to_vec();
    starts.sort_unstable();
    for (first, from) in starts.iter().enumerate() {
        for (last, to) in starts.iter().enumerate().skip(first) {
            let (n, time) = (last - first + 1, to - from);
            let allowed = i64::from(rate.burst) + (time + jitter) / interval;
            if i64::try_from(n).unwrap() > allowed {
                return Some(format!("{n} starts in {time} us from {from}, where {allowed} may be"));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const RATE: RateLimit = RateLimit { count: 50, period: Duration::from_secs(1), burst: 2 };
    const INTERVAL: i64 = 20_000;

    #[test]
    fn one_too_many_at_once_is_seen() {
        let one_after_the_other = [(0, 5), (5, 9), (9, 12)];
        assert_eq!((most_at_once(&one_after_the_other), most_at_once(&[])), (1, 0));
        assert_eq!(most_at_once(&[(0, 5), (4, 9), (9, 12)]), 2);
        let seven: Vec<(i64, i64)> = (0..7).map(|n| (n, 100)).collect();
        assert_eq!(most_at_once(&seven), 7);
        assert_eq!(most_at_once(&[seven, vec![(99, 101)]].concat()), 8);
    }

    #[test]
    fn one_start_too_many_in_any_window_is_seen() {
        let even: Vec<i64> = (0..100).map(|n| n * INTERVAL).collect();
        assert_eq!(overrun(&even, RATE, 0), None);
        let with_burst = [vec![0], even.clone()].concat();
        assert_eq!(overrun(&with_burst, RATE, 0), None, "the burst is allowed");
        for (more, jitter) in [(50 * INTERVAL, 0), (50 * INTERVAL - 1, 0), (99 * INTERVAL, INTERVAL - 1)] {
            let error = overrun(&[with_burst.clone(), vec![more]].concat(), RATE, jitter).unwrap();
            assert!(error.contains("starts in"), "{error}");
        }
        let one_more = [with_burst, vec![50 * INTERVAL]].concat();
        assert_eq!(overrun(&one_more, RATE, INTERVAL), None, "a jitter of one interval explains one more");
    }
}
