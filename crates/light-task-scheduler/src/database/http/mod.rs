//! What HTTP clients share, and calls to a server of ours.

#[cfg(feature = "remote")]
pub(crate) mod link;

/// The one source of ciphers; a program may have chosen another one before.
pub(crate) fn choose_ciphers() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error means that another thread was faster.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}
