//! Calls that take in a few tasks each, written together: while one group is being committed, the next one forms of
//! what arrives. A call that comes alone is written at once, and each is answered after its own commit. Pure.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::incoming::Incoming;
use crate::error::{Error, Result};
use crate::store::Inserted;

/// A call with more tasks is a batch already, and is written by itself.
pub(super) const SMALL: usize = 64;
/// Most tasks in a group, not counting the last call's.
const TASKS_MAX: usize = 1_000;
/// Most bytes of payloads in a group (4 MiB), not counting the last call's.
const BYTES_MAX: usize = 4 << 20;
/// Groups that are written at once: while one waits for the disk, another is sent.
const WRITERS_MAX: usize = 2;

/// What is answered to a call.
pub(super) type Answers = Vec<Result<Inserted>>;

/// The calls of a handle that wait for their turn.
#[derive(Debug, Default)]
pub(super) struct Gather(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    calls: VecDeque<Call>,
    writers: usize,
}

/// One call.
#[derive(Debug)]
pub(super) struct Call {
    tasks: Vec<Incoming>,
    reply: oneshot::Sender<Result<Answers>>,
}

/// Calls that are written together.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) tasks: Vec<Incoming>,
    /// How many tasks each call has, and whom to answer.
    calls: Vec<(usize, oneshot::Sender<Result<Answers>>)>,
}

impl Gather {
    /// A call joins those that wait. `true`: the caller must see to it that somebody [writes](Self::next).
    pub(super) fn join(&self, tasks: Vec<Incoming>) -> (oneshot::Receiver<Result<Answers>>, bool) {
        let (reply, answer) = oneshot::channel();
        let mut waiting = self.waiting();
        waiting.calls.push_back(Call { tasks, reply });
        let needs_writer = waiting.writers < WRITERS_MAX;
        waiting.writers += usize::from(needs_writer);
        (answer, needs_writer)
    }

    /// What one of the writers writes next. `None`: nothing, and it is no writer any more.
    pub(super) fn next(&self) -> Option<Group> {
        let mut waiting = self.waiting();
        let mut group = Group { tasks: Vec::new(), calls: Vec::new() };
        let mut bytes = 0;
        while group.tasks.len() < TASKS_MAX
            && bytes < BYTES_MAX
            && let Some(Call { tasks, reply }) = waiting.calls.pop_front()
        {
            bytes += tasks.iter().map(|one| one.task.payload.len()).sum::<usize>();
            group.calls.push((tasks.len(), reply));
            group.tasks.extend(tasks);
        }
        if group.calls.is_empty() {
            waiting.writers -= 1;
            return None;
        }
        Some(group)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Group {
    /// Answers every call.
    pub(super) fn answer(self, answers: Result<Answers>) {
        match answers {
            Ok(answers) => {
                let mut answers = answers.into_iter();
                for (count, reply) in self.calls {
                    // Whoever has gone needs no answer.
                    let _ = reply.send(Ok(answers.by_ref().take(count).collect()));
                }
            }
            Err(error) => {
                for (_, reply) in self.calls {
                    let _ = reply.send(Err(Error::new(error.kind(), error.to_string())));
                }
            }
        }
    }

    /// Its calls, each as a group of its own. `None`: it has one only.
    pub(super) fn split(&mut self) -> Option<Vec<Group>> {
        if self.calls.len() < 2 {
            return None;
        }
        let mut tasks = std::mem::take(&mut self.tasks).into_iter();
        let alone = |(count, reply): (usize, _)| Group {
            tasks: tasks.by_ref().take(count).collect(),
            calls: vec![(count, reply)],
        };
        Some(std::mem::take(&mut self.calls).into_iter().map(alone).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::store::sql::incoming::incoming;
    use crate::task::{NewTask, TaskId};

    fn tasks(count: usize) -> Vec<Incoming> {
        let task = |n| NewTask::new("k", &n).unwrap().id(&TaskId::generate(&SystemClock).to_string()).unwrap();
        incoming((0..count).map(task).collect())
    }

    fn answers(tasks: &[Incoming]) -> Answers {
        tasks.iter().map(|one| Ok(Inserted::New(one.id.clone().unwrap()))).collect()
    }

    fn ids(answers: Answers) -> Vec<TaskId> {
        answers.into_iter().map(|answer| answer.unwrap().id().clone()).collect()
    }

    #[tokio::test]
    async fn calls_that_arrive_during_a_commit_are_one_group_and_each_has_its_own_answers() {
        let gather = Gather::default();
        let (_first, writes) = gather.join(tasks(1));
        assert!(writes, "a call that comes alone is written at once");
        let first = gather.next().unwrap();
        let (twos, threes) = (tasks(2), tasks(3));
        let wanted: Vec<Vec<TaskId>> =
            [&twos, &threes].iter().map(|tasks| tasks.iter().map(|one| one.id.clone().unwrap()).collect()).collect();
        let (two, _) = gather.join(twos);
        let (three, writes) = gather.join(threes);
        assert!(!writes, "there are as many writers as may be");
        let group = gather.next().unwrap();
        assert_eq!((first.tasks.len(), group.tasks.len()), (1, 5));
        let all = answers(&group.tasks);
        group.answer(Ok(all));
        assert_eq!(vec![ids(two.await.unwrap().unwrap()), ids(three.await.unwrap().unwrap())], wanted);
        assert!(gather.next().is_none() && gather.next().is_none());
        assert!(gather.join(tasks(1)).1, "who finds nothing has ended");
    }

    #[tokio::test]
    async fn a_group_that_fails_can_be_written_call_by_call() {
        let gather = Gather::default();
        let (first, _) = gather.join(tasks(2));
        let (second, _) = gather.join(tasks(1));
        let mut group = gather.next().unwrap();
        let mut alone = group.split().unwrap();
        assert_eq!(alone.iter().map(|group| group.tasks.len()).collect::<Vec<_>>(), [2, 1]);
        assert!(alone[0].split().is_none());
        alone.remove(0).answer(Err(Error::invalid("no")));
        assert_eq!(first.await.unwrap().unwrap_err().to_string(), "no");
        drop(alone);
        assert!(second.await.is_err());
    }

    #[test]
    fn a_group_has_a_limit() {
        let gather = Gather::default();
        let _answers: Vec<_> = (0..50).map(|_| gather.join(tasks(SMALL))).collect();
        assert!(gather.next().unwrap().tasks.len() < TASKS_MAX + SMALL);
    }
}
