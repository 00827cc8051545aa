//! The threads that own the connections, and the queues in front of them.
//!
//! One thread writes. While it commits, calls queue up; it then runs all of them in one transaction,
//! commits once and answers each: many callers share one flush of the disk, and each has waited for its
//! own. A few other threads read.
//!
//! Callers that come again as soon as they are answered would fall into two halves, each waiting for the flush of the
//! other: of those that have just been answered the writer waits a moment for all, and works on the first half
//! while the second one comes.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{Semaphore, oneshot};

use super::claimed::Claimed;
use super::error::repeat;
use super::hints::Hints;
use super::names::Names;
use super::tx::Tx;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};

/// Most calls that wait for one kind of thread; more wait outside.
const QUEUE_MAX: usize = 4_096;
/// Most items in one transaction, unless a single call has more: bounds how long a heartbeat waits.
const GROUP_ITEMS_MAX: usize = 10_000;
/// How long the writer waits for one half of the callers to come again: less than the flush that is spared.
const GATHER_WAIT: Duration = Duration::from_micros(100);
/// Fewer callers than these are not waited for: they gain little by sharing a flush.
const GATHER_MIN: usize = 8;
/// A group is filled this often before it is committed.
const ROUNDS: usize = 2;
/// For so many groups nobody is waited for after most have not come.
const GATHER_PAUSE: u32 = 32;
/// How many threads read.
const READERS: usize = 2;

/// Work for the writer. It may be run again after a rollback.
pub(super) trait Write: Send {
    /// Runs in the group's transaction and keeps the answer.
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<()>;
    /// Sends the answer, or the reason why there is none.
    fn answer(self: Box<Self>, committed: Result<()>);
    /// The caller's clock when it called. Asked there because a test's clock belongs to its thread.
    fn called_at(&self) -> Timestamp;
    /// How much it asks for.
    fn items(&self) -> usize;
}

struct Call<T, F> {
    run: F,
    kept: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
    called_at: Timestamp,
    items: usize,
}

impl<T: Send, F: FnMut(&mut Tx<'_>) -> Result<T> + Send> Write for Call<T, F> {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        match (self.run)(tx) {
            // These are answers about the call, given before it has written anything; others are not concerned.
            Err(e) if matches!(e.kind(), ErrorKind::NotRegistered | ErrorKind::Conflict) => self.kept = Some(Err(e)),
            answer => self.kept = Some(Ok(answer?)),
        }
        Ok(())
    }

    fn answer(self: Box<Self>, committed: Result<()>) {
        let answer = match (committed, self.kept) {
            (Ok(()), Some(answer)) => answer,
            (Ok(()), None) => Err(Error::internal("a call was committed without an answer")),
            (Err(e), _) => Err(e),
        };
        // The caller may have gone; what it asked for is done all the same.
        let _ = self.reply.send(answer);
    }

    fn called_at(&self) -> Timestamp {
        self.called_at
    }

    fn items(&self) -> usize {
        self.items
    }
}

type Read = Box<dyn FnOnce(&Connection, &mut Names) + Send>;

/// The threads. They end when this is dropped, after they have done what was asked of them.
#[derive(Debug)]
pub(super) struct Threads {
    writes: Arc<Queue<Box<dyn Write>>>,
    reads: Arc<Queue<Read>>,
    /// The readers' first, the writer's last.
    handles: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Starts one thread for the writing connection, and one for each reading connection.
    pub(super) fn start(
        writer: Connection,
        hints: Arc<Hints>,
        mut reader: impl FnMut() -> Result<Connection>,
    ) -> Result<Self> {
        let mut threads =
            Threads { writes: Arc::new(Queue::new()), reads: Arc::new(Queue::new()), handles: Vec::new() };
        for _ in 0..READERS {
            let connection = reader()?;
            let reads = Arc::clone(&threads.reads);
            threads.spawn("lts-sqlite-read", move || read(&connection, &reads))?;
        }
        let writes = Arc::clone(&threads.writes);
        threads.spawn("lts-sqlite-write", move || {
            Writer { connection: writer, names: Names::default(), claimed: Claimed::default(), hints }.work(&writes)
        })?;
        Ok(threads)
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let handle = std::thread::Builder::new().name(name.to_owned()).spawn(work);
        self.handles.push(
            handle.map_err(|e| Error::unavailable(format!("cannot start the thread {name}: {e}")).with_source(e))?,
        );
        Ok(())
    }

