//! Whether a request is Slack's, and when Slack sent it: <https://docs.slack.dev/authentication/verifying-requests-from-slack>.

use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use crate::model::Timestamp;

/// Between a request's own time and ours, either way, in seconds.
pub(super) const WINDOW: i64 = 300;
const SIGNATURE: &str = "x-slack-signature";
const TIMESTAMP: &str = "x-slack-request-timestamp";

pub(super) struct Verifier(Hmac<Sha256>);

impl Verifier {
    pub(super) fn new(secret: &SecretString) -> Option<Verifier> {
        Hmac::new_from_slice(secret.expose_secret().as_bytes()).ok().map(Verifier)
    }

    /// The signature of a request that is genuine and of now, which makes it recognisable; `body` is as it came.
    pub(super) fn verify(&self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Option<String> {
        let (signature, timestamp) = (only(headers, SIGNATURE)?, only(headers, TIMESTAMP)?);
        let digits = (1..=12).contains(&timestamp.len()) && timestamp.bytes().all(|b| b.is_ascii_digit());
        let sent: i64 = timestamp.parse().ok().filter(|_| digits)?;
        if (now.as_second() - sent).abs() > WINDOW {
            return None;
        }
        let digest = signature.strip_prefix("v0=")?;
        // One spelling of a signature alone, so that none passes as another.
        let lower = digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'));
        let digest_bytes = hex::decode(digest).ok().filter(|_| lower)?;
        let mut mac = self.0.clone();
        for part in [b"v0:", timestamp.as_bytes(), b":", body] {
            mac.update(part);
        }
        mac.verify_slice(&digest_bytes).ok().map(|()| digest.to_owned())
    }
}

/// The value of a header that is there once, as text.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of Slack's page.
    const SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";
    const SENT: i64 = 1_531_420_618;
    const BODY: &str = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    const SIGNED: &str = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn verify(headers: &HeaderMap, body: &[u8], now: i64) -> bool {
        let verifier = Verifier::new(&SECRET.to_owned().into()).unwrap();
        verifier.verify(headers, body, Timestamp::from_second(now).unwrap()).is_some()
    }

    #[test]
    fn the_vendors_own_example_passes_within_five_minutes() {
        let genuine = headers(&[(SIGNATURE, SIGNED), (TIMESTAMP, "1531420618")]);
        for (apart, passes) in [(0, true), (300, true), (-300, true), (301, false), (-301, false), (86_400, false)] {
            assert_eq!(verify(&genuine, BODY.as_bytes(), SENT + apart), passes, "{apart} s apart");
        }
    }

    #[test]
    fn missing_doubled_and_odd_headers_do_not_pass() {
        let at = "1531420618";
        for wrong in [
            vec![],
            vec![(SIGNATURE, SIGNED)],
            vec![(TIMESTAMP, at)],
            vec![(SIGNATURE, SIGNED), (SIGNATURE, SIGNED), (TIMESTAMP, at)],
            vec![(SIGNATURE, SIGNED), (TIMESTAMP, at), (TIMESTAMP, at)],
            vec![(SIGNATURE, &SIGNED[3..]), (TIMESTAMP, at)],
            vec![(SIGNATURE, "v0="), (TIMESTAMP, at)],
            vec![(SIGNATURE, &SIGNED[..65]), (TIMESTAMP, at)],
            vec![(SIGNATURE, SIGNED), (TIMESTAMP, "1531420618.0")],
            vec![(SIGNATURE, SIGNED), (TIMESTAMP, "+1531420618")],
            vec![(SIGNATURE, SIGNED), (TIMESTAMP, "-1531420618")],
            vec![(SIGNATURE, SIGNED), (TIMESTAMP, "99999999999999999999")],
            vec![(SIGNATURE, SIGNED), (TIMESTAMP, "")],
        ] {
            assert!(!verify(&headers(&wrong), BODY.as_bytes(), SENT), "{wrong:?} passes");
        }
        let loud = SIGNED.to_uppercase().replace("V0", "v0");
        let loud = headers(&[(SIGNATURE, &loud), (TIMESTAMP, at)]);
        assert!(!verify(&loud, BODY.as_bytes(), SENT), "another spelling of the signature passes");
    }

    #[test]
    fn no_single_bit_may_differ() {
        let flipped = |text: &str, bit: usize| {
            let mut bytes = text.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        };
        let genuine = headers(&[(SIGNATURE, SIGNED), (TIMESTAMP, "1531420618")]);
        for bit in 0..BODY.len() * 8 {
            assert!(!verify(&genuine, &flipped(BODY, bit), SENT), "bit {bit} of the body");
        }
        for (name, text) in [(SIGNATURE, SIGNED), (TIMESTAMP, "1531420618")] {
            for bit in 0..text.len() * 8 {
                let mut headers = genuine.clone();
                // What no header can hold does not even arrive.
                let Ok(value) = http::HeaderValue::from_bytes(&flipped(text, bit)) else { continue };
                headers.insert(name, value);
                assert!(!verify(&headers, BODY.as_bytes(), SENT), "bit {bit} of {name}");
            }
        }
    }
}
