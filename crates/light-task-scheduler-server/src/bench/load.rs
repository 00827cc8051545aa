//! The load: tasks in vectors and one by one, a drain at full concurrency, and single tasks on an idle scheduler.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde::de::IgnoredAny;
use tokio::sync::mpsc;

use light_task_scheduler::store::MemoryOptions;
use light_task_scheduler::store::sql::{Durability, SqliteOptions};
use light_task_scheduler::{
    Config, Context, Error, FunctionExecutor, MemoryStore, Name, NewTask, Payload, Result, Scheduler, Shutdown,
    SqliteStore, State, Store,
};

use super::measure::{Watch, percentile, rss_bytes};
use super::{PAYLOAD_BYTES, Report, limits, sqlite_limit};

/// Slots of the draining scheduler.
const CONCURRENCY: usize = 1_000;
/// Tasks in one call.
const VECTOR: u64 = 1_000;
/// Callers that enqueue vectors.
const VECTOR_CALLERS: u64 = 2;
/// Callers that enqueue one task a call.
const CALLERS: u64 = 50;
/// Samples of the pickup latency, and the pause before each (varied, to hit no rhythm).
const SAMPLES: usize = 300;
const PAUSE_MIN_MS: u64 = 2;
const PAUSE_SPREAD_MS: u64 = 11;
/// How often the end of a drain is looked for.
const LOOK: Duration = Duration::from_millis(1);
/// A drain that takes longer has failed.
const DRAIN_MAX: Duration = Duration::from_secs(600);

pub(super) async fn memory(tasks: u64) -> Result<Report> {
    let open = || Ok::<Arc<dyn Store>, Error>(MemoryStore::by_priority_with(MemoryOptions::default()).into());
    // The store first: memory that the limits have used and freed would hide what the store takes.
    let report = measure(Report { store: "memory", tasks, ..Report::default() }, open).await?;
    Ok(Report {
        limit_drain_per_s: limits::spawned(tasks, CONCURRENCY).await,
        limit_enqueue_per_s: limits::sent(tasks, &[7; PAYLOAD_BYTES]),
        ..report
    })
}

pub(super) async fn sqlite(tasks: u64, dir: &Path, relaxed: bool) -> Result<Report> {
    let files = tempfile::Builder::new().prefix("lts-bench-").tempdir_in(dir).map_err(|error| {
        Error::invalid(format!("cannot make a directory for the benchmark in {}: {error}", dir.display()))
    })?;
    let (limit_enqueue_per_s, limit_drain_per_s) = sqlite_limit::raw(&files.path().join("raw.db"), tasks, relaxed)?;
    let durability = if relaxed { Durability::Relaxed } else { Durability::Full };
    let opened = AtomicU64::new(0);
    let open = || {
        let file = files.path().join(format!("{}.db", opened.fetch_add(1, Relaxed)));
        let options = SqliteOptions { durability, ..SqliteOptions::default() };
        Ok::<Arc<dyn Store>, Error>(SqliteStore::open_with(file, options)?.into())
    };
    let report = Report { store: "sqlite", tasks, limit_drain_per_s, limit_enqueue_per_s, ..Report::default() };
    measure(report, open).await
}

async fn measure(report: Report, open: impl Fn() -> Result<Arc<dyn Store>>) -> Result<Report> {
    let before = rss_bytes();
    let store = open()?;
    let enqueue_per_s = enqueue_vectors(&store, report.tasks).await?;
    let bytes_per_waiting_task = (rss_bytes() - before) / report.tasks as f64;
    let drain_per_s = drain(&store, report.tasks).await?;
    drop(store);
    let enqueue_one_per_s = enqueue_one_by_one(&open()?, report.tasks / 4).await?;
    let mut samples = pickup(open()?).await?;
    Ok(Report {
        enqueue_per_s,
        enqueue_one_per_s,
        drain_per_s,
        pickup_p50_us: percentile(&mut samples, 0.50),
        pickup_p99_us: percentile(&mut samples, 0.99),
        bytes_per_waiting_task,
        ..report
    })
}

/// A task of the one kind, with a JSON text of [`PAYLOAD_BYTES`] as its payload.
fn task() -> Result<NewTask> {
    static PAYLOAD: LazyLock<Vec<u8>> =
        LazyLock::new(|| [b"\"", vec![b'x'; PAYLOAD_BYTES - 2].as_slice(), b"\""].concat());
    // Each task has bytes of its own, as real ones have.
    Ok(NewTask::with_payload(Name::new("noop")?, Payload::from_bytes(PAYLOAD.as_slice())))
}

/// Vectors from two callers: while one vector is written, the next one is made.
async fn enqueue_vectors(store: &Arc<dyn Store>, tasks: u64) -> Result<f64> {
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
    let functions = FunctionExecutor::new().register("noop", move |_: Context, _: IgnoredAny| {
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

/// From `submit` returning to the handler's first line, on an idle scheduler, in microseconds.
async fn pickup(store: Arc<dyn Store>) -> Result<Vec<f64>> {
    let (entered, mut entries) = mpsc::unbounded_channel();
    let functions = FunctionExecutor::new().register("noop", move |_: Context, _: IgnoredAny| {
        let _ = entered.send(Watch::start());
        async { Ok(()) }
    });
    let scheduler = scheduler(store, functions).await?;
    let mut samples = Vec::with_capacity(SAMPLES);
    for sample in 0..SAMPLES as u64 {
        tokio::time::sleep(Duration::from_millis(PAUSE_MIN_MS + sample * 7 % PAUSE_SPREAD_MS)).await;
        scheduler.submit(task()?).await?;
        let returned = Watch::start();
        let Some(entered) = entries.recv().await else { break };
        // The handler may have been entered before `submit` returned: then nobody waited at all.
        samples.push((returned.elapsed().as_secs_f64() - entered.elapsed().as_secs_f64()).max(0.0) * 1e6);
    }
    scheduler.shutdown(Shutdown { grace: Duration::ZERO, hand_over: false }).await?;
    Ok(samples)
}

async fn scheduler(store: Arc<dyn Store>, functions: FunctionExecutor) -> Result<Scheduler> {
    let config = Config { concurrency: CONCURRENCY, ..Config::default() };
    Scheduler::builder(store).functions(functions).config(config).start().await
}
