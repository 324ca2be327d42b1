//! ACS3-HMAC-SHA256, the signature of Alibaba Cloud's OpenAPI: pure, the same for the client and for the simulated
//! DataWorks that verifies it.
//!
//! <https://www.alibabacloud.com/help/en/doc-detail/2593177.htm>

use std::fmt::Write as _;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

pub const ALGORITHM: &str = "ACS3-HMAC-SHA256";

/// The header that carries the hash of the body; [`sign`] adds it to what is signed.
pub const CONTENT_SHA256: &str = "x-acs-content-sha256";

/// What a signature covers. Not printable: a security token is among the headers.
#[derive(Clone, Copy)]
pub struct Unsigned<'a> {
    pub method: &'a str,
    /// As the Host header says it: with the port when that is not the scheme's own.
    pub host: &'a str,
    pub path: &'a str,
    /// Names and values as they are meant, not encoded, in any order.
    pub query: &'a [(&'a str, &'a str)],
    /// The headers to sign beside `host` and `x-acs-content-sha256`, which are always signed, names in lower case.
    pub headers: &'a [(&'a str, &'a str)],
    pub body: &'a [u8],
}

/// A signature with every step that led to it.
#[derive(Clone, PartialEq, Eq)]
pub struct Signed {
    /// The very text to send as the query.
    pub canonical_query: String,
    /// The value of [`CONTENT_SHA256`].
    pub payload_sha256: String,
    pub canonical_request: String,
    pub string_to_sign: String,
    pub signature: String,
    /// The value of the Authorization header.
    pub authorization: String,
}

/// Signs a request. Deterministic: date and nonce are among the headers.
pub fn sign(request: &Unsigned<'_>, access_key_id: &str, access_key_secret: &str) -> Signed {
    let canonical_query = canonical_query(request.query);
    let payload_sha256 = hex::encode(Sha256::digest(request.body));

    let mut headers: Vec<(String, &str)> = request
        .headers
        .iter()
        .copied()
        .chain([("host", request.host), (CONTENT_SHA256, payload_sha256.as_str())])
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim()))
        .collect();
    headers.sort();
    let canonical_headers: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
    let signed_headers = names.join(";");

    let canonical_request =
        [request.method, request.path, &canonical_query, &canonical_headers, &signed_headers, &payload_sha256]
            .join("\n");
    let string_to_sign = format!("{ALGORITHM}\n{}", hex::encode(Sha256::digest(canonical_request.as_bytes())));
    let signature = hmac_sha256_hex(access_key_secret.as_bytes(), string_to_sign.as_bytes());
    let authorization =
        format!("{ALGORITHM} Credential={access_key_id},SignedHeaders={signed_headers},Signature={signature}");
    Signed { canonical_query, payload_sha256, canonical_request, string_to_sign, signature, authorization }
}

/// Sorted by name in byte order, encoded, joined; empty without parameters.
pub fn canonical_query(query: &[(&str, &str)]) -> String {
    let mut pairs: Vec<(String, String)> =
        query.iter().map(|(name, value)| (percent_encode(name), percent_encode(value))).collect();
    pairs.sort();
    let pairs: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

/// Leaves `A-Z a-z 0-9 - _ . ~` as they are, writes every other byte as `%XX`.
pub fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String never fails.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

fn hmac_sha256_hex(key: &[u8], text: &[u8]) -> String {
    // HMAC takes a key of any length, so the error never happens; an empty signature would be refused.
    Hmac::<Sha256>::new_from_slice(key)
        .map(|mac| hex::encode(mac.chain_update(text).finalize().into_bytes()))
        .unwrap_or_default()
}

/// What an Authorization header of this algorithm says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authorization<'a> {
    pub access_key_id: &'a str,
    pub signed_headers: &'a str,
    pub signature: &'a str,
}

impl<'a> Authorization<'a> {
    /// Strict: this algorithm, these three parts, in this order.
    pub fn parse(header: &'a str) -> Option<Authorization<'a>> {
        let parts = header.strip_prefix(ALGORITHM)?.strip_prefix(' ')?;
        let (credential, rest) = parts.split_once(',')?;
        let (signed_headers, signature) = rest.split_once(',')?;
        Some(Authorization {
            access_key_id: credential.strip_prefix("Credential=")?,
            signed_headers: signed_headers.strip_prefix("SignedHeaders=")?,
            signature: signature.strip_prefix("Signature=")?,
        })
    }
}

/// Why a signed request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the Authorization header is missing or not of this algorithm")]
    Incomplete,
    #[error("a header that must be signed is not")]
    Unsigned,
    #[error("the body is not the one that was signed")]
    Body,
    #[error("the signature does not match")]
    Mismatch,
}

