//! Stores in SQL databases.
//!
//! What is not about one server is here: it knows neither statements nor connections.
//!
//! | file | idea |
//! |---|---|
//! | `codec` | records as columns |
//! | `floors` | where the waiting tasks of a lane begin |
//! | `gate` | what a queue lets through |
//! | `gather` | small calls, written together |
//! | `hints` | what changed here, and whom to tell |
//! | `ids` | ids that say where their row is |
//! | `incoming` | which tasks are new |
//! | `lanes` | small numbers for queues and kinds |
//! | `moves` | what becomes of locked rows |
//! | `plan` | what a claim sees and may take |
//! | `tally` | how many tasks there are |
//! | `texts` | labels, settings and reports as text |
//! | `verify` | which rows contradict each other |

mod codec;
#[cfg(feature = "postgres")]
mod floors;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod gate;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod gather;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod hints;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
mod ids;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod incoming;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod lanes;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod moves;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod plan;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "postgres")]
mod tally;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod texts;
mod verify;

#[cfg(feature = "mysql")]
pub use mysql::{MySqlOptions, MySqlStore};
#[cfg(feature = "postgres")]
pub use postgres::{PostgresOptions, PostgresStore};
#[cfg(feature = "sqlite")]
pub use sqlite::{Durability, SqliteOptions, SqliteStore};
