//! Parameters in the URL of a database: those of ours, and what must hold for those about TLS.

use std::fs::File;

use crate::error::{Error, Result};

/// What begins the names of all parameters about TLS, whatever the engine.
const TLS_PREFIXES: [&str; 2] = ["ssl", "tls"];

/// Reads a parameter that is true or false; without a value it is true.
#[cfg(any(feature = "mysql", feature = "postgres"))]
pub(super) fn flag(name: &str, value: &str) -> Result<bool> {
    match value {
        "true" | "1" | "" => Ok(true),
        "false" | "0" => Ok(false),
        other => Err(Error::invalid(format!("{name}={other} in the URL is neither true nor false"))),
    }
}

/// The parameters about TLS that an engine knows.
#[derive(Debug)]
pub(super) struct TlsParameters {
    /// Says whether, and how much is verified.
    pub(super) mode: &'static [&'static str],
    /// Name a file in PEM.
    pub(super) files: &'static [&'static str],
}

impl TlsParameters {
    /// Refuses a parameter that would be passed over, though somebody relies on it: a mistyped name, a missing file.
    pub(super) fn check(&self, name: &str, value: &str) -> Result<()> {
        let is_about_tls = TLS_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        if !is_about_tls || self.mode.contains(&name) {
            return Ok(());
        }
        if !self.files.contains(&name) {
            let known = [self.mode, self.files].concat().join(", ");
            return Err(Error::invalid(format!("the parameter {name} in the URL is unknown; there are {known}")));
        }
        // Escaped characters are decoded when the file is used.
        if !value.contains('%') {
            File::open(value).map_err(|e| {
                Error::invalid(format!("{name} in the URL: {value} cannot be read: {e}")).with_source(e)
            })?;
        }
        Ok(())
    }
}

/// Refuses to go without TLS where it is demanded: a program without it would connect in clear text.
pub(super) fn check_built_in(demanded: bool, built_in: bool) -> Result<()> {
    if demanded && !built_in {
        return Err(Error::invalid(
            "the URL demands TLS, and this program was built without; build it with the feature `tls`",
        ));
    }
    Ok(())
}

/// Whether this program can do TLS.
pub(super) const TLS_BUILT_IN: bool = cfg!(feature = "tls");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_never_left_out_silently() {
        assert!(check_built_in(true, true).is_ok() && check_built_in(false, false).is_ok());
        assert!(check_built_in(true, false).unwrap_err().to_string().contains("feature `tls`"));
        let known = TlsParameters { mode: &["sslmode"], files: &["sslrootcert"] };
        assert!(known.check("sslmode", "require").is_ok() && known.check("application_name", "x").is_ok());
        for (name, value, says) in [
            ("ssl-mod", "require", "unknown; there are sslmode, sslrootcert"),
            ("tls", "true", "unknown"),
            ("sslrootcert", "/nowhere/ca.pem", "/nowhere/ca.pem cannot be read"),
        ] {
            let refused = known.check(name, value).unwrap_err().to_string();
            assert!(refused.contains(says), "{refused}");
        }
    }
}
