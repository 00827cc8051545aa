//! What the operating system says of this process, and percentiles.

use std::time::{Duration, Instant};

/// What this process has used so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    /// Processor time of all threads, in seconds.
    pub(super) cpu_s: f64,
    /// The most memory it has had at once, in MB.
    pub(super) peak_rss_mb: f64,
}

impl Usage {
    pub(super) fn now() -> Self {
        Usage { cpu_s: cpu_s(), peak_rss_mb: status_kib("VmHWM:") / 1_024.0 }
    }
}

/// Memory this process has now, in bytes.
pub(super) fn rss_bytes() -> f64 {
    status_kib("VmRSS:") * 1_024.0
}

/// One line of this process's status, in KiB; 0 where the system has no such file.
fn status_kib(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
}

fn cpu_s() -> f64 {
    /// Linux counts processor time in hundredths of a second.
    const TICKS_PER_S: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the closing bracket of the name, user and system time are fields 12 and 13.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |place: usize| fields.get(place).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
    (ticks(11) + ticks(12)) / TICKS_PER_S
}

/// A running stopwatch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watch(Instant);

impl Watch {
    #[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
    pub(super) fn start() -> Self {
        Watch(Instant::now())
    }

    pub(super) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    /// Microseconds from this start to another one; 0 if that was before.
    pub(super) fn micros_until(self, other: Watch) -> f64 {
        other.0.saturating_duration_since(self.0).as_secs_f64() * 1e6
    }

    /// How many of `count` were done per second.
    pub(super) fn rate(self, count: u64) -> f64 {
        count as f64 / self.elapsed().as_secs_f64()
    }
}

/// The value below which `share` of the samples lie; 0 without samples.
pub(super) fn percentile(samples: &mut [f64], share: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let place = ((samples.len() as f64 - 1.0) * share).round() as usize;
    samples.get(place).copied().unwrap_or_default()
}
