//! What Redis answers, as this crate's errors. None ever holds a password.

use redis::{ErrorKind as Redis, RedisError};

use crate::error::{Error, ErrorKind};

/// The error of a call; `place` says which server, without its password.
pub(crate) fn error(place: &str, error: RedisError) -> Error {
    let (kind, advice) = meaning(&error);
    let message = format!("redis at {place}: {}{advice}", text(&error));
    Error::new(kind, message).with_source(error)
}

fn meaning(error: &RedisError) -> (ErrorKind, &'static str) {
    if error.kind() == Redis::AuthenticationFailed {
        return (ErrorKind::Invalid, "; check user and password");
    }
    if error.kind() == Redis::Io && error.to_string().contains("certificate") {
        return (ErrorKind::Unavailable, "; check the server's certificate, ssl-ca, ssl-cert and ssl-key");
    }
    match error.code().unwrap_or_default() {
        "OOM" => (ErrorKind::Full, "; raise maxmemory or remove ended tasks"),
        "WRONGPASS" | "NOAUTH" => (ErrorKind::Invalid, "; check user and password"),
        "NOPERM" => (ErrorKind::Invalid, "; give the user the rights on these keys and commands"),
        "READONLY" => (ErrorKind::Unavailable, "; it is a replica, name the master or the sentinels"),
        "MISCONF" => (ErrorKind::Unavailable, "; it cannot write to its disk"),
        "NOREPLICAS" => (ErrorKind::Unavailable, "; it has too few replicas to accept writes"),
        "LOADING" | "BUSY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "MOVED" | "ASK" => {
            (ErrorKind::Unavailable, "; try again later")
        }
        _ => other(error),
    }
}

fn other(error: &RedisError) -> (ErrorKind, &'static str) {
    match error.kind() {
        Redis::InvalidClientConfig | Redis::EmptySentinelList => (ErrorKind::Invalid, ""),
        Redis::RESP3NotSupported => (ErrorKind::Incompatible, "; it is too old"),
        Redis::Io
        | Redis::ClusterConnectionNotFound
        | Redis::MasterNameNotFoundBySentinel
        | Redis::NoValidReplicasFoundBySentinel => (ErrorKind::Unavailable, "; try again later"),
        // The connection gave up, or is gone: whether the command took effect is not known.
        _ if error.is_timeout() || error.is_connection_dropped() || is_cut_off(error) => {
            (ErrorKind::Unavailable, "; try again later")
        }
        _ => (ErrorKind::Internal, ""),
    }
}

fn text(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ => error.to_string(),
    }
}

/// Whether the connection has ended within an answer: the server was killed while it wrote it.
fn is_cut_off(error: &RedisError) -> bool {
    // The client library tells it apart in words only.
    error.code().is_none() && error.to_string().contains("Unexpected end of input")
}

/// Whether the connection that gave this error is of no more use.
pub(crate) fn needs_new_connection(error: &RedisError) -> bool {
    // A master that became a replica: the sentinels know the new one.
    error.is_connection_dropped()
        || error.is_timeout()
        || is_cut_off(error)
        || matches!(error.code(), Some("READONLY" | "MASTERDOWN"))
}

/// An answer that no release of this program gives.
pub(crate) fn unreadable(what: &str) -> Error {
    Error::internal(format!("{what} in redis cannot be read; was it written by another program?"))
}