    /// Runs `work` in a transaction of the writer and waits for its commit.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        called_at: Timestamp,
        items: usize,
        urgent: bool,
        work: impl FnMut(&mut Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let _room = self.writes.room.acquire().await;
        let (reply, answer) = oneshot::channel();
        self.writes.push(Box::new(Call { run: work, kept: None, reply, called_at, items }), urgent);
        answer.await.unwrap_or_else(|_| Err(Error::internal("the store's writing thread has ended")))
    }

    /// Runs `work` on a reading connection.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection, &mut Names) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let _room = self.reads.room.acquire().await;
        let (reply, answer) = oneshot::channel();
        let job: Read = Box::new(move |connection, names| {
            let _ = reply.send(work(connection, names));
        });
        self.reads.push(job, false);
        answer.await.unwrap_or_else(|_| Err(Error::internal("the store's reading threads have ended")))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // The writer goes last and alone: of connections that close at once none is the last, and then none
        // brings the log back into the file.
        self.reads.close();
        let writer = self.handles.len().saturating_sub(1);
        for reader in self.handles.drain(..writer) {
            let _ = reader.join();
        }
        self.writes.close();
        for writer in self.handles.drain(..) {
            let _ = writer.join();
        }
    }
}

fn read(connection: &Connection, queue: &Queue<Read>) {
    let mut names = Names::default();
    let mut jobs = VecDeque::new();
    while queue.take(&mut jobs, 1) {
        jobs.drain(..).for_each(|job| job(connection, &mut names));
    }
}

struct Writer {
    connection: Connection,
    names: Names,
    claimed: Claimed,
    hints: Arc<Hints>,
}

impl Writer {
    fn work(mut self, queue: &Queue<Box<dyn Write>>) {
        let _answers_all = CloseOnPanic(queue);
        let (mut waiting, mut crowd) = (VecDeque::new(), Crowd::default());
        loop {
            if waiting.is_empty() {
                crowd.gather_first(queue);
                if !queue.take(&mut waiting, QUEUE_MAX) {
                    return;
                }
            }
            let mut group = Group::default();
            group.fill(&mut waiting);
            let mut more = |group: &mut Group| {
                if waiting.is_empty() && crowd.gather_rest(queue, group.jobs.len()) {
                    queue.take(&mut waiting, QUEUE_MAX);
                    group.fill(&mut waiting);
                }
            };
            let outcome = self.transaction(&mut group, &mut more);
            // Before anybody is answered, as who comes again then would be counted twice.
            crowd.expected = group.jobs.len() + waiting.len() + queue.len();
            self.answer(group, outcome);
        }
    }

    /// Answers all calls of a group. If one of them failed, each is tried on its own, so that one bad call does not fail the
    /// others; if the commit failed, all have failed and nothing is stored.
    fn answer(&mut self, group: Group, outcome: Outcome) {
        match outcome {
            Outcome::Committed => group.jobs.into_iter().for_each(|job| job.answer(Ok(()))),
            Outcome::CallFailed(_) if group.jobs.len() > 1 => {
                for job in group.jobs {
                    let mut alone = Group::of(job);
                    let outcome = self.transaction(&mut alone, &mut |_| {});
                    self.answer(alone, outcome);
                }
            }
            Outcome::CallFailed(e) | Outcome::Failed(e) => {
                group.jobs.into_iter().for_each(|job| job.answer(Err(repeat(&e))));
            }
        }
    }

    /// Runs calls in one transaction, and those that have come meanwhile.
    fn transaction(&mut self, group: &mut Group, more: &mut dyn FnMut(&mut Group)) -> Outcome {
        let outcome = self.try_transaction(group, more);
        if !matches!(outcome, Outcome::Committed) {
            // What was learned inside the transaction may not exist any more.
            self.names.forget();
            self.claimed.forget_all();
        }
        outcome
    }

