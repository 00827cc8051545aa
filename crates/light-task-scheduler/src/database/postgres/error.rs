//! What PostgreSQL's errors mean to a caller.

use crate::error::{Error, ErrorKind};

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
    /// Whether the same transaction may succeed at once, nothing of it having been done: a deadlock, a
    /// serialization failure, or another transaction that came between.
    pub(crate) fn is_conflict(&self) -> bool {
        match self {
            Trouble::Again => true,
            Trouble::Server(error) => matches!(code(error).as_deref(), Some("40001" | "40P01")),
            Trouble::Ours(_) | Trouble::Silent => false,
        }
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
            // The server has ended the session, or PgBouncer has lost its server.
            Trouble::Server(error) => code(error).is_some_and(|code| code.starts_with("57P") || code.starts_with("08")),
            _ => false,
        }
    }

    /// For the caller. `place` says where the server is, without the password.
    pub(crate) fn into_error(self, place: &str) -> Error {
        match self {
            Trouble::Ours(error) => error,
            Trouble::Again => Error::unavailable(format!("PostgreSQL at {place}: others were in the way too often")),
            Trouble::Silent => Error::unavailable(format!(
                "PostgreSQL at {place}: no answer in time; check that the server runs and can be reached"
            )),
            Trouble::Server(error) => explain(error, place),
        }
    }
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(|error| error.code()).map(|code| code.into_owned())
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
    Error::new(kind, format!("PostgreSQL at {place}: {said}{advice}")).with_source(error)
}

fn meaning(error: &sqlx::Error) -> (ErrorKind, &'static str) {
    let Some(code) = code(error) else {
        return match error {
            // A handshake that fails is a failure of the connection, with what was wrong in it.
            sqlx::Error::Io(e) if e.kind() == std::io::ErrorKind::InvalidData => {
                (ErrorKind::Unavailable, "check sslmode and the certificates")
            }
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => {
                (ErrorKind::Unavailable, "check that the server runs and can be reached")
            }
            sqlx::Error::Tls(_) => (ErrorKind::Unavailable, "check sslmode and the certificates"),
            sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed | sqlx::Error::Protocol(_) => {
                (ErrorKind::Unavailable, "")
            }
            sqlx::Error::Configuration(_) => (ErrorKind::Invalid, ""),
            _ => (ErrorKind::Internal, ""),
        };
    };
    match code.as_str() {
        "28P01" | "28000" => (ErrorKind::Invalid, "check the user and the password"),
        "3D000" => (ErrorKind::Invalid, "create the database first"),
        "42501" => (ErrorKind::Invalid, "this user needs CREATE on the database once, then the rights on its schema"),
        "25006" => (ErrorKind::Unavailable, "the server takes no writes: is it a standby?"),
        "42P01" | "3F000" | "42703" => {
            (ErrorKind::Incompatible, "the tables are not those of this program: was the schema dropped?")
        }
        "53100" => (ErrorKind::Full, "free some space on the server's disk"),
        "53300" => (ErrorKind::Unavailable, "raise max_connections of the server or lower those of its users"),
        "40001" | "40P01" | "55P03" | "57014" => (ErrorKind::Unavailable, "try again"),
        code if ["08", "53", "57P", "58"].iter().any(|class| code.starts_with(class)) => (ErrorKind::Unavailable, ""),
        _ => (ErrorKind::Internal, ""),
    }
}
