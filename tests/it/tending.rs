//! What one replica can't tend, another one does.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use callboard::app::{App, AppError, Terminal};
use callboard::channels::console::Console;
use callboard::config::{self, Config};
use callboard::model::{CommandInfo, Timestamp};
use callboard::surfaces::{Inbox, Surface};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::postgres::Database;

const PATIENCE: Duration = Duration::from_secs(60);

/// A chat that takes this replica's token, or refuses it.
struct Chat {
    takes: bool,
    /// How often it was connected to.
    connected: watch::Sender<u32>,
}

#[async_trait]
impl Surface for Chat {
    async fn run(&self, _: Inbox, _: &'static [CommandInfo], stop: CancellationToken) -> Result<(), String> {
        self.connected.send_modify(|count| *count += 1);
        if !self.takes {
            return Err("the chat refuses the token".to_owned());
        }
        stop.cancelled().await;
        Ok(())
    }
}

struct Replica {
    connected: watch::Receiver<u32>,
    running: JoinHandle<Result<(), AppError>>,
    stop: CancellationToken,
}

impl Replica {
    async fn start(config: &Config, takes: bool) -> Replica {
        let (count, connected) = watch::channel(0);
        let terminal = Terminal {
            surface: Arc::new(Chat { takes, connected: count }),
            channel: Arc::new(Console::new(Box::new(std::io::sink()))),
        };
        let app = App::build(config, Some(terminal), Arc::new(Timestamp::now)).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stop = CancellationToken::new();
        let running = tokio::spawn(app.run(listener, stop.clone()));
        Replica { connected, running, stop }
    }

    async fn connects(&mut self) {
        let connected = self.connected.wait_for(|count| *count > 0);
        tokio::time::timeout(PATIENCE, connected).await.expect("it never connects").unwrap();
    }

    async fn stop(self) -> u32 {
        self.stop.cancel();
        self.running.await.unwrap().unwrap();
        *self.connected.borrow()
    }
}

async fn config(database: &Database) -> Config {
    let folder = tempfile::tempdir().unwrap();
    let nobody = crate::sink::closed_port().await;
    let text = format!(
        r#"
[store]
url = "{}"
[dataworks]
endpoint = "http://{nobody}"
credentials = {{ access_key_id = "k", access_key_secret = "s" }}
[[workspaces]]
name = "warehouse"
region = "cn-shanghai"
project_id = 10000
[network]
allow_private = ["127.0.0.0/8"]
"#,
        database.url()
    );
    let file = folder.path().join("callboard.toml");
    std::fs::write(&file, text).unwrap();
    config::load_and_check(Some(&file), [], &|_| Vec::new()).unwrap_or_else(|invalid| panic!("{}", invalid.lines()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_that_refuses_one_replica_is_served_by_another() {
    let database = Database::create().await;
    let config = config(&database).await;
    let mut refused = Replica::start(&config, false).await;
    refused.connects().await;
    let mut good = Replica::start(&config, true).await;
    good.connects().await;
    assert_eq!(refused.stop().await, 1, "it tries again later, and not again and again");
    assert_eq!(good.stop().await, 1);
}
