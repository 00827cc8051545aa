//! What subscribers and waiters see.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, broadcast};

use crate::scheduler::core::hinted;
use crate::store::{BATCH_MAX, Changes, Store};
use crate::task::{State, TaskId};

/// How many events wait for a slow subscriber before it misses some.
pub const EVENTS_KEPT: usize = 1_024;
/// The shortest time between two looks for ends on other replicas.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Something that happened to a task of this replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskEvent {
    /// The task.
    pub id: TaskId,
    /// The state it has come to.
    pub state: State,
}

/// What [`Events::next`] gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Something happened.
    Event(TaskEvent),
    /// This subscriber was too slow and missed so many events. No task is affected.
    Missed(u64),
    /// The store has lost an acknowledged write of this task, by a failover or a restore: the task is gone, or as it was
    /// before and may run again. Told once for each lost write that this replica knows of: its last 10,000, and its runs.
    Lost(TaskId),
}

/// A subscription to what happens on this replica. Slow reading loses events, never blocks a task.
#[derive(Debug)]
pub struct Events {
    receiver: broadcast::Receiver<Seen>,
    _present: Arc<()>,
}

impl Events {
    /// The next event; `None` once the scheduler is gone.
    pub async fn next(&mut self) -> Option<Seen> {
        match self.receiver.recv().await {
            Ok(seen) => Some(seen),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Seen::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// Tells subscribers and waiters; costs next to nothing while there are none.
#[derive(Debug)]
pub(super) struct EventHub {
    subscribers: broadcast::Sender<Seen>,
    /// Every subscription has one too: counting them takes no lock.
    present: Arc<()>,
    /// The bell of each awaited task, and how many wait for it.
    waiters: Mutex<HashMap<TaskId, (Arc<Notify>, usize)>>,
    waiting: AtomicUsize,
    /// Rung when somebody begins to wait.
    came: Notify,
}

impl EventHub {
    pub(super) fn new() -> Self {
        EventHub {
            subscribers: broadcast::Sender::new(EVENTS_KEPT),
            present: Arc::new(()),
            waiters: Mutex::new(HashMap::new()),
            waiting: AtomicUsize::new(0),
            came: Notify::new(),
        }
    }

    pub(super) fn subscribe(&self) -> Events {
        Events { receiver: self.subscribers.subscribe(), _present: self.present.clone() }
    }

    /// Says that a task has come to a state.
    pub(super) fn tell(&self, id: &TaskId, state: State) {
        if Arc::strong_count(&self.present) > 1 {
            // An error means that the last subscriber has just left.
            let _ = self.subscribers.send(Seen::Event(TaskEvent { id: id.clone(), state }));
        }
        if state.is_terminal() && self.waiting.load(Ordering::Acquire) > 0 {
            self.ring(id);
        }
    }

    /// Says that the store has lost a write of a task.
    pub(super) fn tell_lost(&self, id: &TaskId) {
        let _ = self.subscribers.send(Seen::Lost(id.clone()));
    }

    /// Wakes whoever waits for the end of this task.
    fn ring(&self, id: &TaskId) {
        if let Some((bell, _)) = self.waiters().get(id) {
            bell.notify_waiters();
        }
    }

    fn awaited(&self) -> Vec<TaskId> {
        let mut ids: Vec<TaskId> = self.waiters().keys().cloned().collect();
        ids.sort();
        ids
    }

    async fn somebody_waits(&self) {
        loop {
            let came = self.came.notified();
            tokio::pin!(came);
            came.as_mut().enable();
            if self.waiting.load(Ordering::Acquire) > 0 {
                return;
            }
            came.await;
        }
    }

    /// Registers interest in the end of a task. Register first, then look at the store: no end is missed.
    pub(super) fn wait_for(self: &Arc<Self>, id: &TaskId) -> Waiter {
        let mut waiters = self.waiters();
        let (bell, count) = waiters.entry(id.clone()).or_default();
        *count += 1;
        let bell = bell.clone();
        self.waiting.store(waiters.len(), Ordering::Release);
        drop(waiters);
        self.came.notify_waiters();
        Waiter { hub: self.clone(), id: id.clone(), bell }
    }

    fn waiters(&self) -> MutexGuard<'_, HashMap<TaskId, (Arc<Notify>, usize)>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The loop that rings for ends on other replicas: one look at all awaited tasks per hint or poll, and
/// none while nobody waits.
pub(super) async fn follow(hub: Arc<EventHub>, store: Arc<dyn Store>, poll: Duration) {
    let mut seen = Changes::default();
    loop {
        hub.somebody_waits().await;
        let news = hinted(&*store, seen, |changes| changes.ends);
        if let Ok(now) = tokio::time::timeout(poll, news).await {
            seen = now;
        }
        for ids in hub.awaited().chunks(BATCH_MAX) {
            // A store that fails now is asked again at the next hint or poll.
            let Ok(tasks) = store.get(ids).await else { break };
            for (id, task) in ids.iter().zip(tasks) {
                if task.is_none_or(|task| task.record.state.is_terminal()) {
                    hub.ring(id);
                }
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Interest in the end of one task.
pub(super) struct Waiter {
    hub: Arc<EventHub>,
    id: TaskId,
    pub(super) bell: Arc<Notify>,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiters = self.hub.waiters();
        if let Some((_, count)) = waiters.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                waiters.remove(&self.id);
            }
        }
        self.hub.waiting.store(waiters.len(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_subscriber_is_told_what_it_missed() {
        let hub = EventHub::new();
        let mut events = hub.subscribe();
        let id = TaskId::new("a").unwrap();
        for _ in 0..EVENTS_KEPT + 3 {
            hub.tell(&id, State::Running);
        }
        assert_eq!(events.next().await, Some(Seen::Missed(3)));
        assert_eq!(events.next().await, Some(Seen::Event(TaskEvent { id, state: State::Running })));
        drop(hub);
        while let Some(Seen::Event(_)) = events.next().await {}
    }

    #[tokio::test]
    async fn waiters_leave_nothing_behind() {
        let hub = Arc::new(EventHub::new());
        let id = TaskId::new("a").unwrap();
        let (first, second) = (hub.wait_for(&id), hub.wait_for(&id));
        {
            let notified = second.bell.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            drop(first);
            hub.tell(&id, State::Succeeded);
            notified.await;
        }
        drop(second);
        assert_eq!(hub.waiters().len(), 0);
        assert_eq!(hub.waiting.load(Ordering::Acquire), 0);
    }
}
