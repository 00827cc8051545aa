//! Follows a batch until all of it has ended: by what the scheduler tells, and by what the store shows.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use light_task_scheduler::scheduler::{Events, Seen};
use light_task_scheduler::{Scheduler, Shutdown, State, Store, TaskId};
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::batch::News;
use crate::batch::feed::{Feeder, cancel};
use crate::batch::plan::Mode;
use crate::batch::report::{Outputs, Reporter, Tally};
use crate::batch::roster::{CHUNK, Entry, Roster};
use crate::exit::{ERROR, Problem, Result};
use crate::interrupt::Interrupts;
use crate::open::Opened;
use crate::patience::patiently;

/// How often the store is asked who has ended: other processes may run our tasks, cancel or remove them.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Looking may take at most one part in so many of the time.
const LOOK_SHARE: u32 = 20;
/// The longest time until the next look: one that took long because the server was away says nothing of the work.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(5);
/// With more tasks to come than this, they are asked for only if the store has fewer than we think.
const LOOK_MAX: usize = 10 * CHUNK;
/// How long a drain waits for what runs: until the user loses patience.
pub(super) const DRAIN_GRACE: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Follows one batch.
pub(crate) struct Follower {
    roster: Arc<Roster>,
    store: Arc<dyn Store>,
    reporter: Reporter,
    fail_fast: bool,
    /// Whether each task has ended.
    over: Vec<bool>,
    /// How many tasks are in the store.
    fed: usize,
    running: HashSet<usize>,
    tally: Tally,
    /// News were lost: look before the time.
    missed: bool,
}

/// How far the end has been asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    No,
    Drain,
    Stop,
}

/// What runs beside the loop.
struct Work<'a> {
    scheduler: &'a Scheduler,
    stop_feeding: Arc<AtomicBool>,
    feeder: Option<JoinHandle<Result<usize>>>,
    shutdown: Option<JoinHandle<light_task_scheduler::Result<()>>>,
    ending: Ending,
    problem: Option<Problem>,
}

impl Follower {
    /// Begins with nothing ended.
    pub(crate) fn new(roster: Arc<Roster>, store: Arc<dyn Store>, reporter: Reporter, fail_fast: bool) -> Self {
        let tally = Tally { tasks: roster.len(), ..Tally::default() };
        let over = vec![false; roster.len()];
        Follower { roster, store, reporter, fail_fast, over, fed: 0, running: HashSet::new(), tally, missed: false }
    }

