//! The end that nearly every task comes to, without reading it first: a success without a result.
//!
//! It is what `step` makes of the record that a running task has most of the time, and is written only where the
//! row is so. If one of the rows is not, nothing is written here, and all of them are read.

use std::collections::{BTreeMap, HashMap};

use super::rows::{self, Wide, uuid};
use super::tx::{Tx, bind_all, filled, now};
use crate::clock::Timestamp;
use crate::database::mysql::Work;
use crate::database::mysql::sql::LIST_MAX;
use crate::error::Result;
use crate::state::{Event, RunEvent, step};
use crate::store::sql::ids;
use crate::store::{Answer, Change};
use crate::task::{Record, ReplicaId, State, TaskId};

/// Successes whose result is `null` (the flag 8) of running tasks of one owner and run that were taken in together, of
/// which nothing is kept, of which nobody has wished a cancellation and that have no report.
pub(super) const COMPLETE: &str = concat!(
    "UPDATE {p}tasks AS t SET stage = 4, finished_at = ",
    now!(),
    " * ? + ?, lost_in_a_row = 0, flags = 8
    WHERE t.seq IN ({*?*}) AND t.created_at = ? AND t.id IS NULL AND t.owner = ? AND t.run = ? AND t.stage = 2
    AND t.flags & 5 = 0 AND t.details IS NULL AND t.output IS NULL AND t.result IS NULL"
);
/// From so many on a statement of their own is worth it.
const GROUP_MIN: usize = 8;

/// What is the same for all tasks that one statement ends: when they were taken in, whose they are, and their run.
type Group = (Timestamp, ReplicaId, u64);

/// Applies the successes among these changes that can be applied without reading; the others have no answer.
pub(super) async fn complete(tx: &mut Tx<'_>, changes: &[Change]) -> Work<Vec<Option<Answer>>> {
    let mut answers = vec![None; changes.len()];
    let groups = groups(tx.shared.salt, changes)?;
    for ((created_at, owner, run), ends) in &groups {
        let seqs: Vec<i64> = ends.iter().map(|(seq, _)| *seq).collect();
        for part in seqs.chunks(LIST_MAX) {
            let (factor, offset) = tx.shared.clock();
            let query = bind_all(tx.listed(COMPLETE, part.len()).bind(factor).bind(offset), filled(part, part.len()));
            let query = query.bind(created_at.as_micros()).bind(uuid(*owner)).bind(run.cast_signed());
            if query.execute(tx.connection()).await?.rows_affected() != part.len() as u64 {
                tx.begin_anew().await?;
                return Ok(vec![None; changes.len()]);
            }
        }
        for (_, place) in ends {
            answers[*place] = Some(Answer::Applied(Some(State::Succeeded)));
        }
    }
    if !groups.is_empty() {
        tx.hint.ends = true;
        rows::slot_freed(tx).await?;
    }
    Ok(answers)
}

/// The successes that may be written together: the numbers of their rows, in order, and their places among the changes.
fn groups(salt: i64, changes: &[Change]) -> Result<BTreeMap<Group, Vec<(i64, usize)>>> {
    let mut times: HashMap<&TaskId, usize> = HashMap::with_capacity(changes.len());
    changes.iter().for_each(|change| *times.entry(&change.id).or_default() += 1);
    let mut groups: BTreeMap<Group, Vec<(i64, usize)>> = BTreeMap::new();
    for (place, Change { id, token, event }) in changes.iter().enumerate() {
        // What is said twice of a task is left to those who look.
        let once = matches!(event, RunEvent::Complete(_)) && times.get(id) == Some(&1);
        let Some(row) = ids::place(salt, id).filter(|_| once) else { continue };
        let mut record =
            Record { state: State::Running, owner: Some(token.owner), run: token.run, ..Record::default() };
        let is_taken = step(&mut record, Event::Run(*token, event.clone()), Timestamp::default()).is_ok();
        if is_taken && record.state == State::Succeeded && Wide::of(&record)?.is_null_alone() {
            groups.entry((row.created_at, token.owner, token.run)).or_default().push((row.seq, place));
        }
    }
    groups.retain(|_, ends| ends.len() >= GROUP_MIN);
    groups.values_mut().for_each(|ends| ends.sort_unstable());
    Ok(groups)
}
