//! The wire of Stream mode: <https://open-dingtalk.github.io/developerpedia/docs/learn/stream/protocol>.

use reqwest::Response;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use url::Url;

use crate::net::{self, Net};

/// What robots are sent.
const MESSAGES: &str = "/v1.0/im/bot/messages/get";
/// Of an answer no more is read than this, in bytes.
const ANSWER_LIMIT: usize = 64 * 1024;

/// Why no connection can be had.
pub(super) enum NoDoor {
    /// The credentials are refused.
    Refused,
    Lost(String),
}

/// Where the next connection is to be opened: good for one, within 90 s. Holds a ticket.
pub(super) async fn open_door(net: &Net, api: &Url, id: &str, secret: &SecretString) -> Result<Url, NoDoor> {
    let lost = |reason: &str| NoDoor::Lost(reason.to_owned());
    let mut url = api.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(["v1.0", "gateway", "connections", "open"]);
    }
    let body = json!({
        "clientId": id,
        "clientSecret": secret.expose_secret(),
        "subscriptions": [{ "type": "CALLBACK", "topic": MESSAGES }],
        "ua": concat!("callboard/", env!("CARGO_PKG_VERSION")),
    });
    let (status, answer) = post(net, &url, &body).await.map_err(|NotPosted { reason, .. }| NoDoor::Lost(reason))?;
    match status {
        200..=299 => {}
        // Seen as `authFailed`.
        401 | 403 => return Err(NoDoor::Refused),
        status => return Err(NoDoor::Lost(format!("DingTalk opens no connection (status {status})"))),
    }
    let text = |name: &str| answer.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let (Some(endpoint), Some(ticket)) = (text("endpoint"), text("ticket")) else {
        return Err(lost("DingTalk named no place to connect to; is dingtalk.api right?"));
    };
    let mut door: Url = endpoint.parse().map_err(|_| lost("DingTalk named a place that is no URL"))?;
    // The ticket goes over this connection.
    if api.scheme() == "https" && door.scheme() != "wss" {
        return Err(lost("DingTalk named a connection without encryption"));
    }
    door.query_pairs_mut().append_pair("ticket", ticket);
    Ok(door)
}

/// Nobody has answered.
pub(super) struct NotPosted {
    pub(super) reason: String,
    /// Not a byte left.
    pub(super) never_left: bool,
}

/// The status, and the body as JSON; null if it is none.
pub(super) async fn post(net: &Net, url: &Url, body: &Value) -> Result<(u16, Value), NotPosted> {
    let client = net.client_for(url);
    let client = client.map_err(|refused| NotPosted { reason: refused.to_string(), never_left: true })?;
    let sent = client.post(url.clone()).json(body).send().await;
    let response = sent.map_err(|error| NotPosted { reason: net::explain(&error), never_left: error.is_connect() })?;
    let status = response.status().as_u16();
    Ok((status, serde_json::from_slice(&bounded(response).await).unwrap_or_default()))
}

/// As much as came.
async fn bounded(mut response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        if body.len() + chunk.len() > ANSWER_LIMIT {
            break;
        }
        body.extend_from_slice(&chunk);
    }
    body
}

/// What came, and the frame that answers it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Ping {
        answer: String,
    },
    /// Somebody wrote to the robot; `data` is JSON.
    Message {
        answer: String,
        data: String,
    },
    /// The connection ends soon, and wants no answer.
    Leave,
    Other,
}

pub(super) fn read(text: &str) -> Frame {
    let frame: Value = serde_json::from_str(text).unwrap_or_default();
    let part = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let headers = frame.get("headers").cloned().unwrap_or_default();
    let (kind, topic, data) = (part(&frame, "type"), part(&headers, "topic"), part(&frame, "data"));
    let answer = |data: Value| {
        let headers = json!({ "messageId": part(&headers, "messageId"), "contentType": "application/json" });
        json!({ "code": 200, "headers": headers, "message": "OK", "data": data.to_string() }).to_string()
    };
    match (kind.as_str(), topic.as_str()) {
        ("SYSTEM", "ping") => {
            let asked: Value = serde_json::from_str(&data).unwrap_or_default();
            Frame::Ping { answer: answer(json!({ "opaque": asked.get("opaque") })) }
        }
        ("SYSTEM", "disconnect") => Frame::Leave,
        ("CALLBACK", MESSAGES) => Frame::Message { answer: answer(json!({ "response": null })), data },
        _ => Frame::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answered(text: &str) -> (Value, Value) {
        let answer: Value = serde_json::from_str(text).unwrap();
        let data = serde_json::from_str(answer["data"].as_str().unwrap()).unwrap();
        (answer, data)
    }

    #[test]
    fn a_ping_is_echoed_and_a_message_acknowledged() {
        let ping = r#"{"specVersion":"1.0","type":"SYSTEM","headers":{"topic":"ping","messageId":"m1","contentType":"application/json","time":"1"},"data":"{\"opaque\":\"0dde-1\"}"}"#;
        let Frame::Ping { answer } = read(ping) else { panic!("no ping") };
        let (frame, data) = answered(&answer);
        assert_eq!((frame["code"].as_i64(), frame["headers"]["messageId"].as_str()), (Some(200), Some("m1")));
        assert_eq!(data, json!({ "opaque": "0dde-1" }));

        let message = json!({
            "type": "CALLBACK", "headers": { "topic": MESSAGES, "messageId": "m2" }, "data": "{\"msgId\":\"1\"}",
        });
        let Frame::Message { answer, data } = read(&message.to_string()) else { panic!("no message") };
        assert_eq!(data, "{\"msgId\":\"1\"}");
        assert_eq!(answered(&answer).1, json!({ "response": null }));
    }

    #[test]
    fn what_is_not_for_us_is_passed_over() {
        let frame = |kind: &str, topic: &str| json!({ "type": kind, "headers": { "topic": topic } }).to_string();
        assert_eq!(read(&frame("SYSTEM", "disconnect")), Frame::Leave);
        for (kind, topic) in [("EVENT", "*"), ("CALLBACK", "/v1.0/card/instances/callback"), ("SYSTEM", "KEEPALIVE")] {
            assert_eq!(read(&frame(kind, topic)), Frame::Other, "{kind} {topic}");
        }
    }

    proptest! {
        #[test]
        fn no_frame_is_too_much(text in prop_oneof![
            any::<String>(),
            "\\{\"type\":\"(SYSTEM|CALLBACK)\",\"headers\":(\\{\"topic\":\"(ping|disconnect)\"\\}|\\[\\]|1),\"data\":(\"\\{\"|null|\\{\\})\\}",
        ]) {
            if let Frame::Ping { answer } | Frame::Message { answer, .. } = read(&text) {
                prop_assert!(serde_json::from_str::<Value>(&answer).is_ok());
            }
        }
    }
}
