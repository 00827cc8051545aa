//! Hints that something may have changed: from the answers of this handle's own writes, and published ones
//! on a connection of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use redis::aio::MultiplexedConnection;
use redis::{ProtocolVersion, PushInfo, PushKind, RedisResult, Value};
use tokio::sync::{Mutex, watch};

use crate::database::redis::link;
use crate::database::redis::place::Place;
use crate::store::Changes;

/// What this handle knows of the counters of [`Changes`].
#[derive(Debug)]
pub(super) struct Hints {
    place: Place,
    channel: String,
    changes: watch::Sender<Changes>,
    epoch: AtomicU64,
    subscribed: Arc<AtomicBool>,
    // Dropping it ends the subscription.
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl Hints {
    pub(super) fn new(place: Place, channel: String) -> Arc<Self> {
        Arc::new(Hints {
            place,
            channel,
            changes: watch::Sender::new(Changes::default()),
            epoch: AtomicU64::new(0),
            subscribed: Arc::default(),
            connection: Mutex::default(),
        })
    }

    /// Passes on what the store has said. The counters only grow; an older view changes nothing.
    pub(super) fn publish(&self, seen: Changes) {
        self.changes.send_if_modified(|known| {
            let newer = seen.work > known.work || seen.wishes > known.wishes || seen.ends > known.ends;
            known.work = known.work.max(seen.work);
            known.wishes = known.wishes.max(seen.wishes);
            known.ends = known.ends.max(seen.ends);
            newer
        });
    }

    /// The same with the epoch: where writes were lost, the counters begin anew.
    pub(super) fn publish_of(&self, epoch: u64, seen: Changes) {
        if self.epoch.swap(epoch, Ordering::Relaxed) != epoch {
            self.changes.send_replace(seen);
        }
        self.publish(seen);
    }

    /// For waiting until the counters differ from those that were seen.
    pub(super) fn receiver(&self) -> watch::Receiver<Changes> {
        self.changes.subscribe()
    }

    /// Subscribes, unless that is done. A hint may be missed: who fails tries again with the next poll.
    pub(super) async fn subscribe(self: &Arc<Self>) {
        if self.subscribed.load(Ordering::Acquire) {
            return;
        }
        let mut connection = self.connection.lock().await;
        if !self.subscribed.load(Ordering::Acquire) {
            *connection = None;
            *connection = self.try_subscribe().await.ok();
        }
    }

    async fn try_subscribe(self: &Arc<Self>) -> RedisResult<MultiplexedConnection> {
        let client = link::node(&self.place).await?;
        let info = client.get_connection_info().clone();
        // The newer protocol tells pushed messages from answers.
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = redis::Client::open(info.set_redis_settings(settings))?;
        let (hints, subscribed) = (Arc::downgrade(self), Arc::clone(&self.subscribed));
        let config = link::config().set_push_sender(move |pushed: PushInfo| {
            match pushed.kind {
                PushKind::Disconnection => subscribed.store(false, Ordering::Release),
                PushKind::Message => {
                    let seen = pushed.data.last().and_then(changes);
                    if let Some((hints, seen)) = hints.upgrade().zip(seen) {
                        hints.publish(seen);
                    }
                }
                _ => {}
            }
            Ok::<(), ()>(())
        });
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        self.subscribed.store(true, Ordering::Release);
        match connection.subscribe(&self.channel).await {
            Ok(()) => Ok(connection),
            Err(e) => {
                self.subscribed.store(false, Ordering::Release);
                Err(e)
            }
        }
    }
}

/// The counters of a published message: three numbers.
fn changes(message: &Value) -> Option<Changes> {
    let Value::BulkString(bytes) = message else { return None };
    let mut numbers = std::str::from_utf8(bytes).ok()?.split(' ').map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some(Changes { work: next()?, wishes: next()?, ends: next()? })
}
