//! Removing what is over.
use super::world::World;
use crate::store::SweepRequest;

/// Housekeeping of tombstones only.
pub(super) async fn sweep_garbage(w: &World<'_>) -> Vec<String> {
    let request = SweepRequest { limit: 1_000, ..SweepRequest::default() };
    w.store.sweep(request).await.unwrap().garbage
}
