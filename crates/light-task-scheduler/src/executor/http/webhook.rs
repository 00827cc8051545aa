//! Signatures after Standard Webhooks: an HMAC-SHA256 over the id, the time and the body of a message. Pure.
//!
//! Headers: `webhook-id`, `webhook-timestamp` (seconds), `webhook-signature` (`v1,` and base64, several separated by
//! spaces while a secret is rotated). Secrets are base64, with `whsec_` before it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::clock::Timestamp;
use crate::error::{Error, Result};

/// How far the time of a message may be from ours: five minutes.
pub const TOLERANCE_S: i64 = 300;
/// What a secret begins with.
const SECRET_PREFIX: &str = "whsec_";
/// What a signature of the one scheme that is understood begins with.
const SIGNATURE_PREFIX: &str = "v1,";
const MICROS_PER_S: i64 = 1_000_000;

/// Signs a message; the answer is the value of `webhook-signature`. `timestamp` is in seconds since 1970.
///
/// Fails if the secret is not base64 with `whsec_` before it.
pub fn sign(secret: &str, id: &str, timestamp: i64, body: &[u8]) -> Result<String> {
    Ok(format!("{SIGNATURE_PREFIX}{}", STANDARD.encode(mac(secret, id, timestamp, body)?.finalize().into_bytes())))
}

/// Checks a message: one of its signatures is ours, and its time is within [`TOLERANCE_S`] of now.
pub fn verify(secret: &str, id: &str, timestamp: &str, signature: &str, body: &[u8], now: Timestamp) -> Result<()> {
    let bad = || Error::invalid("the message's webhook-timestamp is not a number of seconds");
    let at: i64 = timestamp.parse().map_err(|_| bad())?;
    if at.saturating_sub(now.as_micros() / MICROS_PER_S).abs() > TOLERANCE_S {
        return Err(Error::invalid("the message was signed more than five minutes from now; look at the clocks"));
    }
    for signature in signature.split(' ').filter_map(|one| one.strip_prefix(SIGNATURE_PREFIX)) {
        let Ok(signature) = STANDARD.decode(signature) else { continue };
        // Compared in constant time.
        if mac(secret, id, at, body)?.verify_slice(&signature).is_ok() {
            return Ok(());
        }
    }
    Err(Error::invalid("the message's signature is not by our secret"))
}

fn mac(secret: &str, id: &str, timestamp: i64, body: &[u8]) -> Result<Hmac<Sha256>> {
    let key = STANDARD
        .decode(secret.strip_prefix(SECRET_PREFIX).unwrap_or(secret))
        .map_err(|_| Error::invalid("a signing secret must be base64 with `whsec_` before it"))?;
    let mut mac = keyed(&key)?;
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    Ok(mac)
}

/// A code with this key.
pub(super) fn keyed(key: &[u8]) -> Result<Hmac<Sha256>> {
    Hmac::new_from_slice(key).map_err(|e| Error::internal("a key of a message code").with_source(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn the_example_of_the_standard_is_signed_alike() {
        let body = br#"{"test": 2432232314}"#;
        let signature = sign(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body).unwrap();
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn only_the_message_that_was_signed_is_taken() {
        let now = Timestamp::from_micros(1_000 * MICROS_PER_S);
        let good = sign(SECRET, "m", 1_000, b"body").unwrap();
        let check = |id, at, signature: &str, body| verify(SECRET, id, at, signature, body, now).is_ok();
        assert!(check("m", "1000", &good, b"body"));
        assert!(check("m", "1000", &format!("v1a,xx v1,AAAA {good}"), b"body"), "one of several");
        assert!(!check("n", "1000", &good, b"body"));
        assert!(!check("m", "1001", &good, b"body"));
        assert!(!check("m", "1000", &good, b"bodY"));
        assert!(!check("m", "1000", "v1,", b"body"));
        assert!(!check("m", "now", &good, b"body"));
        let old = sign(SECRET, "m", 1_000 - TOLERANCE_S - 1, b"body").unwrap();
        assert!(!check("m", "699", &old, b"body"), "too old");
        assert!(sign("whsec_#", "m", 0, b"").is_err());
    }
}
