//! Where a server is, from a URL.

use std::str::FromStr;

use sqlx::ConnectOptions;
use sqlx::mysql::MySqlConnectOptions;

use crate::error::{Error, Result};

/// What a URL says.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) options: MySqlConnectOptions,
    /// `host:port/database`: what errors say, never with the password.
    pub(crate) place: String,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.place)
    }
}

impl Target {
    /// Reads `mysql://user:password@host:port/database?parameters`.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        const FORM: &str = "mysql://user:password@host:3306/database";
        let known = url.starts_with("mysql://") || url.starts_with("mariadb://");
        // The URL itself is not repeated: it may hold a password.
        let options = match MySqlConnectOptions::from_str(url) {
            Ok(options) if known => options.disable_statement_logging(),
            Ok(_) => return Err(Error::invalid(format!("the URL of a MySQL store begins as in {FORM}"))),
            Err(e) => return Err(Error::invalid(format!("not a MySQL URL such as {FORM}: {e}"))),
        };
        let Some(database) = options.get_database().filter(|database| !database.is_empty()) else {
            return Err(Error::invalid(format!("the URL of a MySQL store names a database, as in {FORM}")));
        };
        let host = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => options.get_host().to_owned(),
        };
        let place = format!("{host}:{}/{database}", options.get_port());
        Ok(Target { options, place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where() {
        let target = Target::parse("mysql://me:secret@db.example:3307/work").unwrap();
        assert_eq!(target.place, "db.example:3307/work");
        assert!(!format!("{target:?}").contains("secret"));
    }

    #[test]
    fn a_bad_url_is_refused_without_its_password() {
        for bad in ["postgres://me:secret@h/d", "mysql://me:secret@h:port/d", "secret", "mysql://me:secret@h"] {
            let message = Target::parse(bad).unwrap_err().to_string();
            assert!(!message.contains("secret"), "{message}");
        }
    }
}
