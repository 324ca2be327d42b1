//! Hears from the server when others moved something, so that nobody waits for the next look. What is not heard, because
//! the connection broke, is seen at that look.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_postgres::AsyncMessage;

use super::link::Target;

/// After a connection broke or could not be made.
const PAUSE: Duration = Duration::from_secs(1);

pub struct Listener {
    heard: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Listener {
    /// Within a tokio runtime.
    pub fn start(target: Target) -> Listener {
        let heard = Arc::new(Notify::new());
        let told = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            loop {
                let ended = listen(&target, &told).await;
                tracing::debug!(?ended, "nothing is heard of other replicas until the next try");
                tokio::time::sleep(PAUSE).await;
            }
        });
        Listener { heard, task }
    }

    /// Resolves when somebody else moved something since the last call.
    pub async fn heard(&self) {
        self.heard.notified().await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Until the connection ends.
async fn listen(target: &Target, heard: &Notify) -> Result<(), tokio_postgres::Error> {
    let (client, mut connection) = target.config.connect(target.tls.clone()).await?;
    let mut asking = pin!(client.batch_execute("LISTEN callboard"));
    let (mut listens, me) = (false, target.replica.to_string());
    loop {
        tokio::select! {
            asked = &mut asking, if !listens => {
                asked?;
                listens = true;
                // For what came before.
                heard.notify_one();
            }
            message = poll_fn(|context| connection.poll_message(context)) => match message {
                Some(Ok(AsyncMessage::Notification(told))) if told.payload() != me => heard.notify_one(),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            }
        }
    }
}
