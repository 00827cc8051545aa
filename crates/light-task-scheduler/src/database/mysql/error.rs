//! What the errors of MariaDB and MySQL mean to a caller.

use sqlx::mysql::MySqlDatabaseError;

use crate::error::{Error, ErrorKind};

/// A row with this key is there already.
const DUPLICATE: u16 = 1062;
/// A column that is to be added is there already, one that is to be renamed is not, nor is one or a key to be dropped.
const ALTERED: [u16; 3] = [1060, 1054, 1091];
/// Another transaction has held a lock for too long.
const LOCK_TIMEOUT: u16 = 1205;
/// The server has undone this transaction, so that others can go on.
const DEADLOCK: u16 = 1213;
/// The session is over: shut down, killed, or idle for too long.
const SESSION_OVER: [u16; 4] = [1053, 1927, 3169, 4031];

/// What can go wrong inside a transaction.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The server or the connection.
    Server(sqlx::Error),
    /// What the work itself found.
    Ours(Error),
    /// Others were in the way: the transaction is to be tried again.
    Again,
    /// The server did not answer in time.
    Silent,
}

/// What work on a connection returns.
pub(crate) type Work<T> = Result<T, Trouble>;

impl From<sqlx::Error> for Trouble {
    fn from(error: sqlx::Error) -> Self {
        Trouble::Server(error)
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::Ours(error)
    }
}

impl Trouble {
    /// Whether the same transaction may succeed at once, nothing of it having been done: a deadlock, a lock that
    /// was waited for too long, a key that another transaction has used, or another one that came between.
    pub(crate) fn is_conflict(&self) -> bool {
        match self {
            Trouble::Again => true,
            Trouble::Server(error) => matches!(number(error), Some(DUPLICATE | LOCK_TIMEOUT | DEADLOCK)),
            Trouble::Ours(_) | Trouble::Silent => false,
        }
    }

    /// Whether another transaction has held a lock for as long as this one may wait.
    pub(crate) fn has_waited(&self) -> bool {
        matches!(self, Trouble::Server(error) if number(error) == Some(LOCK_TIMEOUT))
    }

    /// Whether the server has undone the whole transaction, also what came before the last savepoint.
    pub(crate) fn undid_everything(&self) -> bool {
        matches!(self, Trouble::Server(error) if number(error) == Some(DEADLOCK))
    }

    /// Whether the server or the work itself has refused it, so that nothing of it was done.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Trouble::Server(error) => error.as_database_error().is_some() && !self.is_disconnected(),
            Trouble::Ours(_) | Trouble::Again => true,
            Trouble::Silent => false,
        }
    }

    /// Whether the connection was found dead.
    pub(crate) fn is_disconnected(&self) -> bool {
        match self {
            Trouble::Server(sqlx::Error::Io(_)) => true,
            Trouble::Server(error) => number(error).is_some_and(|number| SESSION_OVER.contains(&number)),
            _ => false,
        }
    }

    /// For the caller. `place` says where the server is, without the password.
    pub(crate) fn into_error(self, place: &str) -> Error {
        match self {
            Trouble::Ours(error) => error,
            Trouble::Again => Error::unavailable(format!("MySQL at {place}: others were in the way too often")),
            Trouble::Silent => Error::unavailable(format!(
                "MySQL at {place}: no answer in time; check that the server runs and can be reached"
            )),
            Trouble::Server(error) => explain(error, place),
        }
    }
}

/// Whether a table that was to be altered is so already.
pub(super) fn is_altered(error: &sqlx::Error) -> bool {
    number(error).is_some_and(|number| ALTERED.contains(&number))
}

fn number(error: &sqlx::Error) -> Option<u16> {
    Some(error.as_database_error()?.try_downcast_ref::<MySqlDatabaseError>()?.number())
}

/// Says what an error of the server or of the connection means, and what to do.
pub(crate) fn explain(error: sqlx::Error, place: &str) -> Error {
    let (kind, advice) = meaning(&error);
    let said = match &error {
        // sqlx writes a preface of its own; the server's sentence is enough.
        sqlx::Error::Database(database) => database.message().to_owned(),
        sqlx::Error::Io(e) => e.to_string(),
        sqlx::Error::PoolTimedOut => "no connection could be had in time".to_owned(),
        other => other.to_string(),
    };
    let advice = if advice.is_empty() { String::new() } else { format!("; {advice}") };
    Error::new(kind, format!("MySQL at {place}: {said}{advice}")).with_source(error)
}

fn meaning(error: &sqlx::Error) -> (ErrorKind, &'static str) {
    let Some(number) = number(error) else {
        return match error {
            // A handshake that fails is a failure of the connection, with what was wrong in it.
            sqlx::Error::Io(e) if e.kind() == std::io::ErrorKind::InvalidData => {
                (ErrorKind::Unavailable, "check ssl-mode and the certificates")
            }
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => {
                (ErrorKind::Unavailable, "check that the server runs and can be reached")
            }
            sqlx::Error::Tls(_) => (ErrorKind::Unavailable, "check ssl-mode and the certificates"),
            sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed | sqlx::Error::Protocol(_) => {
                (ErrorKind::Unavailable, "")
            }
            sqlx::Error::Configuration(_) => (ErrorKind::Invalid, ""),
            _ => (ErrorKind::Internal, ""),
        };
    };
    match number {
        1044 | 1045 | 1130 | 1698 => (ErrorKind::Invalid, "check the user, the password and the user's rights"),
        1049 => (ErrorKind::Invalid, "create the database first"),
        1142 | 1143 | 1227 | 1370 => (ErrorKind::Invalid, "grant this user all rights on the database"),
        1290 | 1792 | 1836 => (ErrorKind::Unavailable, "the server takes no writes: is it a replica?"),
        1054 | 1146 => (ErrorKind::Incompatible, "the tables are not those of this program: were they dropped?"),
        1021 | 1114 => (ErrorKind::Full, "free some space on the server's disk"),
        1040 | 1203 | 1226 => {
            (ErrorKind::Unavailable, "raise max_connections of the server or lower those of its users")
        }
        1153 | 1301 => (ErrorKind::Incompatible, "raise max_allowed_packet of the server"),
        1461 => (ErrorKind::Unavailable, "raise max_prepared_stmt_count of the server"),
        LOCK_TIMEOUT | DEADLOCK | 1317 | 3024 | 1969 => (ErrorKind::Unavailable, "try again"),
        number if SESSION_OVER.contains(&number) => (ErrorKind::Unavailable, "the server has ended the connection"),
        _ => (ErrorKind::Internal, ""),
    }
}
