//! The load: tasks in vectors and one by one, a drain at full concurrency, and single tasks on an idle scheduler.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde::de::IgnoredAny;
use tokio::sync::mpsc;

use light_task_scheduler::{
    Config, Context, Error, FunctionExecutor, Name, NewTask, Payload, Result, Scheduler, Shutdown, State, Store,
};

use super::ground::Ground;
use super::measure::{Watch, percentile};
use super::{PAYLOAD_BYTES, Report, Wanted, backlog};

/// The kind of all tasks.
pub(super) const KIND: &str = "noop";
/// Tasks in one call.
const VECTOR: u64 = 1_000;
/// Callers that enqueue vectors.
const VECTOR_CALLERS: u64 = 2;
/// Callers that enqueue one task a call.
const CALLERS: u64 = 50;
/// One of so many tasks is enqueued that way.
const ONE_BY_ONE: u64 = 4;
/// Samples of the pickup latency, and the pause before each (varied, to hit no rhythm).
const SAMPLES: usize = 300;
const PAUSE_MIN_MS: u64 = 2;
const PAUSE_SPREAD_MS: u64 = 11;
/// How often the end of a drain is looked for.
const LOOK: Duration = Duration::from_millis(1);
/// A drain that takes longer has failed.
const DRAIN_MAX: Duration = Duration::from_secs(600);

/// Measures a store on its ground, and then the limit of the same ground.
pub(super) async fn measure(ground: &dyn Ground, wanted: Wanted) -> Result<Report> {
    let Wanted { store, tasks, concurrency, idle, waiting } = wanted;
    // The store first: memory that the limit has used and freed would hide what the store takes.
    let vectors = ground.fresh().await?;
    let before = ground.bytes().await?;
    let enqueue_per_s = enqueue_vectors(&vectors, tasks).await?;
    let bytes_per_waiting_task = (ground.bytes().await? - before) / tasks as f64;
    let drain_per_s = drain(&vectors, tasks, concurrency).await?;
    drop(vectors);
    let enqueue_one_per_s = enqueue_one_by_one(&ground.fresh().await?, tasks / ONE_BY_ONE).await?;
    let mut idly = idly(ground, concurrency, idle).await?;
    let claims = match waiting {
        Some(many) => Some(backlog::claims(&ground.fresh().await?, many).await?),
        None => None,
    };
    let limit = ground.limit(tasks).await?;
    Ok(Report {
        store,
        tasks,
        concurrency,
        enqueue_per_s,
        limit_enqueue_per_s: limit.enqueue,
        enqueue_one_per_s,
        drain_per_s,
        limit_drain_per_s: limit.drain,
        pickup_p50_us: percentile(&mut idly.pickup, 0.50),
        pickup_p99_us: percentile(&mut idly.pickup, 0.99),
        start_p50_us: percentile(&mut idly.start, 0.50),
        start_p99_us: percentile(&mut idly.start, 0.99),
        bytes_per_waiting_task,
        idle_statements_per_s: idly.statements_per_s,
        waiting,
        claim_few_us: claims.map(|(few, _)| few),
        claim_many_us: claims.map(|(_, many)| many),
        ..Report::default()
    })
}

/// A task of the one kind, with a JSON text of [`PAYLOAD_BYTES`] as its payload.
fn task() -> Result<NewTask> {
    static PAYLOAD: LazyLock<Vec<u8>> =
        LazyLock::new(|| [b"\"", vec![b'x'; PAYLOAD_BYTES - 2].as_slice(), b"\""].concat());
    // Each task has bytes of its own, as real ones have.
    Ok(NewTask::with_payload(Name::new(KIND)?, Payload::from_bytes(PAYLOAD.as_slice())))
}

/// Vectors from two callers: while one vector is written, the next one is made.
pub(super) async fn enqueue_vectors(store: &Arc<dyn Store>, tasks: u64) -> Result<f64> {
    enqueue(store, tasks, VECTOR_CALLERS, VECTOR).await
}

