//! The physical limit on Redis: raw batched scripts on a hash and sorted sets, as durable as the server is set, tasks
//! kept.

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisResult, Script};
use tokio::task::JoinSet;

use super::PAYLOAD_BYTES;
use super::ground::Limit;
use super::measure::Watch;

/// Tasks in one call that takes in.
const ENQUEUED: u64 = 1_000;
/// Tasks in one call that claims or marks as done.
const CLAIMED: u64 = 100;
/// How many calls are under way at once: the server is never idle, and a flush serves many of them.
const CALLERS: u64 = 8;

/// Payloads by number, and the numbers in the order of claims.
const INSERT: &str = "
    local last = redis.call('INCRBY', KEYS[3], #ARGV)
    local payloads, ready = {}, {}
    for i = 1, #ARGV do
        local id = last - #ARGV + i
        payloads[2 * i - 1], payloads[2 * i] = id, ARGV[i]
        ready[2 * i - 1], ready[2 * i] = id, id
    end
    redis.call('HSET', KEYS[1], unpack(payloads))
    redis.call('ZADD', KEYS[2], unpack(ready))
    return last";
/// The first of them go to those that run; their numbers and payloads are told.
const CLAIM: &str = "
    local ready = redis.call('ZPOPMIN', KEYS[2], ARGV[1])
    local ids, running = {}, {}
    for i = 1, #ready, 2 do
        ids[#ids + 1] = ready[i]
        running[i], running[i + 1] = 1, ready[i]
    end
    if #ids == 0 then return {{}, {}} end
    redis.call('ZADD', KEYS[4], unpack(running))
    return {ids, redis.call('HMGET', KEYS[1], unpack(ids))}";
const DONE: &str = "
    local done = {}
    for i = 1, #ARGV do
        done[2 * i - 1], done[2 * i] = 1, ARGV[i]
    end
    redis.call('ZREM', KEYS[4], unpack(ARGV))
    return redis.call('ZADD', KEYS[5], unpack(done))";

/// A connection and the keys of the benchmark.
#[derive(Clone)]
struct Raw {
    connection: MultiplexedConnection,
    keys: [String; 5],
}

fn keys(namespace: &str) -> [String; 5] {
    ["data", "ready", "last", "running", "done"].map(|key| format!("{{{namespace}}}raw:{key}"))
}

/// Measures in a namespace that is empty.
pub(super) async fn raw(connection: &MultiplexedConnection, namespace: &str, tasks: u64) -> RedisResult<Limit> {
    let raw = Raw { connection: connection.clone(), keys: keys(namespace) };
    let (watch, mut work) = (Watch::start(), JoinSet::new());
    let calls = tasks / ENQUEUED;
    for caller in 0..CALLERS {
        work.spawn(raw.clone().insert(calls / CALLERS + u64::from(caller < calls % CALLERS)));
    }
    let inserted = all(work).await?;
    let enqueue = watch.rate(inserted);
    let (watch, mut work) = (Watch::start(), JoinSet::new());
    for _ in 0..CALLERS {
        work.spawn(raw.clone().drain());
    }
    let drained = all(work).await?;
    let drain = watch.rate(drained);
    if drained != inserted {
        let text = format!("only {drained} of {inserted} were drained");
        return Err((ErrorKind::Client, "the benchmark failed", text).into());
    }
    Ok(Limit { enqueue, drain })
}

/// Removes what a measurement has left.
pub(super) async fn remove(connection: &MultiplexedConnection, namespace: &str) -> RedisResult<()> {
    redis::cmd("UNLINK").arg(&keys(namespace)).query_async(&mut connection.clone()).await
}

/// The sum of what they answer.
async fn all(mut work: JoinSet<RedisResult<u64>>) -> RedisResult<u64> {
    let mut sum = 0;
    while let Some(ended) = work.join_next().await {
        sum += ended.map_err(|error| (ErrorKind::Client, "a caller failed", error.to_string()))??;
    }
    Ok(sum)
}

impl Raw {
    async fn insert(mut self, calls: u64) -> RedisResult<u64> {
        let script = Script::new(INSERT);
        let mut call = script.key(&self.keys);
        call.arg(vec![vec![7_u8; PAYLOAD_BYTES]; ENQUEUED as usize]);
        for _ in 0..calls {
            let _: u64 = call.invoke_async(&mut self.connection).await?;
        }
        Ok(calls * ENQUEUED)
    }

    async fn drain(mut self) -> RedisResult<u64> {
        let (claim, done) = (Script::new(CLAIM), Script::new(DONE));
        let mut claim = claim.key(&self.keys);
        claim.arg(CLAIMED);
        let mut drained = 0;
        loop {
            let (ids, _): (Vec<u64>, Vec<Vec<u8>>) = claim.invoke_async(&mut self.connection).await?;
            if ids.is_empty() {
                return Ok(drained);
            }
            drained += done.key(&self.keys).arg(ids).invoke_async::<u64>(&mut self.connection).await?;
        }
    }
}
