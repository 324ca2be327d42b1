//! A PostgreSQL server of the tests' own (`tests/postgres`), and databases on it.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

/// The folder of the server's socket. Whichever test comes first starts it; it ends when nobody has used it for a while.
fn server() -> String {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::create_dir_all(folder).unwrap();
    let lock = File::create(folder.join("postgres.lock")).unwrap();
    lock.lock().unwrap();
    let ready = folder.join("postgres.socket");
    let answering = || {
        let socket = std::fs::read_to_string(&ready).ok()?;
        let asked = Command::new("psql")
            .args(["-h", socket.trim(), "-U", "callboard", "-c", "SELECT 1", "postgres"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        asked.is_ok_and(|status| status.success()).then(|| socket.trim().to_owned())
    };
    if let Some(socket) = answering() {
        return socket;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/postgres");
    let log = File::create(folder.join("postgres.log")).unwrap();
    let mut starting = Command::new("setsid");
    starting.arg("--fork").arg(script).arg(&ready).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    assert!(starting.status().unwrap().success(), "{starting:?}");
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(socket) = answering() {
            return socket;
        }
        let log = || std::fs::read_to_string(folder.join("postgres.log")).unwrap_or_default();
        assert!(Instant::now() < until, "PostgreSQL did not start:\n{}", log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// One that nobody else uses. Dropped with its name.
pub struct Database {
    socket: String,
    pub name: String,
}

impl Database {
    pub async fn create() -> Database {
        let database = Database { socket: server(), name: format!("t{}", Uuid::new_v4().simple()) };
        database.client("postgres").await.batch_execute(&format!("CREATE DATABASE {}", database.name)).await.unwrap();
        database
    }

    pub fn url(&self) -> String {
        format!("postgres:///{}?host={}&user=callboard", self.name, self.socket)
    }

    async fn client(&self, name: &str) -> Client {
        let config = format!("host={} user=callboard dbname={name}", self.socket);
        let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Runs what a test does behind the store's back.
    pub async fn execute(&self, sql: &str) {
        self.client(&self.name).await.batch_execute(sql).await.unwrap();
    }

    /// An hour passes for every replica, in which nothing was heard of it.
    pub async fn hush(&self) {
        let hush = "DO $$ BEGIN IF to_regclass('replicas') IS NOT NULL THEN
            UPDATE replicas SET seen_at = seen_at - interval '30 minutes'; END IF; END $$";
        self.execute(hush).await;
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let dropped =
            Command::new("psql").args(["-qh", &self.socket, "-U", "callboard", "-c", &drop, "postgres"]).status();
        assert!(dropped.is_ok_and(|status| status.success()) || std::thread::panicking(), "{} stays behind", self.name);
    }
}
