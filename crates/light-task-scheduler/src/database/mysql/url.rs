//! Where a server is, from a URL.

use std::str::FromStr;

use sqlx::ConnectOptions;
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};

use crate::database::{TLS_BUILT_IN, TlsParameters, check_built_in, flag};
use crate::error::{Error, Result};

/// What can be said of TLS.
const TLS: TlsParameters = TlsParameters {
    mode: &["sslmode", "ssl-mode"],
    files: &["sslca", "ssl-ca", "sslcert", "ssl-cert", "sslkey", "ssl-key"],
};

/// What a URL says.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) options: MySqlConnectOptions,
    /// `host:port/database`: what errors say, never with the password.
    pub(crate) place: String,
    /// A parameter of ours.
    pub(crate) may_migrate: bool,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.place)
    }
}

impl Target {
    /// Reads `mysql://user:password@host:port/database?parameters`. The parameter `migrate` is ours, the others
    /// are those of `sqlx`.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        const FORM: &str = "mysql://user:password@host:3306/database";
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut may_migrate, mut others) = (true, Vec::new());
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=').unwrap_or((parameter, "")) {
                ("migrate", value) => may_migrate = flag("migrate", value)?,
                (name, value) => {
                    TLS.check(name, value)?;
                    others.push(parameter);
                }
            }
        }
        let known = base.starts_with("mysql://") || base.starts_with("mariadb://");
        let url = if others.is_empty() { base.to_owned() } else { format!("{base}?{}", others.join("&")) };
        // The URL itself is not repeated: it may hold a password.
        let options = match MySqlConnectOptions::from_str(&url) {
            Ok(options) if known => options.disable_statement_logging(),
            Ok(_) => return Err(Error::invalid(format!("the URL of a MySQL store begins as in {FORM}"))),
            Err(e) => return Err(Error::invalid(format!("not a MySQL URL such as {FORM}: {e}"))),
        };
        let demands = !matches!(options.get_ssl_mode(), MySqlSslMode::Disabled | MySqlSslMode::Preferred);
        check_built_in(demands, TLS_BUILT_IN)?;
        let Some(database) = options.get_database().filter(|database| !database.is_empty()) else {
            return Err(Error::invalid(format!("the URL of a MySQL store names a database, as in {FORM}")));
        };
        let host = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => options.get_host().to_owned(),
        };
        let place = format!("{host}:{}/{database}", options.get_port());
        Ok(Target { options, place, may_migrate })
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
