//! The physical limit in memory: bare channel, semaphore and spawn, on the same runtime.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::{Semaphore, mpsc};

use super::measure::Watch;

/// How many wait between producer and dispatcher.
const CHANNEL: usize = 1_024;

/// Jobs per second through a bounded channel, a semaphore of `concurrency`, and a spawned no-op each.
pub(super) async fn spawned(jobs: u64, concurrency: usize) -> f64 {
    let done = Arc::new(AtomicU64::new(0));
    let watch = Watch::start();
    let (sender, mut receiver) = mpsc::channel::<u64>(CHANNEL);
    let producer = tokio::spawn(async move {
        for job in 0..jobs {
            if sender.send(job).await.is_err() {
                return;
            }
        }
    });
    let counter = done.clone();
    let dispatcher = tokio::spawn(async move {
        let slots = Arc::new(Semaphore::new(concurrency));
        while let Some(job) = receiver.recv().await {
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let done = counter.clone();
            tokio::spawn(async move {
                black_box(job);
                done.fetch_add(1, Relaxed);
                drop(slot);
            });
        }
        // All slots back: all jobs are done.
        let _ = slots.acquire_many(u32::try_from(concurrency).unwrap_or(u32::MAX)).await;
    });
    let _ = tokio::join!(producer, dispatcher);
    watch.rate(done.load(Relaxed))
}

/// Payloads per second into an unbounded channel: allocate, copy, send.
pub(super) fn sent(jobs: u64, payload: &[u8]) -> f64 {
    let watch = Watch::start();
    let (sender, receiver) = mpsc::unbounded_channel::<Arc<[u8]>>();
    for _ in 0..jobs {
        let _ = sender.send(payload.into());
    }
    let rate = watch.rate(jobs);
    drop(receiver);
    rate
}
