//! What SQLite's errors mean to a caller.

use rusqlite::ErrorCode;

use crate::error::{Error, ErrorKind};
pub(super) use crate::store::sql::codec::unreadable;

/// Lets `?` be used on SQLite's errors.
impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        let (kind, advice) = meaning(&error);
        let message = match advice {
            "" => format!("SQLite: {error}"),
            advice => format!("SQLite: {error}; {advice}"),
        };
        Error::new(kind, message).with_source(error)
    }
}

fn meaning(error: &rusqlite::Error) -> (ErrorKind, &'static str) {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => (ErrorKind::Full, "free some space on its disk"),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (ErrorKind::Unavailable, "another process has locked the database for too long")
        }
        Some(ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory) => (ErrorKind::Unavailable, ""),
        Some(ErrorCode::CannotOpen) => (ErrorKind::Invalid, "check the path and its permissions"),
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied) => {
            (ErrorKind::Invalid, "the store must be able to write the file and its directory")
        }
        Some(ErrorCode::NotADatabase) => (ErrorKind::Incompatible, "this file is something else; choose another path"),
        Some(ErrorCode::DatabaseCorrupt) => (ErrorKind::Internal, "restore the file from a backup"),
        _ => (ErrorKind::Internal, ""),
    }
}

/// The same error for one more caller.
pub(super) fn repeat(error: &Error) -> Error {
    Error::new(error.kind(), error.to_string())
}