    fn try_transaction(&mut self, group: &mut Group, more: &mut dyn FnMut(&mut Group)) -> Outcome {
        let begun = self.connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let transaction = match begun {
            Ok(transaction) => transaction,
            Err(e) => return Outcome::Failed(e.into()),
        };
        let mut tx = match Tx::begin(&transaction, &mut self.names, &mut self.claimed, self.hints.latest()) {
            Ok(tx) => tx,
            Err(e) => return Outcome::Failed(e),
        };
        let mut done = 0;
        for round in 0..ROUNDS {
            if round > 0 {
                more(group);
            }
            for job in group.jobs.iter_mut().skip(done) {
                tx.advance(job.called_at());
                if let Err(e) = job.run(&mut tx) {
                    return Outcome::CallFailed(e);
                }
            }
            done = group.jobs.len();
        }
        let ended = tx.end();
        match ended.and_then(|ended| transaction.commit().map(|()| ended).map_err(Error::from)) {
            Ok((changes, now)) => {
                self.hints.publish(changes, now);
                Outcome::Committed
            }
            Err(e) => Outcome::Failed(e),
        }
    }
}

/// Calls that are committed together.
#[derive(Default)]
struct Group {
    jobs: Vec<Box<dyn Write>>,
    items: usize,
}

impl Group {
    fn of(job: Box<dyn Write>) -> Self {
        Group { items: job.items(), jobs: vec![job] }
    }

    /// Takes of those that wait what it has room for, and one at least if it is empty.
    fn fill(&mut self, waiting: &mut VecDeque<Box<dyn Write>>) {
        self.jobs.reserve(waiting.len());
        while let Some(job) = waiting.pop_front() {
            let items = job.items().saturating_add(self.items);
            if items > GROUP_ITEMS_MAX && !self.jobs.is_empty() {
                waiting.push_front(job);
                return;
            }
            self.items = items;
            self.jobs.push(job);
        }
    }
}

enum Outcome {
    Committed,
    /// One of the calls failed; the transaction was rolled back.
    CallFailed(Error),
    /// The transaction could not be begun or committed.
    Failed(Error),
}

/// How many callers there seem to be.
#[derive(Debug, Default)]
struct Crowd {
    /// Those that were answered last, and those that waited then.
    expected: usize,
    /// For how many groups nobody is waited for.
    pause: u32,
}

impl Crowd {
    /// Whether they are many, and came again lately.
    fn is_awaited(&self) -> bool {
        self.pause == 0 && self.expected >= GATHER_MIN
    }

    /// Waits a moment until half of them have come.
    fn gather_first<J>(&mut self, queue: &Queue<J>) {
        if self.is_awaited() {
            queue.gather(self.expected / 2);
        }
    }

    /// Waits a moment until all have come, of whom some were there at first. Whether others are there now.
    fn gather_rest<J>(&mut self, queue: &Queue<J>, first: usize) -> bool {
        if self.pause > 0 {
            self.pause -= 1;
            return false;
        }
        if !self.is_awaited() || first >= self.expected {
            return false;
        }
        let others = queue.gather(self.expected - first);
        if first + others < self.expected / 2 {
            self.pause = GATHER_PAUSE;
        }
        others > 0
    }
}

/// Should the thread panic, whoever waits gets an error instead of waiting for ever.
struct CloseOnPanic<'a>(&'a Queue<Box<dyn Write>>);

impl Drop for CloseOnPanic<'_> {
    fn drop(&mut self) {
        self.0.close();
        self.0.lock().jobs.clear();
    }
}

/// A queue whose reader is woken only if it sleeps: waking a thread costs more than a small transaction.
struct Queue<J> {
    state: Mutex<Jobs<J>>,
    came: Condvar,
    room: Semaphore,
}

struct Jobs<J> {
    jobs: VecDeque<J>,
    sleeping: usize,
    /// Who sleeps is not woken before there are so many.
    wanted: usize,
    closed: bool,
}

impl<J> Queue<J> {
    fn new() -> Self {
        let jobs = Jobs { jobs: VecDeque::new(), sleeping: 0, wanted: 0, closed: false };
        Queue { state: Mutex::new(jobs), came: Condvar::new(), room: Semaphore::new(QUEUE_MAX) }
    }

