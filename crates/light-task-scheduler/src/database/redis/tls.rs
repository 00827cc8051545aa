//! TLS, as a URL demands it.

use redis::ConnectionInfo;

use crate::database::{TLS_BUILT_IN, TlsParameters, check_built_in};
use crate::error::{Error, Result};

/// What is trusted, and the certificate of this program with its key.
const CA: &str = "ssl-ca";
const CERT: &str = "ssl-cert";
const KEY: &str = "ssl-key";

/// What can be said of TLS: the scheme says whether, and everything is verified.
const TLS: TlsParameters = TlsParameters { mode: &[], files: &[CA, CERT, KEY] };

/// The contents of the files that a URL names.
#[derive(Default)]
#[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "without TLS no URL that demands it is taken"))]
pub(super) struct Files {
    ca: Option<Vec<u8>>,
    cert: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
}

/// What a URL demands; `None`: no TLS.
pub(super) fn demanded(demands: bool, query: &str) -> Result<Option<Files>> {
    check_built_in(demands, TLS_BUILT_IN)?;
    let mut files = Files::default();
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        TLS.check(name, value)?;
        let file = match name {
            CA => &mut files.ca,
            CERT => &mut files.cert,
            KEY => &mut files.key,
            _ => continue,
        };
        if !demands {
            // Somebody relies on it.
            return Err(Error::invalid(format!("{name} in the URL is about TLS, which begins with rediss://")));
        }
        let read = std::fs::read(value);
        let read = read.map_err(|e| Error::invalid(format!("{name} in the URL: {value} cannot be read: {e}")))?;
        let begins = if name == KEY { "PRIVATE KEY-----" } else { "-----BEGIN CERTIFICATE-----" };
        if !String::from_utf8_lossy(&read).contains(begins) {
            return Err(Error::invalid(format!("{name} in the URL: there is none in {value}; it must be in PEM")));
        }
        *file = Some(read);
    }
    if files.cert.is_some() != files.key.is_some() {
        return Err(Error::invalid(format!("{CERT} and {KEY} in the URL belong together; give both or none")));
    }
    Ok(demands.then_some(files))
}

/// The other parameters of a query, with what separates them from the rest of a URL.
pub(super) fn others(query: &str) -> String {
    let is_other = |pair: &&str| !pair.is_empty() && ![CA, CERT, KEY].contains(&pair.split('=').next().unwrap_or(""));
    let others: Vec<&str> = query.split('&').filter(is_other).collect();
    if others.is_empty() { String::new() } else { format!("?{}", others.join("&")) }
}

impl Files {
    /// The same node, encrypted and verified with these.
    #[cfg(feature = "tls")]
    pub(super) fn encrypt(&self, node: ConnectionInfo) -> Result<ConnectionInfo> {
        use redis::{Client, ClientTlsConfig, ConnectionAddr, TlsCertificates};

        if matches!(node.addr(), ConnectionAddr::TcpTls { insecure: true, .. }) {
            return Err(Error::invalid(
                "the URL ends with #insecure, but servers are always verified; name their ssl-ca",
            ));
        }
        crate::crypto::choose_provider();
        let own = self.cert.clone().zip(self.key.clone());
        let certificates = TlsCertificates {
            client_tls: own.map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key }),
            root_cert: self.ca.clone(),
        };
        let client = Client::build_with_tls(node, certificates);
        let client = client.map_err(|e| Error::invalid(format!("a file for TLS cannot be used: {e}")))?;
        Ok(client.get_connection_info().clone())
    }

    /// There is no TLS: who demands it was refused.
    #[cfg(not(feature = "tls"))]
    pub(super) fn encrypt(&self, _node: ConnectionInfo) -> Result<ConnectionInfo> {
        Err(Error::internal("TLS is demanded and not built in"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_about_tls_is_passed_over() {
        for (demands, query, says) in [
            (false, "ssl-ca=/dev/null", "begins with rediss://"),
            (false, "ssl-ca=/nowhere", "/nowhere cannot be read"),
            #[cfg(feature = "tls")]
            (true, "ssl-ca=/dev/null", "must be in PEM"),
            (false, "sslmode=require", "unknown; there are ssl-ca, ssl-cert, ssl-key"),
            (false, "tls=1", "unknown"),
            #[cfg(feature = "tls")]
            (true, "ssl-key=/dev/null", "must be in PEM"),
            #[cfg(not(feature = "tls"))]
            (true, "", "feature `tls`"),
        ] {
            let refused = demanded(demands, query).err().expect("it is refused").to_string();
            assert!(refused.contains(says), "{query}: {refused}");
        }
        assert!(demanded(false, "protocol=resp3").unwrap().is_none());
    }

    #[test]
    fn other_parameters_stay() {
        assert_eq!(others("ssl-ca=a&protocol=resp3&ssl-key=b"), "?protocol=resp3");
        assert_eq!(others("ssl-ca=a"), "");
    }
}
