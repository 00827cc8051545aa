//! How many tasks each lane has in each stage: by how much a transaction changes it. Pure.
//!
//! Every transaction adds rows of its own to the table `tallies`, so that none waits for another; the numbers are the
//! sums. The sweeper puts rows together when there are many.

use std::collections::BTreeMap;

/// The sweeper puts the rows together once there are more.
pub(super) const ROWS_MAX: i64 = 256;
/// Who reads more rows than this has them put together, as no sweeper does.
pub(super) const ROWS_READ_MAX: i64 = 100_000;

/// What one transaction changes.
#[derive(Debug, Default)]
pub(super) struct Tally(BTreeMap<(i32, i64), i64>);

impl Tally {
    /// So many tasks of a lane came to a stage, or left it.
    pub(super) fn add(&mut self, lane: i32, stage: i64, count: i64) {
        *self.0.entry((lane, stage)).or_default() += count;
    }

    /// A task of a lane has moved.
    pub(super) fn moved(&mut self, lane: i32, from: i64, to: i64) {
        self.add(lane, from, -1);
        self.add(lane, to, 1);
    }

    /// Lanes, stages and what is to be added; from now on nothing is.
    pub(super) fn take(&mut self) -> (Vec<i32>, Vec<i16>, Vec<i64>) {
        let changed = std::mem::take(&mut self.0).into_iter().filter(|(_, count)| *count != 0);
        let mut columns = (Vec::new(), Vec::new(), Vec::new());
        for ((lane, stage), count) in changed {
            columns.0.push(lane);
            columns.1.push(stage as i16);
            columns.2.push(count);
        }
        columns
    }
}
