//! A PostgreSQL server of the tests' own (`tests/postgres`), and databases on it.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::watch;
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

    /// The server breaks off one connection of a replica. False when there is none.
    pub async fn cut_off_one(&self) -> bool {
        let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE application_name = 'callboard' AND datname = current_database() ORDER BY random() LIMIT 1";
        self.client(&self.name).await.query_opt(cut, &[]).await.unwrap().is_some_and(|row| row.get(0))
    }

    /// All that is in it, in another one. Nobody may be connected.
    pub async fn copy(&self) -> Database {
        let copy = Database { socket: self.socket.clone(), name: format!("{}_copy", self.name) };
        let create = format!("CREATE DATABASE {} TEMPLATE {}", copy.name, self.name);
        let until = Instant::now() + Duration::from_secs(60);
        // The server takes a moment to see that the last one has gone.
        while let Err(error) = self.client("postgres").await.batch_execute(&create).await {
            assert!(Instant::now() < until, "{error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        copy
    }

    /// A way to it that can be cut.
    pub async fn wire(&self) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = format!("postgres://callboard@127.0.0.1:{port}/{}", self.name);
        let (cut, is_cut) = watch::channel(false);
        let socket = format!("{}/.s.PGSQL.5432", self.socket);
        tokio::spawn(async move {
            while let Ok((ours, _)) = listener.accept().await {
                let Ok(theirs) = UnixStream::connect(&socket).await else { continue };
                let ((from_us, to_us), (from_them, to_them)) = (ours.into_split(), theirs.into_split());
                tokio::spawn(carry(from_us, to_them, is_cut.clone()));
                tokio::spawn(carry(from_them, to_us, is_cut.clone()));
            }
        });
        Wire { url, cut }
    }

    /// Runs what a test does behind the store's back.
    pub async fn execute(&self, sql: &str) {
        self.client(&self.name).await.batch_execute(sql).await.unwrap();
    }

    /// What a test looks at behind the store's back, all of it as text.
    pub async fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        let rows = self.client(&self.name).await.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| (0..row.len()).map(|column| row.get(column)).collect()).collect()
    }

    /// Half an hour passes, in which only the newest replica was heard of.
    pub async fn wait_half_an_hour(&self) {
        let wait = "UPDATE replicas SET since = since - interval '30 minutes', seen_at = CASE
            WHEN id = (SELECT max(id) FROM replicas) THEN seen_at ELSE seen_at - interval '30 minutes' END";
        self.execute(wait).await;
    }
}

/// While it is cut nothing gets through, and nobody is told; what was on its way arrives late.
pub struct Wire {
    pub url: String,
    cut: watch::Sender<bool>,
}

impl Wire {
    pub fn cut(&self) {
        self.cut.send_replace(true);
    }

    pub fn mend(&self) {
        self.cut.send_replace(false);
    }
}

async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut is_cut: watch::Receiver<bool>) {
    let mut bytes = vec![0; 16_384];
    while let Ok(count) = from.read(&mut bytes).await {
        if is_cut.wait_for(|cut| !cut).await.is_err() || count == 0 || to.write_all(&bytes[..count]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

impl Drop for Database {
    fn drop(&mut self) {
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let dropped =
            Command::new("psql").args(["-qh", &self.socket, "-U", "callboard", "-c", &drop, "postgres"]).status();
        assert!(dropped.is_ok_and(|status| status.success()) || std::thread::panicking(), "{} stays behind", self.name);
    }
}

/// A server of one test, which syncs what it writes, to be killed.
pub struct Server {
    script: Child,
    socket: String,
    _folder: tempfile::TempDir,
}

impl Server {
    pub fn start() -> Server {
        let folder = tempfile::tempdir().unwrap();
        let ready = folder.path().join("socket");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/postgres");
        let mut starting = Command::new(script);
        starting.arg(&ready).arg("obeys").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut script = starting.spawn().unwrap();
        let socket = loop {
            if let Ok(socket) = std::fs::read_to_string(&ready) {
                break socket.trim().to_owned();
            }
            assert!(script.try_wait().unwrap().is_none(), "PostgreSQL did not start");
            std::thread::sleep(Duration::from_millis(50));
        };
        Server { script, socket, _folder: folder }
    }

    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// Of a database on it.
    pub fn url_of(&self, name: &str) -> String {
        format!("postgres:///{name}?host={}&user=callboard", self.socket)
    }

    /// Runs what its operator does, and says what came of it.
    pub fn execute(&self, sql: &str) -> String {
        let asked = ["-qAth", &self.socket, "-U", "callboard", "-c", sql, "postgres"];
        let ran = Command::new("psql").args(asked).output().unwrap();
        assert!(ran.status.success(), "{sql}: {ran:?}");
        String::from_utf8(ran.stdout).unwrap().trim().to_owned()
    }

    /// `kill -9`
    pub fn kill(&mut self) {
        self.order("kill");
    }

    pub fn start_again(&mut self) {
        self.order("start");
    }

    fn order(&mut self, order: &str) {
        writeln!(self.script.stdin.as_mut().unwrap(), "{order}").unwrap();
        let mut said = String::new();
        BufReader::new(self.script.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "done\n", "the server does not {order}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.script.stdin.take());
        let _ = self.script.wait();
    }
}
