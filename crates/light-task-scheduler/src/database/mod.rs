//! Connections to database servers, for every backend that needs some: no table of any of them.
//!
//! | file | idea |
//! |---|---|
//! | `engine` | the thread that drives the connections of a database |
//! | `postgres`, `mysql` | connections, transactions, migrations and errors of a server |

pub(crate) mod engine;
#[cfg(feature = "mysql")]
pub(crate) mod mysql;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