/// Checks a received request whose Authorization header is `authorization`. `headers` of the request are all that
/// came: `host`, `content-type` and every `x-acs-*` among them must have been signed.
pub fn verify(request: &Unsigned<'_>, authorization: &str, access_key_secret: &str) -> Result<(), Refused> {
    let claimed = Authorization::parse(authorization).ok_or(Refused::Incomplete)?;
    let names: Vec<&str> = claimed.signed_headers.split(';').collect();
    let must_sign = |name: &str| name == "content-type" || name.starts_with("x-acs-");
    let missed = request.headers.iter().any(|(name, _)| must_sign(name) && !names.contains(name));
    if missed || !names.contains(&"host") || !names.contains(&CONTENT_SHA256) {
        return Err(Refused::Unsigned);
    }
    // These two sign() takes from the request itself.
    let given = |name: &str| name != "host" && name != CONTENT_SHA256 && names.contains(&name);
    let headers: Vec<(&str, &str)> = request.headers.iter().copied().filter(|(name, _)| given(name)).collect();
    let expected = sign(&Unsigned { headers: &headers, ..*request }, claimed.access_key_id, access_key_secret);
    if request.headers.iter().any(|(name, value)| *name == CONTENT_SHA256 && *value != expected.payload_sha256) {
        return Err(Refused::Body);
    }
    if expected.authorization == authorization { Ok(()) } else { Err(Refused::Mismatch) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Vectors {
        vectors: Vec<Vector>,
    }

    #[derive(Deserialize)]
    struct Vector {
        name: String,
        access_key_id: String,
        access_key_secret: String,
        method: String,
        host: String,
        path: String,
        query: BTreeMap<String, String>,
        headers: BTreeMap<String, String>,
        body: String,
        canonical_query: String,
        payload_sha256: String,
        canonical_request: String,
        string_to_sign: String,
        signature: String,
        authorization: String,
    }

    fn vectors() -> Vec<Vector> {
        let text = include_str!("../../../tests/data/acs3-vectors.json");
        serde_json::from_str::<Vectors>(text).expect("the vectors are JSON").vectors
    }

    fn with_parts<T>(vector: &Vector, check: impl FnOnce(Unsigned<'_>, &[(&str, &str)]) -> T) -> T {
        // Reversed, so that nothing passes because the input happened to be sorted.
        let query: Vec<(&str, &str)> = vector.query.iter().rev().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let all: Vec<(&str, &str)> = vector.headers.iter().rev().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let headers: Vec<(&str, &str)> =
            all.iter().copied().filter(|(name, _)| !["host", CONTENT_SHA256].contains(name)).collect();
        let request = Unsigned {
            method: &vector.method,
            host: &vector.host,
            path: &vector.path,
            query: &query,
            headers: &headers,
            body: vector.body.as_bytes(),
        };
        check(request, &all)
    }

    #[test]
    fn every_published_vector_is_reproduced_step_by_step() {
        let vectors = vectors();
        assert_eq!(vectors.len(), 12, "11 vectors and the worked example of the documentation");
        for vector in vectors {
            let name = &vector.name;
            let signed =
                with_parts(&vector, |request, _| sign(&request, &vector.access_key_id, &vector.access_key_secret));
            assert_eq!(signed.canonical_query, vector.canonical_query, "{name}: canonical query");
            assert_eq!(signed.payload_sha256, vector.payload_sha256, "{name}: payload hash");
            assert_eq!(signed.canonical_request, vector.canonical_request, "{name}: canonical request");
            assert_eq!(signed.string_to_sign, vector.string_to_sign, "{name}: string to sign");
            assert_eq!(signed.signature, vector.signature, "{name}: signature");
            assert_eq!(signed.authorization, vector.authorization, "{name}: Authorization");
        }
    }

    #[test]
    fn every_vector_verifies_and_a_wrong_secret_does_not() {
        for vector in vectors() {
            with_parts(&vector, |request, all| {
                let received = Unsigned { headers: all, ..request };
                let verify = |secret: &str| verify(&received, &vector.authorization, secret);
                assert_eq!(verify(&vector.access_key_secret), Ok(()), "{}", vector.name);
                assert_eq!(verify("another secret"), Err(Refused::Mismatch), "{}", vector.name);
            });
        }
    }

    #[test]
    fn a_request_changed_on_the_way_is_refused() {
        let vectors = vectors();
        let vector = vectors.iter().find(|v| v.name == "get_pipeline_run").expect("it is there");
        let refusal = |change: &dyn Fn(&mut Unsigned<'_>)| {
            with_parts(vector, |request, all| {
                let mut received = Unsigned { headers: all, ..request };
                change(&mut received);
                verify(&received, &vector.authorization, &vector.access_key_secret)
            })
        };
        assert_eq!(refusal(&|r| r.query = &[("Id", "another"), ("ProjectId", "10000")]), Err(Refused::Mismatch));
        assert_eq!(refusal(&|r| r.method = "POST"), Err(Refused::Mismatch));
        assert_eq!(refusal(&|r| r.host = "elsewhere.example"), Err(Refused::Mismatch));
        assert_eq!(refusal(&|r| r.body = b"x"), Err(Refused::Body));
        assert_eq!(refusal(&|r| r.headers = &[("x-acs-extra", "1")]), Err(Refused::Unsigned));
    }

    #[test]
    fn reserved_characters_and_unicode_are_encoded_by_byte() {
        assert_eq!(percent_encode("aZ09-_.~"), "aZ09-_.~");
        assert_eq!(percent_encode(" *+/=&?#%\n"), "%20%2A%2B%2F%3D%26%3F%23%25%0A");
        assert_eq!(percent_encode("é😀"), "%C3%A9%F0%9F%98%80");
    }

    #[test]
    fn only_a_well_formed_authorization_is_read() {
        for text in ["", "Bearer x", "ACS3-HMAC-SHA256", "ACS3-HMAC-SHA256 Credential=a, SignedHeaders=b,Signature=c"] {
            assert_eq!(Authorization::parse(text), None, "{text:?}");
        }
    }
}
