//! What a claim costs with few and with many tasks waiting: it should be the same.

use std::sync::Arc;
use std::time::Duration;

use light_task_scheduler::store::{ClaimRequest, NewReplica};
use light_task_scheduler::{Error, Name, ReplicaId, Result, Store, SystemClock};

use super::load::{KIND, enqueue_vectors};
use super::measure::{Watch, percentile};

/// How many wait at first.
pub(super) const FEW: u64 = 10_000;
/// Tasks in one claim.
const CLAIMED: usize = 100;
/// Claims before any is timed: connections are made, statements prepared, windows filled.
const WARM_UP: u64 = 5;
/// Claims of which the median counts.
const CLAIMS: u64 = 25;
/// Longer than the benchmark takes: nobody renews this lease.
const LEASE: Duration = Duration::from_secs(3_600);

/// Microseconds for a claim of 100 with [`FEW`] and with `many` tasks waiting.
pub(super) async fn claims(store: &Arc<dyn Store>, many: u64) -> Result<(f64, f64)> {
    let replica = ReplicaId::generate(&SystemClock);
    store.register(NewReplica { id: replica, name: "lts bench".to_owned(), ttl: LEASE, remote: false }).await?;
    let mut number = 0;
    enqueue_vectors(store, FEW).await?;
    let few = claim_time(store, replica, &mut number).await?;
    // As many as were claimed are missing.
    enqueue_vectors(store, many.saturating_sub(FEW)).await?;
    let many = claim_time(store, replica, &mut number).await?;
    Ok((few, many))
}

async fn claim_time(store: &Arc<dyn Store>, replica: ReplicaId, number: &mut u64) -> Result<f64> {
    let mut samples = Vec::new();
    for sample in 0..WARM_UP + CLAIMS {
        *number += 1;
        let (kinds, queues) = (vec![Name::new(KIND)?], Vec::new());
        let request = ClaimRequest { replica, number: *number, kinds, queues, limit: CLAIMED, among: None };
        let watch = Watch::start();
        let claim = store.claim(request).await?;
        let micros = watch.elapsed().as_secs_f64() * 1e6;
        if claim.tasks.len() != CLAIMED {
            return Err(Error::internal(format!("a claim of {CLAIMED} took {}", claim.tasks.len())));
        }
        if sample >= WARM_UP {
            samples.push(micros);
        }
    }
    Ok(percentile(&mut samples, 0.50))
}
