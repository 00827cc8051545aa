//! Where a server is, from a URL.

use std::str::FromStr;

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::database::{TLS_BUILT_IN, TlsParameters, check_built_in, flag};
use crate::error::{Error, Result};

/// What can be said of TLS.
const TLS: TlsParameters = TlsParameters {
    mode: &["sslmode", "ssl-mode"],
    files: &["sslrootcert", "ssl-root-cert", "ssl-ca", "sslcert", "ssl-cert", "sslkey", "ssl-key"],
};

/// What a URL says.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) options: PgConnectOptions,
    /// `host:port/database`: what errors say, never with the password.
    pub(crate) place: String,
    /// Parameters of ours.
    pub(crate) schema: Option<String>,
    pub(crate) pgbouncer: bool,
    pub(crate) may_migrate: bool,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.place)
    }
}

impl Target {
    /// Reads `postgres://user:password@host:port/database?parameters`. The parameters `schema`,
    /// `pgbouncer` and `migrate` are ours, the others libpq's.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        const FORM: &str = "postgres://user:password@host:5432/database";
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut schema, mut pgbouncer, mut may_migrate, mut others) = (None, false, true, Vec::new());
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=').unwrap_or((parameter, "")) {
                ("schema", name) => schema = Some(name.to_owned()),
                ("pgbouncer", value) => pgbouncer = flag("pgbouncer", value)?,
                ("migrate", value) => may_migrate = flag("migrate", value)?,
                (name, value) => {
                    TLS.check(name, value)?;
                    others.push(parameter);
                }
            }
        }
        let known = base.starts_with("postgres://") || base.starts_with("postgresql://");
        let url = if others.is_empty() { base.to_owned() } else { format!("{base}?{}", others.join("&")) };
        // The URL itself is not repeated: it may hold a password.
        let options = match PgConnectOptions::from_str(&url) {
            Ok(options) if known => options.disable_statement_logging(),
            Ok(_) => return Err(Error::invalid(format!("the URL of a PostgreSQL store begins as in {FORM}"))),
            Err(e) => return Err(Error::invalid(format!("not a PostgreSQL URL such as {FORM}: {e}"))),
        };
        let demands =
            matches!(options.get_ssl_mode(), PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull);
        check_built_in(demands, TLS_BUILT_IN)?;
        let host = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => options.get_host().to_owned(),
        };
        let database = options.get_database().unwrap_or_else(|| options.get_username());
        let place = format!("{host}:{}/{database}", options.get_port());
        Ok(Target { options, place, schema, pgbouncer, may_migrate })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_and_how() {
        let target = Target::parse("postgres://me:secret@db.example:5433/work?schema=a_b&pgbouncer=true").unwrap();
        assert_eq!(target.place, "db.example:5433/work");
        assert_eq!((target.schema.as_deref(), target.pgbouncer), (Some("a_b"), true));
        assert!(!format!("{target:?}").contains("secret"));
    }

    #[test]
    fn a_bad_url_is_refused_without_its_password() {
        for bad in
            ["mysql://me:secret@h/d", "postgres://me:secret@h:port/d", "secret", "postgres://me:secret@h/d?pgbouncer=x"]
        {
            let message = Target::parse(bad).unwrap_err().to_string();
            assert!(!message.contains("secret"), "{message}");
        }
    }
}
