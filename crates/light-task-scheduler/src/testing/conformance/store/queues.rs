//! Settings of queues, and the hint that something has changed.

use std::time::Duration;

use super::StoreHarness;
use super::world::{MINUTE, World, concurrency, id, name, paused, task, task_as};
use crate::error::ErrorKind;
use crate::rate::RateLimit;
use crate::state::Command;
use crate::store::{Changes, QueueSettings};

/// Settings come back as they were given, to the microsecond.
pub async fn settings_come_back(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let rate = RateLimit { count: u32::MAX, period: Duration::from_micros(1_000_001), burst: 3 };
    let full = QueueSettings { concurrency: Some(u32::MAX), rate: Some(rate), paused: true };
    let all = [("a", full), ("b", QueueSettings::default()), ("c", paused()), ("d", concurrency(1))];
    for (queue, settings) in all {
        w.set(queue, settings).await;
    }
    assert_eq!(w.store.queues().await.unwrap(), all.map(|(queue, settings)| (name(queue), settings)));
    w.set("a", concurrency(2)).await;
    assert_eq!(w.store.queues().await.unwrap()[0], (name("a"), concurrency(2)), "replaced as a whole");
}

/// Settings that make no sense are refused and change nothing.
pub async fn bad_settings_are_refused(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    w.set("q", concurrency(2)).await;
    let rate = |count, period, burst| QueueSettings {
        rate: Some(RateLimit { count, period, burst }),
        ..QueueSettings::default()
    };
    for bad in [concurrency(0), rate(0, MINUTE, 1), rate(1, Duration::ZERO, 1), rate(1, MINUTE, 0)] {
        for queue in ["q", "new"] {
            let error = w.store.set_queue(name(queue), bad).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{bad:?}");
        }
    }
    assert_eq!(w.store.queues().await.unwrap(), [(name("q"), concurrency(2))]);
}

/// A queue is known from its first task on, by name in order, and stays when its tasks are gone.
pub async fn a_queue_is_known_from_its_first_task(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    assert_eq!(w.store.queues().await.unwrap(), []);
    w.add(task_as("t").queue("m").unwrap()).await;
    w.add(task().queue("a").unwrap()).await;
    w.set("z", paused()).await;
    w.command(&id("t"), Command::Cancel).await;
    w.command(&id("t"), Command::Delete).await;
    let names: Vec<_> = w.store.queues().await.unwrap().into_iter().map(|(queue, _)| queue.to_string()).collect();
    assert_eq!(names, ["a", "m", "z"]);
}

/// A refused task makes no queue.
pub async fn a_refused_task_makes_no_queue(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    w.insert(vec![task().queue("q").unwrap().timeout(Duration::ZERO)]).await.remove(0).unwrap_err();
    assert_eq!(w.store.queues().await.unwrap(), []);
}

/// Who waits for a change may stop waiting, and nothing is needed but asking again.
pub async fn the_hint_is_never_needed(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    let replica = w.replica().await;
    let mut seen = Changes::default();
    for _ in 0..3 {
        let wait = tokio::time::timeout(Duration::from_millis(20), w.store.changed(seen));
        let (hint, id) = tokio::join!(wait, w.add(task()));
        seen = hint.unwrap_or(seen);
        assert_eq!(w.claim_ids(&replica, 9).await, [id]);
    }
}

/// Many waiters may come and go: a dropped wait disturbs none of the others.
pub async fn dropped_waits_disturb_nothing(h: &dyn StoreHarness) {
    let w = World::open(h).await;
    for _ in 0..50 {
        drop(tokio::time::timeout(Duration::ZERO, w.store.changed(Changes::default())).await);
    }
    let id = w.add(task()).await;
    let replica = w.replica().await;
    assert_eq!(w.claim_ids(&replica, 9).await, [id]);
}