    fn lock(&self) -> MutexGuard<'_, Jobs<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a job; after the queue was closed it is dropped, which its caller notices.
    fn push(&self, job: J, urgent: bool) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        if urgent {
            state.jobs.push_front(job);
        } else {
            state.jobs.push_back(job);
        }
        if state.sleeping > 0 && state.jobs.len() >= state.wanted {
            self.came.notify_one();
        }
    }

    /// Moves up to `max` jobs into `jobs`, waiting for the first. `false`: closed, and none is left.
    fn take(&self, jobs: &mut VecDeque<J>, max: usize) -> bool {
        let mut state = self.lock();
        while state.jobs.is_empty() {
            if state.closed {
                return false;
            }
            state.sleeping += 1;
            state = self.came.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.sleeping -= 1;
        }
        let count = state.jobs.len().min(max);
        jobs.extend(state.jobs.drain(..count));
        true
    }

    fn len(&self) -> usize {
        self.lock().jobs.len()
    }

    /// Waits until there are so many jobs, for [`GATHER_WAIT`] at most, and answers how many there are. Only for a
    /// queue with one reader.
    fn gather(&self, wanted: usize) -> usize {
        let mut state = self.lock();
        (state.sleeping, state.wanted) = (1, wanted);
        let too_few = |state: &mut Jobs<J>| state.jobs.len() < wanted && !state.closed;
        let waited = self.came.wait_timeout_while(state, GATHER_WAIT, too_few);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        (state.sleeping, state.wanted) = (0, 0);
        state.jobs.len()
    }

    fn close(&self) {
        self.lock().closed = true;
        self.came.notify_all();
    }
}

impl<J> std::fmt::Debug for Queue<J> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Queue({} waiting)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(jobs: usize) -> Queue<usize> {
        let queue = Queue::new();
        (0..jobs).for_each(|job| queue.push(job, false));
        queue
    }

    #[test]
    fn a_crowd_is_waited_for_until_the_last_has_come() {
        let queue = queue(GATHER_MIN - 1);
        // Until it sleeps nobody comes; once it does, the one that was missing. The wait may be over before: again then.
        std::thread::scope(|scope| {
            let last = scope.spawn(|| {
                while queue.lock().sleeping == 0 {
                    std::thread::yield_now();
                }
                queue.push(GATHER_MIN, false);
            });
            while queue.gather(GATHER_MIN) < GATHER_MIN {}
            last.join().unwrap();
        });
        let mut jobs = VecDeque::new();
        assert!(queue.take(&mut jobs, QUEUE_MAX));
        assert_eq!(jobs.len(), GATHER_MIN, "all are taken at once");
    }

    /// A call that asks for so much.
    struct Asks(usize);

    impl Write for Asks {
        fn run(&mut self, _: &mut Tx<'_>) -> Result<()> {
            Ok(())
        }

        fn answer(self: Box<Self>, _: Result<()>) {}

        fn called_at(&self) -> Timestamp {
            Timestamp::default()
        }

        fn items(&self) -> usize {
            self.0
        }
    }

    #[test]
    fn a_group_takes_what_it_has_room_for_and_one_call_at_least() {
        let mut waiting: VecDeque<Box<dyn Write>> = VecDeque::new();
        for items in [GROUP_ITEMS_MAX + 1, GROUP_ITEMS_MAX - 1, 1, 1] {
            waiting.push_back(Box::new(Asks(items)));
        }
        let mut fill = |group: &mut Group| {
            group.fill(&mut waiting);
            (group.jobs.len(), waiting.len())
        };
        let mut first = Group::default();
        assert_eq!(fill(&mut first), (1, 3));
        assert_eq!(fill(&mut first), (1, 3), "it has no room left");
        assert_eq!(fill(&mut Group::default()), (2, 1));
        assert_eq!(fill(&mut Group::of(Box::new(Asks(1)))), (2, 0), "beside what was there at first");
    }

    #[test]
    fn who_does_not_come_is_not_waited_for_again() {
        let mut crowd = Crowd { expected: 2 * GATHER_MIN, pause: 0 };
        assert!(crowd.gather_rest(&queue(1), GATHER_MIN - 1));
        assert!(!crowd.gather_rest(&queue(0), GATHER_MIN));
        assert_eq!(crowd.pause, 0, "most have come");
        assert!(!crowd.gather_rest(&queue(0), 2 * GATHER_MIN), "all were there at first");
        crowd.gather_rest(&queue(1), GATHER_MIN - 2);
        assert_eq!(crowd.pause, GATHER_PAUSE);
        (0..GATHER_PAUSE).for_each(|_| assert!(!crowd.gather_rest(&queue(1), 1)));
        assert_eq!(crowd.pause, 0, "then they are waited for again");
        let mut few = Crowd { expected: GATHER_MIN - 1, pause: 0 };
        assert!(!few.gather_rest(&queue(1), 1), "a few are never waited for");
        assert_eq!(few.pause, 0);
    }
}