    /// How many have come to which end.
    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }

    /// The tasks.
    pub(crate) fn entries(&self) -> &[Entry] {
        self.roster.entries()
    }

    /// Says something beside the data.
    pub(crate) fn note(&self, text: &str) {
        self.reporter.note(text);
    }

    /// The last line.
    pub(crate) fn end(&mut self, batch: &str, took: Duration) -> Result<()> {
        self.reporter.end(batch, self.tally, took)
    }

    /// Feeds and follows until all have ended, or the user has had enough.
    pub(crate) async fn follow(
        &mut self,
        scheduler: &Scheduler,
        opened: &Opened,
        mode: Mode,
        outputs: Option<Outputs>,
    ) -> Result<()> {
        let (news, mut heard) = mpsc::unbounded_channel();
        let mut interrupts = Interrupts::listen()?;
        tokio::spawn(pass_on(scheduler.subscribe(), self.roster.clone(), news.clone()));
        let stop = Arc::new(AtomicBool::new(false));
        let (store, roster) = (opened.store.clone(), self.roster.clone());
        let feeder = Feeder { store, roster, mode, outputs, stop: stop.clone(), news };
        let feeder = Some(tokio::spawn(feeder.feed()));
        let mut work =
            Work { scheduler, stop_feeding: stop, feeder, shutdown: None, ending: Ending::No, problem: None };
        self.reporter.begin(self.tally);
        let mut buffer = Vec::new();
        let mut look_at = Instant::now() + LOOK_INTERVAL;
        while self.tally.ended() < self.tally.tasks {
            tokio::select! {
                biased;
                () = interrupts.next() => {
                    if !work.interrupt(self, opened.is_durable()) {
                        return Ok(());
                    }
                }
                _ = heard.recv_many(&mut buffer, CHUNK) => self.hear(&mut work, &mut buffer).await,
                fed = joined(&mut work.feeder) => self.fed(&mut work, fed),
                down = joined(&mut work.shutdown) => {
                    // What ended last may not have been heard of.
                    work.note(down.and_then(|down| down.map_err(Problem::from)));
                    let looked = self.look().await;
                    work.note(looked);
                    break;
                }
                () = scheduler.draining(), if work.ending == Ending::No => work.drained_from_afar(self),
                () = tokio::time::sleep_until(look_at), if work.ending != Ending::Stop => {
                    let begun = Instant::now();
                    let looked = self.look_if_needed().await;
                    self.act(&mut work, looked).await;
                    look_at = Instant::now() + (begun.elapsed() * LOOK_SHARE).clamp(LOOK_INTERVAL, LOOK_INTERVAL_MAX);
                }
            }
            self.reporter.progress(self.tally, self.running.len());
        }
        self.leave(work).await
    }

    /// Ends the scheduler; what runs for others is handed over to whoever comes next.
    async fn leave(&mut self, work: Work<'_>) -> Result<()> {
        if work.ending == Ending::No {
            work.scheduler.shutdown(Shutdown { grace: Duration::ZERO, hand_over: true }).await?;
        } else if self.tally.ended() < self.tally.tasks {
            let left = self.tally.tasks - self.tally.ended();
            self.note(&format!("{left} tasks are not finished; run the same command again to go on"));
        }
        work.problem.map_or(Ok(()), Err)
    }

    async fn hear(&mut self, work: &mut Work<'_>, buffer: &mut Vec<News>) {
        let mut ended = Vec::new();
        for news in buffer.drain(..) {
            match news {
                News::Fed(fed) => self.fed = fed,
                News::Came(place, State::Running) => drop(self.running.insert(place)),
                News::Came(place, state) => {
                    self.running.remove(&place);
                    if state.is_terminal() {
                        ended.push((place, state));
                    }
                }
                News::Removed(place) => {
                    let line = self.roster.entries()[place].line;
                    self.note(&format!(
                        "line {line} is not run: its task was removed with `lts rm` less than a day ago; \
                         give the batch another --name to run it"
                    ));
                    ended.push((place, State::Cancelled));
                }
                News::Missed => {
                    self.missed = true;
                    self.running.clear();
                }
            }
        }
        let told = self.ended(ended, false).await;
        self.act(work, told).await;
    }

    fn fed(&mut self, work: &mut Work<'_>, fed: Result<Result<usize>>) {
        match fed.and_then(|fed| fed) {
            Ok(fed) => self.fed = fed,
            Err(problem) => {
                work.note(Err(problem));
                work.end(Ending::Stop);
            }
        }
    }

    /// Stops where telling has failed, and cancels the rest where one failure is enough.
    async fn act(&mut self, work: &mut Work<'_>, told: Result<()>) {
        if told.is_err() {
            work.note(told);
            work.end(Ending::Drain);
        } else if self.fail_fast && self.tally.failed > 0 && work.ending == Ending::No {
            // Once is enough.
            self.fail_fast = false;
            let cancelled = self.cancel_the_rest(work).await;
            work.note(cancelled);
        }
    }

    async fn cancel_the_rest(&mut self, work: &mut Work<'_>) -> Result<()> {
        self.note("a task has failed: cancelling the rest (--fail-fast)");
        work.stop_feeding.store(true, Ordering::Relaxed);
        if work.feeder.is_some() {
            let fed = joined(&mut work.feeder).await;
            self.fed(work, fed);
        }
        let unfed = (self.fed..self.roster.len()).filter(|place| !self.over[*place]);
        let mut ended: Vec<(usize, State)> = unfed.map(|place| (place, State::Cancelled)).collect();
        let ids: Vec<(usize, TaskId)> = self.open().map(|place| (place, self.entries()[place].id.clone())).collect();
        // Those that run here learn it at once, and not by the next heartbeat.
        for place in &self.running {
            // It may have ended in between: then that is its end.
            let _ = work.scheduler.cancel(&self.entries()[*place].id).await;
        }
        ended.extend(cancel(&*self.store, &ids).await?.into_iter().map(|place| (place, State::Cancelled)));
        self.ended(ended, false).await
    }

    /// The tasks that are in the store and have not ended, as far as is known.
    fn open(&self) -> impl Iterator<Item = usize> {
        (0..self.fed).filter(|place| !self.over[*place])
    }

    async fn look_if_needed(&mut self) -> Result<()> {
        let open = self.open().count();
        if open > LOOK_MAX && !self.missed {
            let counts = patiently(|| self.store.counts()).await?;
            let unfinished = |state: &State| !state.is_terminal();
            let stored: u64 = counts
                .iter()
                .flat_map(|queue| State::ALL.into_iter().filter(unfinished).map(|state| queue.of(state)))
                .sum();
            if stored >= open as u64 {
                return Ok(());
            }
        }
        self.look().await
    }

    /// Asks the store about all that has not ended.
    async fn look(&mut self) -> Result<()> {
        self.missed = false;
        let open: Vec<usize> = self.open().collect();
        for chunk in open.chunks(CHUNK) {
            let ids: Vec<TaskId> = chunk.iter().map(|place| self.entries()[*place].id.clone()).collect();
            let found = patiently(|| self.store.get(&ids)).await?;
            let end = |(place, task): (&usize, Option<light_task_scheduler::Task>)| match task {
                Some(task) => task.record.state.is_terminal().then_some((*place, task.record.state)),
                // Somebody has removed it.
                None => Some((*place, State::Cancelled)),
            };
            let ended = chunk.iter().zip(found).filter_map(end).collect();
            self.ended(ended, false).await?;
        }
        Ok(())
    }

    /// Counts these ends and tells about them; each task ends once.
    pub(crate) async fn ended(&mut self, ended: Vec<(usize, State)>, earlier: bool) -> Result<()> {
        let mut told = Vec::new();
        for (place, state) in ended {
            if !std::mem::replace(&mut self.over[place], true) {
                self.running.remove(&place);
                self.tally.add(state);
                // Cancelled ones are many at once, and whoever cancelled them knows.
                if self.reporter.wants_all() || state == State::Failed {
                    told.push(place);
                }
            }
        }
        for chunk in told.chunks(CHUNK) {
            let ids: Vec<TaskId> = chunk.iter().map(|place| self.entries()[*place].id.clone()).collect();
            let found = patiently(|| self.store.get(&ids)).await?;
            let lines = chunk.iter().map(|place| self.entries()[*place].line);
            let tasks: Vec<_> = lines.zip(found).filter_map(|(line, task)| Some((line, task?))).collect();
            self.reporter.ended(&tasks, earlier).await?;
        }
        Ok(())
    }
}

