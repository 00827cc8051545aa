//! Connections to database servers, for every backend that needs some: no table of any of them.
//!
//! | file | idea |
//! |---|---|
//! | `engine` | the thread that drives the connections of an SQL database |
//! | `parameter` | what is ours in the URL of an SQL database |
//! | `silence` | what is done about a server that says nothing |
//! | `mysql`, `postgres`, `redis` | connections and errors of a server, and what else goes with them |
//! | `http` | the ciphers of every HTTP client, and calls to a server of ours |

#[cfg(any(feature = "mysql", feature = "postgres"))]
pub(crate) mod engine;
#[cfg(any(feature = "http", feature = "remote"))]
pub(crate) mod http;
#[cfg(feature = "mysql")]
pub(crate) mod mysql;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod parameter;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "redis")]
pub(crate) mod redis;
#[cfg(any(feature = "mysql", feature = "postgres"))]
pub(crate) mod silence;

#[cfg(any(feature = "mysql", feature = "postgres"))]
use self::parameter::{TLS_BUILT_IN, TlsParameters, check_built_in, flag};
