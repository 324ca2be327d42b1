//! Everything around the program, and the program itself as a process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use callboard::demo::dataworks::{World, serve};
use callboard::store::Settings;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::sinks::Sinks;

pub const PROJECT: i64 = 10_000;
const KEY: &str = "LTAI-simulated-key";
const SECRET: &str = "simulated-access-key-secret";
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(15);

/// Of a workspace.
pub fn name(project: i64) -> String {
    if project == PROJECT { "warehouse".to_owned() } else { format!("warehouse-{project}") }
}

/// A channel of the configuration. `url` replaces that of the sink.
pub struct Way {
    pub name: String,
    pub kind: &'static str,
    pub url: Option<String>,
}

impl Way {
    pub fn of(kind: &'static str, name: impl Into<String>) -> Way {
        Way { name: name.into(), kind, url: None }
    }

    pub fn path(&self) -> String {
        Sinks::path(self.kind, &self.name)
    }
}

pub struct Place {
    pub world: World,
    pub sinks: Sinks,
    store: Option<String>,
    folder: tempfile::TempDir,
    listen: SocketAddr,
    http: reqwest::Client,
    _stop: DropGuard,
}

impl Place {
    /// `poll` is the time between two looks; every channel hears of each stage, and `on` beside.
    pub async fn new(ways: &[Way], poll: &str, on: &[&str]) -> Place {
        Place::in_groups(&[ways], poll, on).await
    }

    /// Several groups: each hears of the runs of one creator, whose id is its place among them.
    pub async fn in_groups(groups: &[&[Way]], poll: &str, on: &[&str]) -> Place {
        Place::with(None, 1, groups, poll, on).await
    }

    /// For several replicas, with the store at `url`. Workspaces have the numbers from [`PROJECT`] on; every channel
    /// hears of all.
    pub async fn shared(url: String, workspaces: i64, ways: &[Way], poll: &str) -> Place {
        Place::with(Some(url), workspaces, &[ways], poll, &[]).await
    }

    async fn with(store: Option<String>, workspaces: i64, groups: &[&[Way]], poll: &str, on: &[&str]) -> Place {
        let world = World::new(KEY, SECRET);
        let projects = PROJECT..PROJECT + workspaces;
        projects.clone().for_each(|project| world.add_workspace(project));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        tokio::spawn(serve(world.clone(), listener, stop.clone()));
        let sinks = Sinks::start().await;
        // Beside the build, not in a folder that may be memory.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let listen = closed_port().await;
        let on: Vec<&str> = ["stage"].iter().chain(on).copied().collect();
        let mut config = format!(
            r#"
[server]
listen = "{listen}"
[store]
url = "{url}"
[dataworks]
endpoint = "{endpoint}"
credentials = {{ access_key_id = "{KEY}", access_key_secret = "{SECRET}" }}
poll = {{ fastest = "{poll}", slowest = "{poll}", waiting_after = "1d" }}
budget = {{ edition = "enterprise", calls_per_second = 1000, calls_per_day = 100000000 }}
[network]
allow_private = ["127.0.0.0/8"]
"#,
            url = store.clone().unwrap_or_else(|| format!("sqlite:{}/callboard.db", folder.path().display())),
        );
        for project in projects {
            let name = name(project);
            config += &format!("[[workspaces]]\nname = \"{name}\"\nregion = \"cn-shanghai\"\nproject_id = {project}\n");
            for (number, ways) in groups.iter().enumerate() {
                let names: Vec<&str> = ways.iter().map(|way| way.name.as_str()).collect();
                config += &format!("[[subscriptions]]\nworkspace = \"{name}\"\nchannels = {names:?}\non = {on:?}\n");
                if groups.len() > 1 {
                    config += &format!("creators = [\"{number}\"]\n");
                }
            }
        }
        for way in groups.iter().copied().flatten() {
            let url = way.url.clone().unwrap_or_else(|| sinks.url(way.kind, &way.name));
            config += &format!("[channels.{}]\nkind = \"{}\"\nurl = \"{url}\"\n", way.name, way.kind);
        }
        std::fs::write(folder.path().join("callboard.toml"), config).unwrap();
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        Place { world, sinks, store, folder, listen, http, _stop: stop.drop_guard() }
    }

    pub fn store_file(&self) -> PathBuf {
        self.folder.path().join("callboard.db")
    }

    pub fn settings(&self) -> Settings {
        let file = || format!("sqlite:{}", self.store_file().display());
        Settings::of(self.store.clone().unwrap_or_else(file))
    }

    /// The program as it is started anywhere, its log in a file.
    pub fn start(&self) -> Process {
        self.start_at(self.listen)
    }

    /// One of several.
    pub fn start_at(&self, listen: SocketAddr) -> Process {
        let log = self.folder.path().join("log.txt");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_callboard"));
        command.arg("run").arg("--config").arg(self.folder.path().join("callboard.toml")).env_clear();
        command.env("CALLBOARD__SERVER__LISTEN", listen.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Process(command.spawn().unwrap())
    }

    async fn page(&self, listen: SocketAddr, path: &str) -> Option<(u16, String)> {
        let answer = self.http.get(format!("http://{listen}{path}")).send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    pub async fn ready(&self) {
        self.ready_at(self.listen).await;
    }

    pub async fn ready_at(&self, listen: SocketAddr) {
        let end = Instant::now() + PATIENCE;
        while self.page(listen, "/readyz").await.is_none_or(|(status, _)| status != 200) {
            assert!(Instant::now() < end, "it does not become ready: {}", self.log());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A figure of `/metrics`.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = self.page(self.listen, "/metrics").await?;
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log.txt")).unwrap_or_default()
    }
}

pub struct Process(Child);

impl Process {
    /// `kill -9`
    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// `STOP`, `CONT`, `TERM`.
    pub fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    /// Its exit status, once it was told to stop.
    pub fn exit(&mut self) -> Option<i32> {
        self.0.wait().unwrap().code()
    }

    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// `VmRSS`: what it holds now; `VmHWM`: the most it ever held. In KiB.
    pub fn memory(&self, name: &str) -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).ok()?;
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().strip_suffix(" kB")?.parse().ok())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port nobody listens on.
pub async fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}
