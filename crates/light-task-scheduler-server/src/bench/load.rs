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
use super::{CONCURRENCY, PAYLOAD_BYTES, Report, Wanted, backlog};

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
    let Wanted { store, tasks, idle, waiting } = wanted;
    // The store first: memory that the limit has used and freed would hide what the store takes.
    let vectors = ground.fresh().await?;
    let before = ground.bytes().await?;
    let enqueue_per_s = enqueue_vectors(&vectors, tasks).await?;
    let bytes_per_waiting_task = (ground.bytes().await? - before) / tasks as f64;
    let drain_per_s = drain(&vectors, tasks).await?;
    drop(vectors);
    let enqueue_one_per_s = enqueue_one_by_one(&ground.fresh().await?, tasks / ONE_BY_ONE).await?;
    let (mut samples, idle_statements_per_s) = idly(ground, idle).await?;
    let claims = match waiting {
        Some(many) => Some(backlog::claims(&ground.fresh().await?, many).await?),
        None => None,
    };
    let limit = ground.limit(tasks).await?;
    Ok(Report {
        store,
        tasks,
        enqueue_per_s,
        limit_enqueue_per_s: limit.enqueue,
        enqueue_one_per_s,
        drain_per_s,
        limit_drain_per_s: limit.drain,
        pickup_p50_us: percentile(&mut samples, 0.50),
        pickup_p99_us: percentile(&mut samples, 0.99),
        bytes_per_waiting_task,
        idle_statements_per_s,
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
async fn drain(store: &Arc<dyn Store>, tasks: u64) -> Result<f64> {
    let done = Arc::new(AtomicU64::new(0));
    let counter = done.clone();
    let functions = FunctionExecutor::new().register(KIND, move |_: Context, _: IgnoredAny| {
        counter.fetch_add(1, Relaxed);
        async { Ok(()) }
    });
    let watch = Watch::start();
    let scheduler = scheduler(store.clone(), functions).await?;
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

/// On an idle scheduler: microseconds from `submit` returning to the handler's first line, and statements a second
/// that the server gets when nothing at all is submitted.
async fn idly(ground: &dyn Ground, idle: Duration) -> Result<(Vec<f64>, Option<f64>)> {
    let (entered, mut entries) = mpsc::unbounded_channel();
    let functions = FunctionExecutor::new().register(KIND, move |_: Context, _: IgnoredAny| {
        let _ = entered.send(Watch::start());
        async { Ok(()) }
    });
    let scheduler = scheduler(ground.fresh().await?, functions).await?;
    let mut samples = Vec::with_capacity(SAMPLES);
    for sample in 0..SAMPLES as u64 {
        tokio::time::sleep(Duration::from_millis(PAUSE_MIN_MS + sample * 7 % PAUSE_SPREAD_MS)).await;
        scheduler.submit(task()?).await?;
        let returned = Watch::start();
        let Some(entered) = entries.recv().await else { break };
        // The handler may have been entered before `submit` returned: then nobody waited at all.
        samples.push((returned.elapsed().as_secs_f64() - entered.elapsed().as_secs_f64()).max(0.0) * 1e6);
    }
    let statements = ground.statements(idle).await?;
    scheduler.shutdown(Shutdown { grace: Duration::ZERO, hand_over: false }).await?;
    Ok((samples, statements))
}

async fn scheduler(store: Arc<dyn Store>, functions: FunctionExecutor) -> Result<Scheduler> {
    let config = Config { concurrency: CONCURRENCY, ..Config::default() };
    Scheduler::builder(store).functions(functions).config(config).start().await
}
