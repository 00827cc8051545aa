//! What every call shares: the connections, the store's time, the write counter, and the hints.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use redis::{Cmd, Value, cmd};

use super::hints::Hints;
use super::intake::Intake;
use super::{Durability, RedisOptions};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::database::home::Home;
use crate::database::redis::Link;
use crate::database::redis::Place;
use crate::database::redis::Script;
use crate::database::redis::error::unreadable;
use crate::database::redis::link::RESPONSE_TIMEOUT;
use crate::database::redis::server;
use crate::database::redis::values::{array, items, number, text, time};
use crate::error::{Error, ErrorKind, Result};
use crate::inspection::{Inspection, Schema};
use crate::store::Changes;

/// The layout of the keys; another one in the server is refused.
const VERSION: usize = 3;

/// How long to wait for the answer to a heartbeat: a connection that is dead without saying so must be
/// replaced while the lease lasts.
const BEAT_TIMEOUT: Duration = Duration::from_secs(2);

/// An open store.
#[derive(Debug)]
pub(super) struct Calls {
    link: Link,
    /// Of the heartbeats alone: a large batch on the other never delays them.
    beats: Link,
    meta_key: String,
    /// Names this handle among all that ever wrote.
    handle: String,
    offset: Arc<AtomicI64>,
    stopped: bool,
    /// The latest time seen, in microseconds: the store's time never goes back for this handle, whichever server answers.
    latest: AtomicI64,
    /// The highest write counter that was acknowledged.
    acknowledged: AtomicU64,
    pub(super) intake: Intake,
    /// Where this process lives.
    pub(super) home: Option<Home>,
    hints: Arc<Hints>,
    poll_interval: Duration,
    durability: Durability,
}

/// What the keys of a namespace begin with.
fn prefix(namespace: &str) -> String {
    format!("{{lts:{namespace}}}:")
}

/// The layout of a namespace; 0: it is new.
async fn layout(link: &Link, meta_key: &str) -> Result<Schema> {
    let found = match link.send(cmd("HGET").arg(meta_key).arg("version")).await? {
        Value::Nil => 0,
        version => number(&version)?,
    };
    Ok(Schema::new("tasks", found, VERSION))
}

/// Looks at a server and a namespace, and changes nothing.
pub(super) async fn inspect(url: &str, options: &RedisOptions) -> Result<Inspection> {
    let link = Link::new(Place::parse(url)?, RESPONSE_TIMEOUT);
    let durability = server::check(&link, options.strict).await?;
    Ok(Inspection {
        engine: "Redis".to_owned(),
        version: server::version(&link).await?,
        durability: durability.to_string(),
        schemas: vec![layout(&link, &format!("{}meta", prefix(&options.namespace))).await?],
        // A namespace shares the memory of its server with others.
        bytes: None,
    })
}

/// What a writing script answered.
pub(super) struct Written {
    pub(super) now: Timestamp,
    pub(super) op_seq: u64,
    pub(super) epoch: u64,
    pub(super) body: Value,
}

impl Calls {
    pub(super) async fn open(url: &str, options: RedisOptions) -> Result<Self> {
        let place = Place::parse(url)?;
        let prefix = prefix(&options.namespace);
        let link = Link::new(place.clone(), RESPONSE_TIMEOUT);
        let durability = server::check(&link, options.strict).await?;
        let calls = Calls {
            beats: Link::new(place.clone(), BEAT_TIMEOUT),
            hints: Hints::new(place, format!("{prefix}hint")),
            link,
            meta_key: format!("{prefix}meta"),
            handle: format!("{:016x}", SystemClock.random()),
            offset: options.clock_offset,
            stopped: options.clock_stopped,
            latest: AtomicI64::new(0),
            acknowledged: AtomicU64::new(0),
            intake: Intake::default(),
            home: Home::here(),
            poll_interval: options.poll_interval,
            durability,
        };
        calls.check_version(&format!("the namespace {}", options.namespace), options.migrate).await?;
        Ok(calls)
    }

    async fn check_version(&self, place: &str, may_migrate: bool) -> Result<()> {
        let mut found = layout(&self.link, &self.meta_key).await?;
        if !found.check(place, may_migrate)? && found.found == 0 {
            // Only a new namespace is written: one that has tasks can be opened while the server is full.
            self.link.send(cmd("HSETNX").arg(&self.meta_key).arg("version").arg(VERSION)).await?;
            found = layout(&self.link, &self.meta_key).await?;
        }
        // There is no older layout that could be brought up to date.
        found.check(place, false).map(drop)
    }

