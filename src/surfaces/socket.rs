//! A WebSocket to a chat that need not be able to reach us: text frames in, text frames out. When to open one and when
//! to give it up is for who uses it.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use native_tls::TlsConnector;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config};
use url::Url;

use crate::net::{Net, Unreachable};

/// Longest message taken, in bytes; chats send a few kilobytes.
const LONGEST: usize = 1 << 20;

/// Who does not read for so long is gone.
const WRITTEN_WITHIN: Duration = Duration::from_secs(10);

pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    heard: Instant,
}

/// Why there is no connection, in words that hold no URL: most hold a ticket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    #[error("TLS can't be used; are the system's certificates readable?")]
    Tls,
    #[error("the server takes no WebSocket at that address")]
    Refused,
    #[error("the connection broke")]
    Broken,
    #[error("nothing came for too long, not even a ping")]
    Silent,
}

impl Socket {
    /// `url` begins with `wss://`, or with `ws://` for an address inside `network.allow_private`.
    pub async fn open(url: &Url, net: &Net) -> Result<Socket, SocketError> {
        let stream = net.connect(url).await?;
        let tls = TlsConnector::new().map_err(|_| SocketError::Tls)?;
        let (max_message_size, max_frame_size) = (Some(LONGEST), Some(LONGEST));
        let config = WebSocketConfig { max_message_size, max_frame_size, ..WebSocketConfig::default() };
        let connector = Some(Connector::NativeTls(tls));
        let opened = client_async_tls_with_config(url.as_str(), stream, Some(config), connector).await;
        let socket = opened.map(|(stream, _)| Socket { stream, heard: Instant::now() });
        socket.map_err(|_| SocketError::Refused)
    }

    /// The next text; pings are answered meanwhile. `None`: the other side has closed.
    pub async fn next(&mut self) -> Result<Option<String>, SocketError> {
        while let Some(message) = self.stream.next().await {
            self.heard = Instant::now();
            match message.map_err(|_| SocketError::Broken)? {
                Message::Text(text) => return Ok(Some(text)),
                Message::Close(_) => return Ok(None),
                _ => {}
            }
        }
        Ok(None)
    }

    /// As [`Socket::next`], for a server that pings: given up when not even a ping comes for `silence`.
    pub async fn next_within(&mut self, silence: Duration) -> Result<Option<String>, SocketError> {
        loop {
            let frame = timeout(silence, self.stream.next()).await.map_err(|_| SocketError::Silent)?;
            self.heard = Instant::now();
            match frame.transpose().map_err(|_| SocketError::Broken)? {
                Some(Message::Text(text)) => return Ok(Some(text)),
                Some(Message::Close(_)) | None => return Ok(None),
                Some(_) => {}
            }
        }
    }

    pub async fn send(&mut self, text: String) -> Result<(), SocketError> {
        self.write(Message::Text(text)).await
    }

    async fn write(&mut self, message: Message) -> Result<(), SocketError> {
        let written = timeout(WRITTEN_WITHIN, self.stream.send(message)).await;
        written.map_err(|_| SocketError::Silent)?.map_err(|_| SocketError::Broken)
    }

    /// Asks for a sign of life, which [`Socket::next`] takes in.
    pub async fn ping(&mut self) -> Result<(), SocketError> {
        self.write(Message::Ping(Vec::new())).await
    }

    /// For how long nothing has come, answers to pings included.
    pub fn silence(&self) -> Duration {
        self.heard.elapsed()
    }

    /// Says goodbye, as far as the other side listens.
    pub async fn close(mut self) {
        drop(timeout(WRITTEN_WITHIN, self.stream.close(None)).await);
    }
}
