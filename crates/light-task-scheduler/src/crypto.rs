//! The one source of ciphers.

/// Has rustls use ring, unless the program has chosen something else before: with two sources built in, as programs
/// may have by what else they use, rustls takes neither by itself.
pub(crate) fn choose_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error means that another thread was faster.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}
