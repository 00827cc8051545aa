//! Looks at a store from outside, again and again, while others work with it: who owns what, and since when nobody
//! dead does.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use light_task_scheduler::store::{PAGE_MAX, TaskQuery};
use light_task_scheduler::{Clock, ReplicaId, State, Store, SystemClock, Task, Timestamp};

use crate::servers::Home;
use crate::support::Place;
use crate::witness::wait;

/// The time between two looks: so exact are the times that are measured.
const LOOK: Duration = Duration::from_millis(100);

/// What was seen of the replicas.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The replicas of each process, and when each was seen first.
    ids: HashMap<u32, HashMap<ReplicaId, Timestamp>>,
    /// Since when each of them has been seen to own nothing; `None`: it owned something at the last look.
    free_since: HashMap<ReplicaId, Option<Timestamp>>,
    /// When each of them was last seen to own something.
    owned_at: HashMap<ReplicaId, Timestamp>,
    /// The most tasks that ran at once in any look.
    pub(crate) most_running: usize,
    /// How many looks there were.
    pub(crate) looks: u32,
}

impl Seen {
    /// The replicas that a process had been until then.
    pub(crate) fn replicas(&self, pid: u32, until: Timestamp) -> HashSet<ReplicaId> {
        let ids = self.ids.get(&pid).into_iter().flatten();
        ids.filter(|(_, seen)| **seen <= until).map(|(id, _)| *id).collect()
    }

    /// When a process that was killed or halted then had no task any more; `None` if it had none anyway.
    pub(crate) fn freed(&self, pid: u32, killed: Timestamp) -> Option<Timestamp> {
        let ids = self.replicas(pid, killed);
        let had_some = ids.iter().filter(|id| self.owned_at.get(id).is_some_and(|at| *at >= killed));
        had_some.map(|id| self.free_since[id].unwrap_or_else(|| panic!("{id} still owns tasks"))).max()
    }

    fn look(&mut self, tasks: &[Task], asked: Timestamp, answered: Timestamp) {
        let owners: HashSet<ReplicaId> = tasks.iter().filter_map(|task| task.record.owner).collect();
        for owner in &owners {
            self.free_since.insert(*owner, None);
            self.owned_at.insert(*owner, asked);
        }
        for (id, free_since) in &mut self.free_since {
            if free_since.is_none() && !owners.contains(id) {
                *free_since = Some(answered);
            }
        }
        let running = tasks.iter().filter(|task| task.record.state == State::Running).count();
        self.most_running = self.most_running.max(running);
        self.looks += 1;
    }
}

/// Looks until it is told to stop.
pub(crate) struct Observer {
    stop: Arc<AtomicBool>,
    /// The tasks that each process owned at the last look.
    owned: Arc<Mutex<HashMap<u32, usize>>>,
    thread: JoinHandle<(Seen, Vec<Task>)>,
}

impl Observer {
    /// Begins to look at the store, once it is there.
    pub(crate) fn start(home: Arc<Home>, place: Arc<Place>) -> Self {
        let (stop, owned) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<_>>::default());
        let (stopped, owners) = (stop.clone(), owned.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let watch = move || {
            runtime.block_on(async move {
                let store = loop {
                    match home.open(&place).await {
                        Ok(store) => break store,
                        Err(error) => assert!(error.is_retryable(), "{error}"),
                    }
                    wait(LOOK);
                };
                let mut seen = Seen::default();
                while !stopped.load(Ordering::Relaxed) {
                    if let Some(owned) = look(&*store, &mut seen).await {
                        *owners.lock().unwrap() = owned;
                    }
                    wait(LOOK);
                }
                (seen, all(&*store).await)
            })
        };
        Observer { stop, owned, thread: std::thread::spawn(watch) }
    }

    /// Does something to that of these processes which owns most; says which, and when.
    pub(crate) fn busiest(&self, pids: &[u32], act: impl Fn(u32)) -> (u32, Timestamp) {
        loop {
            let owned = self.owned.lock().unwrap().clone();
            let busy = pids.iter().max_by_key(|pid| owned.get(pid)).filter(|pid| owned.contains_key(pid));
            if let Some(pid) = busy {
                act(*pid);
                return (*pid, SystemClock.now());
            }
            wait(LOOK);
        }
    }

    /// What was seen, and all tasks as they are in the end.
    pub(crate) fn end(self) -> (Seen, Vec<Task>) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// One look: how many tasks each process owns. While the store is away, nothing is seen.
async fn look(store: &dyn Store, seen: &mut Seen) -> Option<HashMap<u32, usize>> {
    let replicas = store.replicas().await.ok()?;
    let pid = |name: &str| name.rsplit_once("pid ").and_then(|(_, pid)| pid.parse::<u32>().ok());
    let named: Vec<(u32, ReplicaId)> = replicas.iter().filter_map(|it| Some((pid(&it.name)?, it.id))).collect();
    for (pid, id) in &named {
        seen.ids.entry(*pid).or_default().entry(*id).or_insert_with(|| SystemClock.now());
    }
    let query = TaskQuery { states: vec![State::Running, State::Exporting], ..TaskQuery::default() };
    let asked = SystemClock.now();
    let tasks = store.list(&query).await.ok()?.tasks;
    seen.look(&tasks, asked, SystemClock.now());
    let mut owned = HashMap::new();
    for task in &tasks {
        if let Some((pid, _)) = named.iter().find(|(_, id)| task.record.owner == Some(*id)) {
            *owned.entry(*pid).or_default() += 1;
        }
    }
    Some(owned)
}

/// Every task of a store.
pub(crate) async fn all(store: &dyn Store) -> Vec<Task> {
    let mut query = TaskQuery { limit: PAGE_MAX, ..TaskQuery::default() };
    let mut tasks = Vec::new();
    loop {
        let page = store.list(&query).await.unwrap();
        tasks.extend(page.tasks);
        query.cursor = page.next;
        if query.cursor.is_none() {
            return tasks;
        }
    }
}