    pub(super) fn durability(&self) -> Durability {
        self.durability
    }

    /// The command of a script with the arguments that all have.
    pub(super) fn command(&self, script: &Script) -> Cmd {
        let mut command = script.command(&[&self.meta_key]);
        let instead = if self.stopped { "=" } else { "" };
        command
            .arg(format!("{instead}{}", self.offset.load(Ordering::SeqCst)))
            .arg(self.latest.load(Ordering::SeqCst))
            .arg(&self.handle)
            .arg(self.acknowledged.load(Ordering::SeqCst));
        command
    }

    /// Runs a script that only reads.
    pub(super) async fn read(&self, script: &Script, command: &Cmd) -> Result<Value> {
        script.run(&self.link, command).await
    }

    /// Runs a script that writes.
    pub(super) async fn write(&self, script: &Script, command: &Cmd) -> Result<Written> {
        self.write_on(&self.link, script, command).await
    }

    /// Runs a heartbeat.
    pub(super) async fn beat(&self, script: &Script, command: &Cmd) -> Result<Written> {
        self.write_on(&self.beats, script, command).await
    }

    async fn write_on(&self, link: &Link, script: &Script, command: &Cmd) -> Result<Written> {
        let answer = script.run(link, command).await?;
        let [now, op_seq, epoch, work, wishes, ends, body] = array(answer)?;
        let (now, op_seq, epoch) = (time(&now)?, number(&op_seq)?, number(&epoch)?);
        let changes = Changes { work: number(&work)?, wishes: number(&wishes)?, ends: number(&ends)? };
        self.latest.fetch_max(now.as_micros(), Ordering::SeqCst);
        self.acknowledged.fetch_max(op_seq, Ordering::SeqCst);
        self.hints.publish_of(epoch, changes);
        Ok(Written { now, op_seq, epoch, body })
    }

    /// Waits until the counters differ from those that were seen.
    pub(super) async fn changed(&self, seen: Changes) -> Changes {
        let mut known = self.hints.receiver();
        loop {
            let now = *known.borrow_and_update();
            if now != seen {
                return now;
            }
            tokio::select! {
                // The sender lives as long as this store.
                _ = known.changed() => {}
                () = self.poll() => {}
            }
        }
    }

    /// Listens for the interval, then asks, in case that a hint was lost.
    async fn poll(&self) {
        self.hints.subscribe().await;
        tokio::time::sleep(self.poll_interval).await;
        // A failure is met again by whoever needs the store; the next poll tries again.
        if let Ok(changes) = self.counters().await {
            self.hints.publish(changes);
        }
    }

    async fn counters(&self) -> Result<Changes> {
        let asked = cmd("HMGET").arg(&self.meta_key).arg("work").arg("wishes").arg("ends").clone();
        let found = items(self.link.send(&asked).await?)?;
        let counter = |value: &Value| if *value == Value::Nil { Ok(0) } else { number(value) };
        match found.as_slice() {
            [work, wishes, ends] => {
                Ok(Changes { work: counter(work)?, wishes: counter(wishes)?, ends: counter(ends)? })
            }
            _ => Err(unreadable("the counters")),
        }
    }
}

/// How many items, and bytes of them, go into one call of a script: bounds how long it keeps others waiting.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) items: usize,
    bytes: usize,
}

/// Most items in one call of a script.
pub(super) const PART_ITEMS_MAX: usize = 1_000;
/// An item that brings a part to so many bytes is its last (4 MiB).
const PART_BYTES_MAX: usize = 4 << 20;

impl Part {
    /// Counts an item.
    pub(super) fn add(&mut self, bytes: usize) {
        self.items += 1;
        self.bytes += bytes;
    }

    pub(super) fn is_full(&self) -> bool {
        self.items >= PART_ITEMS_MAX || self.bytes >= PART_BYTES_MAX
    }
}

/// What a script says against a replica; an empty text is no objection.
pub(super) fn objection(replica: impl std::fmt::Display, why: &Value) -> Result<()> {
    match text(why)? {
        "" => Ok(()),
        why => Err(Error::new(ErrorKind::NotRegistered, format!("the replica {replica} {why}; register anew"))),
    }
}