async fn enqueue_one_by_one(store: &Arc<dyn Store>, tasks: u64) -> Result<f64> {
    enqueue(store, tasks, CALLERS, 1).await
}

async fn enqueue(store: &Arc<dyn Store>, tasks: u64, callers: u64, vector: u64) -> Result<f64> {
    let watch = Watch::start();
    let callers: Vec<_> = (0..callers)
        .map(|caller| {
            let store = store.clone();
            let calls = tasks / vector / callers + u64::from(caller < tasks / vector % callers);
            tokio::spawn(async move {
                for _ in 0..calls {
                    let tasks = (0..vector).map(|_| task()).collect::<Result<Vec<_>>>()?;
                    for inserted in store.insert(tasks).await? {
                        inserted?;
                    }
                }
                Ok::<(), Error>(())
            })
        })
        .collect();
    for caller in callers {
        caller.await.map_err(|error| Error::internal("a caller of the benchmark failed").with_source(error))??;
    }
    Ok(watch.rate(tasks))
}

/// From the start of a scheduler to the last task recorded as succeeded.
async fn drain(store: &Arc<dyn Store>, tasks: u64, concurrency: usize) -> Result<f64> {
    let done = Arc::new(AtomicU64::new(0));
    let counter = done.clone();
    let functions = FunctionExecutor::new().register(KIND, move |_: Context, _: IgnoredAny| {
        counter.fetch_add(1, Relaxed);
        async { Ok(()) }
    });
    let watch = Watch::start();
    let scheduler = scheduler(store.clone(), concurrency, functions).await?;
    loop {
        tokio::time::sleep(LOOK).await;
        if done.load(Relaxed) >= tasks {
            let recorded: u64 = store.counts().await?.iter().map(|queue| queue.of(State::Succeeded)).sum();
            if recorded == tasks {
                break;
            }
        }
        if watch.elapsed() > DRAIN_MAX {
            return Err(Error::internal(format!("only {} of {tasks} tasks were drained", done.load(Relaxed))));
        }
    }
    let rate = watch.rate(tasks);
    scheduler.shutdown(Shutdown { grace: Duration::ZERO, hand_over: false }).await?;
    Ok(rate)
}

/// What an idle scheduler shows.
struct Idly {
    /// From `submit` returning to the handler's first line, in microseconds.
    pickup: Vec<f64>,
    /// From the call of `submit` to there.
    start: Vec<f64>,
    /// Statements a second that the server gets while nothing is submitted.
    statements_per_s: Option<f64>,
}

async fn idly(ground: &dyn Ground, concurrency: usize, idle: Duration) -> Result<Idly> {
    let (entered, mut entries) = mpsc::unbounded_channel();
    let functions = FunctionExecutor::new().register(KIND, move |_: Context, _: IgnoredAny| {
        let _ = entered.send(Watch::start());
        async { Ok(()) }
    });
    let scheduler = scheduler(ground.fresh().await?, concurrency, functions).await?;
    let (mut pickup, mut start) = (Vec::with_capacity(SAMPLES), Vec::with_capacity(SAMPLES));
    for sample in 0..SAMPLES as u64 {
        tokio::time::sleep(Duration::from_millis(PAUSE_MIN_MS + sample * 7 % PAUSE_SPREAD_MS)).await;
        let task = task()?;
        let called = Watch::start();
        scheduler.submit(task).await?;
        let returned = Watch::start();
        let Some(entered) = entries.recv().await else { break };
        start.push(called.micros_until(entered));
        // The handler may have been entered before `submit` returned: then nobody waited at all.
        pickup.push(returned.micros_until(entered));
    }
    let statements_per_s = ground.statements(idle).await?;
    scheduler.shutdown(Shutdown { grace: Duration::ZERO, hand_over: false }).await?;
    Ok(Idly { pickup, start, statements_per_s })
}

async fn scheduler(store: Arc<dyn Store>, concurrency: usize, functions: FunctionExecutor) -> Result<Scheduler> {
    let config = Config { concurrency, ..Config::default() };
    Scheduler::builder(store).functions(functions).config(config).start().await
}
