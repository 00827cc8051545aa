//! Connections to database servers, for every backend that needs some: no table of any of them.
//!
//! | file | idea |
//! |---|---|
//! | `engine` | the thread that drives the connections of an SQL database |
//! | `home` | whether a process of this host has ended |
//! | `parameter` | what is ours in the URL of a database, and what is said there of TLS |
//! | `promptly` | what sqlx forgets to say to TCP (Linux) |
//! | `silence` | what is done about a server that says nothing |
//! | `mysql`, `postgres`, `redis` | connections and errors of a server, and what else goes with them |
//! | `remote` | calls to a server of ours |

#[cfg(any(feature = "mysql", feature = "postgres"))]
pub(crate) mod engine;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "redis"))]
pub(crate) mod home;
#[cfg(feature = "mysql")]
pub(crate) mod mysql;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "redis"))]
mod parameter;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(all(target_os = "linux", any(feature = "mysql", feature = "postgres")))]
mod promptly;
#[cfg(feature = "redis")]
pub(crate) mod redis;
#[cfg(feature = "remote")]
pub(crate) mod remote;
#[cfg(any(feature = "mysql", feature = "postgres"))]
pub(crate) mod silence;

#[cfg(any(feature = "mysql", feature = "postgres"))]
use self::parameter::flag;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "redis"))]
use self::parameter::{TLS_BUILT_IN, TlsParameters, check_built_in};

#[cfg(all(target_os = "linux", any(feature = "mysql", feature = "postgres")))]
use self::promptly::send_at_once;
/// Elsewhere small packets are gathered.
#[cfg(all(not(target_os = "linux"), any(feature = "mysql", feature = "postgres")))]
fn send_at_once(_port: u16) {}
