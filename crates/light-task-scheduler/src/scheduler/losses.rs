//! What a store has lost, by name: a failover or a restore can take back writes that were acknowledged.
//!
//! A replica knows of its own last acknowledged writes and of what it runs. When the store says that it has lost writes,
//! it pauses its claims for one ttl, so that whoever runs a task whose claim is gone finds out and stops it before it is
//! started again, and names what is missing or has gone back. What other replicas wrote, they name.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Result;
use crate::scheduler::core::Core;
use crate::store::{BATCH_MAX, HeartbeatReply};
use crate::task::{Record, TaskId, Token};

/// How many acknowledged writes are remembered: what is older is most likely in the copies of the store.
const REMEMBERED_MAX: usize = 10_000;

/// How far a store's writes have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    epoch: u64,
    op_seq: u64,
}

impl Written {
    pub(super) fn of(reply: &HeartbeatReply) -> Self {
        Written { epoch: reply.epoch, op_seq: reply.op_seq }
    }

    /// Whether the store has lost acknowledged writes between `self` and `now`: it says so, or its counter went back.
    fn lost_some_until(self, now: Written) -> bool {
        now.epoch != self.epoch || now.op_seq < self.op_seq
    }

    /// Notes how far the writes have come; if some were lost since the last time, claims pause and what is known of
    /// them is named.
    pub(super) fn follow(last: &mut Option<Written>, now: Written, core: &Arc<Core>) {
        if !last.replace(now).is_some_and(|before| before.lost_some_until(now)) {
            return;
        }
        let Written { epoch, op_seq } = now;
        tracing::error!(
            epoch,
            op_seq,
            pause = ?core.config.ttl,
            "the store has lost acknowledged writes, by a failover or a restore: tasks may be missing or run again; \
             claims pause"
        );
        core.replica.pause_claims(core.config.ttl);
        let naming = core.clone();
        core.spawn(async move {
            if let Err(error) = name(&naming).await {
                tracing::error!(%error, "what the store has lost could not be looked at");
            }
        });
    }
}

/// What a replica knows of a task from an answer of the store.
#[derive(Debug, Clone, PartialEq)]
enum Known {
    /// It was taken in.
    TakenIn,
    /// This run of it has ended for good, in this generation.
    Ended { run: u64, generation: u32 },
    /// This replica runs it.
    Held(Token),
}

impl Known {
    /// Whether the store's record is older than that.
    fn is_ahead_of(&self, record: &Record) -> bool {
        match self {
            Known::TakenIn => false,
            Known::Ended { run, generation } => {
                record.run < *run
                    || record.run == *run && record.generation <= *generation && !record.state.is_terminal()
            }
            // Higher: another has adopted it since.
            Known::Held(token) => record.run < token.run,
        }
    }
}

/// The last acknowledged writes of this replica, on a store that may lose some.
#[derive(Debug)]
pub(super) struct Acknowledged(Option<Mutex<VecDeque<(TaskId, Known)>>>);

impl Acknowledged {
    /// Only of a store that other hosts keep: one in this process or on this disk does not go back.
    pub(super) fn new(multi_host: bool) -> Self {
        Acknowledged(multi_host.then(Mutex::default))
    }

    pub(super) fn taken_in<'a>(&self, ids: impl Iterator<Item = &'a TaskId>) {
        self.note(ids.map(|id| (id.clone(), Known::TakenIn)));
    }

    /// Notes runs that have ended for good: id, run, generation.
    pub(super) fn ended(&self, ends: impl Iterator<Item = (TaskId, u64, u32)>) {
        self.note(ends.map(|(id, run, generation)| (id, Known::Ended { run, generation })));
    }

    fn note(&self, writes: impl Iterator<Item = (TaskId, Known)>) {
        let Some(mut all) = self.lock() else { return };
        all.extend(writes);
        let surplus = all.len().saturating_sub(REMEMBERED_MAX);
        all.drain(..surplus);
    }

    fn all(&self) -> Vec<(TaskId, Known)> {
        self.lock().map(|all| all.iter().cloned().collect()).unwrap_or_default()
    }

    fn lock(&self) -> Option<MutexGuard<'_, VecDeque<(TaskId, Known)>>> {
        self.0.as_ref().map(|all| all.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Names the tasks of which this replica knows more than the store.
async fn name(core: &Core) -> Result<()> {
    let mut known = core.acknowledged.all();
    known.extend(core.registry.all().iter().map(|held| (held.id().clone(), Known::Held(held.token()))));
    let mut named = 0;
    for part in known.chunks(BATCH_MAX) {
        let ids: Vec<TaskId> = part.iter().map(|(id, _)| id.clone()).collect();
        for ((id, known), task) in part.iter().zip(core.store.get(&ids).await?) {
            let what = match task {
                None => "it is not there any more",
                Some(task) if known.is_ahead_of(&task.record) => "it is as it was before",
                Some(_) => continue,
            };
            tracing::error!(%id, ?known, "the store has lost an acknowledged write of a task: {what}");
            core.hub.tell_lost(id);
            named += 1;
        }
    }
    tracing::error!(named, looked_at = known.len(), "these are the lost writes that this replica knows of");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::{ReplicaId, State};

    #[test]
    fn writes_are_lost_if_the_store_says_so_or_goes_back() {
        let written = |epoch, op_seq| Written { epoch, op_seq };
        assert!(!written(1, 5).lost_some_until(written(1, 5)));
        assert!(!written(1, 5).lost_some_until(written(1, 9)));
        assert!(written(1, 5).lost_some_until(written(1, 4)));
        assert!(written(1, 5).lost_some_until(written(2, 9)));
    }

    #[test]
    fn a_record_that_has_gone_back_is_told_from_one_that_went_on() {
        let record = |state, run, generation| Record { state, run, generation, ..Record::default() };
        let ended = Known::Ended { run: 3, generation: 1 };
        assert!(ended.is_ahead_of(&record(State::Running, 3, 1)), "the end is gone");
        assert!(ended.is_ahead_of(&record(State::Waiting, 2, 1)), "and its start");
        assert!(!ended.is_ahead_of(&record(State::Succeeded, 3, 1)));
        assert!(!ended.is_ahead_of(&record(State::Waiting, 3, 2)), "it was requeued");
        assert!(!ended.is_ahead_of(&record(State::Running, 4, 2)), "and has started again");
        let held = Known::Held(Token { owner: ReplicaId::from_bytes([1; 16]), run: 2 });
        assert!(held.is_ahead_of(&record(State::Waiting, 1, 0)));
        assert!(!held.is_ahead_of(&record(State::Running, 3, 0)), "another has adopted it");
        assert!(!Known::TakenIn.is_ahead_of(&record(State::Waiting, 0, 0)));
    }

    #[test]
    fn only_the_last_writes_are_remembered_and_none_of_a_local_store() {
        let id = |n: usize| TaskId::new(&n.to_string()).unwrap();
        let ids: Vec<TaskId> = (0..REMEMBERED_MAX + 5).map(id).collect();
        let all = Acknowledged::new(true);
        all.taken_in(ids.iter());
        let kept = all.all();
        assert_eq!((kept.len(), &kept[0].0), (REMEMBERED_MAX, &id(5)));
        let none = Acknowledged::new(false);
        none.taken_in(ids.iter());
        assert!(none.all().is_empty());
    }
}
