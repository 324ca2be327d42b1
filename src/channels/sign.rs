//! HMAC-SHA256 in base64: how both DingTalk and Standard Webhooks sign.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

#[derive(Clone)]
pub struct Signer(Hmac<Sha256>);

impl Signer {
    /// `None` for an empty key.
    pub fn new(key: &[u8]) -> Option<Signer> {
        if key.is_empty() { None } else { Hmac::new_from_slice(key).ok().map(Signer) }
    }

    pub fn sign(&self, parts: &[&[u8]]) -> String {
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(part);
        }
        STANDARD.encode(mac.finalize().into_bytes())
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<signer>")
    }
}
