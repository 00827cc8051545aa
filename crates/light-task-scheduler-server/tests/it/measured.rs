//! Times that were measured, beside what was asked for.

use std::time::Duration;

/// What a time is asked to be at most.
#[derive(Debug)]
pub(crate) struct Bound {
    most: Duration,
    what: &'static str,
}

impl Bound {
    /// So many seconds.
    pub(crate) const fn of(seconds: u64, what: &'static str) -> Self {
        Bound { most: Duration::from_secs(seconds), what }
    }
}

/// Times of one kind.
#[derive(Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl FromIterator<Duration> for Times {
    fn from_iter<T: IntoIterator<Item = Duration>>(times: T) -> Self {
        let mut times: Vec<Duration> = times.into_iter().collect();
        times.sort_unstable();
        Times(times)
    }
}

impl Times {
    /// Prints them. Where `LTS_ASKED` is set, each is checked against the bound: on a machine that does much else
    /// at the same time a bound says little.
    pub(crate) fn say(&self, bound: &Bound) {
        let (Some(least), Some(most)) = (self.0.first(), self.0.last()) else { return };
        let median = self.0[self.0.len() / 2];
        let Bound { most: asked, what } = bound;
        let (n, seconds) = (self.0.len(), Duration::as_secs_f64);
        println!(
            "measured: {what}: min {:.1} s, median {:.1} s, max {:.1} s of {n}; asked {} s",
            seconds(least),
            seconds(&median),
            seconds(most),
            asked.as_secs()
        );
        assert!(std::env::var_os("LTS_ASKED").is_none() || most <= asked, "{what} took {most:?}, asked {asked:?}");
    }
}