impl Work<'_> {
    /// Keeps the first problem.
    fn note(&mut self, result: Result<()>) {
        if let Err(problem) = result {
            self.problem.get_or_insert(problem);
        }
    }

    /// One more Ctrl-C; `false`: leave at once.
    fn interrupt(&mut self, follower: &Follower, durable: bool) -> bool {
        match self.ending {
            Ending::No => {
                self.drain(follower);
                true
            }
            Ending::Drain => {
                follower.note("stopping the running commands");
                self.end(Ending::Stop);
                true
            }
            Ending::Stop => {
                let live_on = if durable { "; commands that still run are taken up by the next run" } else { "" };
                follower.note(&format!("leaving at once{live_on}"));
                false
            }
        }
    }

    /// As a first Ctrl-C.
    fn drained_from_afar(&mut self, follower: &Follower) {
        follower.note("an operator has this batch drain");
        self.drain(follower);
    }

    fn drain(&mut self, follower: &Follower) {
        let running = follower.running.len();
        follower.note(&format!(
            "draining: nothing new is started, {running} running commands are waited for; Ctrl-C again stops them"
        ));
        self.end(Ending::Drain);
    }

    fn end(&mut self, ending: Ending) {
        self.ending = ending;
        self.stop_feeding.store(true, Ordering::Relaxed);
        let grace = if ending == Ending::Drain { DRAIN_GRACE } else { Duration::ZERO };
        let scheduler = self.scheduler.clone();
        let shutdown = async move { scheduler.shutdown(Shutdown { grace, hand_over: false }).await };
        self.shutdown = Some(tokio::spawn(shutdown));
    }
}

/// Waits for work beside; for ever if there is none.
async fn joined<T>(handle: &mut Option<JoinHandle<T>>) -> Result<T> {
    let Some(running) = handle else { return std::future::pending().await };
    let joined = running.await;
    *handle = None;
    joined.map_err(|error| Problem::new(ERROR, format!("a part of lts has died: {error}")))
}

/// Passes what the scheduler tells of this batch on, so that no slow reader makes it lose any.
async fn pass_on(mut events: Events, roster: Arc<Roster>, news: UnboundedSender<News>) {
    while let Some(seen) = events.next().await {
        let sent = match seen {
            Seen::Event(event) => match roster.index(&event.id) {
                Some(place) => news.send(News::Came(place, event.state)),
                None => continue,
            },
            // What was lost shows when the store is looked at again.
            Seen::Missed(_) | Seen::Lost(_) => news.send(News::Missed),
        };
        if sent.is_err() {
            return;
        }
    }
}
