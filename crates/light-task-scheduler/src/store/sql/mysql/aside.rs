//! What only few tasks have, in tables of its own: ids that were given, deadlines, and the stages that are looked for.
//! An index on the table of tasks would have an entry for every row.
//!
//! | table | its rows |
//! |---|---|
//! | `ids` | the tasks with a given id |
//! | `deadlines` | those that have a deadline and have not run |
//! | `rare` | those that are held, have failed or were cancelled |

use super::tx::Tx;
use crate::clock::Timestamp;
use crate::database::mysql::Work;
use crate::store::sql::codec;
use crate::store::sql::moves::{Change, Stored};
use crate::task::{State, Task};

/// The numbers of tasks with given ids.
pub(super) const SEQS: &str = "SELECT i.task FROM {p}ids AS i WHERE i.id IN ({*?*})";
pub(super) const OVERDUE: &str =
    "SELECT d.task FROM {p}deadlines AS d WHERE d.deadline <= ? ORDER BY d.deadline LIMIT ?";

const KEEP_IDS: &str = "INSERT INTO {p}ids (id, task) SELECT id, seq FROM {p}tasks WHERE seq IN ({*?*})";
const KEEP_DEADLINES: &str = "INSERT INTO {p}deadlines (task, deadline)
    SELECT seq, deadline FROM {p}tasks WHERE seq IN ({*?*}) AND deadline IS NOT NULL";
const KEEP_RARE: &str = "INSERT INTO {p}rare (stage, task) SELECT stage, seq FROM {p}tasks WHERE seq IN ({*?*})";
pub(super) const FORGET_IDS: &str =
    "DELETE i FROM {p}tasks AS t STRAIGHT_JOIN {p}ids AS i ON i.id = t.id WHERE t.seq IN ({*?*})";
const FORGET_DEADLINES: &str = "DELETE FROM {p}deadlines WHERE task IN ({*?*})";
const FORGET_RARE: &str = "DELETE FROM {p}rare WHERE stage IN (0, 5, 6) AND task IN ({*?*})";

/// Whether a task of this stage has a row in `rare`.
pub(super) fn is_rare(stage: i64) -> bool {
    [State::Held, State::Failed, State::Cancelled].iter().any(|state| *state as i64 == stage)
}

/// Whether a deadline still means something to a task of this stage.
fn is_open(stage: i64) -> bool {
    stage < State::Running as i64
}

/// Of new rows those of which something is to be kept.
#[derive(Debug, Default)]
pub(super) struct New {
    pub(super) with_id: Vec<i64>,
    pub(super) with_deadline: Vec<i64>,
    pub(super) rare: Vec<i64>,
}

/// Keeps what new rows have.
pub(super) async fn keep(tx: &mut Tx<'_>, new: &New) -> Work<()> {
    tx.for_all(KEEP_IDS, &new.with_id).await?;
    tx.for_all(KEEP_DEADLINES, &new.with_deadline).await?;
    tx.for_all(KEEP_RARE, &new.rare).await
}

/// Keeps up with rows that were written.
pub(super) async fn follow(tx: &mut Tx<'_>, changes: &[Change<'_>], now: Timestamp) -> Work<()> {
    let seqs = |is_one: &dyn Fn(i64, i64) -> bool| -> Vec<i64> {
        let those = changes.iter().filter(|(was, after)| is_one(was.stage, codec::stage(after, now)));
        those.map(|(was, _)| was.seq).collect()
    };
    tx.for_all(FORGET_RARE, &seqs(&|was, is| was != is && is_rare(was))).await?;
    tx.for_all(KEEP_RARE, &seqs(&|was, is| was != is && is_rare(is))).await?;
    tx.for_all(FORGET_DEADLINES, &seqs(&|was, is| is_open(was) && !is_open(is))).await?;
    tx.for_all(KEEP_DEADLINES, &seqs(&|was, is| !is_open(was) && is_open(is))).await
}

/// Keeps up with tasks that were claimed.
pub(super) async fn claimed(tx: &mut Tx<'_>, tasks: &[(Stored, Task)]) -> Work<()> {
    tx.for_all(FORGET_DEADLINES, &with_deadline(tasks)).await
}

/// Forgets what belongs to rows that are about to be removed.
pub(super) async fn remove(tx: &mut Tx<'_>, tasks: &[(Stored, Task)]) -> Work<()> {
    let all: Vec<i64> = tasks.iter().map(|(stored, _)| stored.seq).collect();
    let rare = tasks.iter().filter(|(stored, _)| is_rare(stored.stage));
    let rare: Vec<i64> = rare.map(|(stored, _)| stored.seq).collect();
    tx.for_all(FORGET_IDS, &all).await?;
    tx.for_all(FORGET_DEADLINES, &with_deadline(tasks)).await?;
    tx.for_all(FORGET_RARE, &rare).await
}

fn with_deadline(tasks: &[(Stored, Task)]) -> Vec<i64> {
    tasks.iter().filter(|(_, task)| task.spec.deadline().is_some()).map(|(stored, _)| stored.seq).collect()
}
