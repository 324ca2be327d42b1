//! `callboard simulate`

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use clap::Args;
use ipnet::IpNet;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Exit, Globals, fail, print, stop_signal};
use crate::demo::{self, Release, dataworks};

/// Serve the simulated DataWorks alone, to try a configuration against
///
/// It speaks the wire form of API version 2024-05-18 and verifies signatures. It has one workspace, project_id 10000 in
/// cn-shanghai. Three releases live in it, and a new one starts each minute; each third waits for a person, who comes
/// after 9 seconds. What it prints is a configuration that follows it: callboard simulate > simulated.toml
#[derive(Debug, Args)]
pub struct Simulate {
    /// Where it listens; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// The same on 127.0.0.1, by the port alone
    #[arg(long, conflicts_with = "listen")]
    port: Option<u16>,
}

impl Simulate {
    pub async fn run(self, _: &Globals) -> Exit {
        let (asked, option) = match self.port {
            Some(port) => (SocketAddr::from((Ipv4Addr::LOCALHOST, port)), "--port"),
            None => (self.listen, "--listen"),
        };
        let listener = match TcpListener::bind(asked).await {
            Ok(listener) => listener,
            Err(error) => {
                return fail(
                    Exit::Failed,
                    &format!("can't listen on {asked}: {}; choose another with {option}", error.kind()),
                );
            }
        };
        let address = listener.local_addr().unwrap_or(asked);
        let world = dataworks::World::new(demo::ACCESS_KEY_ID, demo::ACCESS_KEY_SECRET);
        let releases = demo::releases(&world);
        let told = print(&configuration(reachable(address), &releases));
        if told != Exit::Done {
            return told;
        }
        let stop = CancellationToken::new();
        stop_signal(stop.clone());
        tokio::spawn(demo::live(world.clone()));
        tokio::spawn(demo::renew(world.clone()));
        match dataworks::serve(world, listener, stop).await {
            Ok(()) => Exit::Done,
            Err(error) => fail(Exit::Failed, &format!("the simulated DataWorks failed: {error}")),
        }
    }
}

/// From this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// A configuration that follows it and posts to the terminal, with what there is to know as comments.
fn configuration(address: SocketAddr, releases: &[Release]) -> String {
    let mut text =
        format!("# The simulated DataWorks listens on http://{address}. Its runs, and a new one each minute:\n#\n");
    for Release { id, name, fate } in releases {
        text.push_str(&format!("#   {id}  {name:<19}  {fate}\n"));
    }
    let (id, secret, region, project_id) =
        (demo::ACCESS_KEY_ID, demo::ACCESS_KEY_SECRET, demo::REGION, demo::PROJECT_ID);
    let network = IpNet::from(address.ip());
    text.push_str(&format!(
        r#"#
# Its one workspace is project_id {project_id} in {region}; it refuses every other. Each third run waits for a person, who
# comes after 9 s: that is told after poll.waiting_after, here 3 s, where 20 s is usual.
#
# This is a configuration that follows it. Keep it in a file, and in another terminal: callboard run --config FILE

[store]
url = "sqlite:callboard-simulated.db"

[dataworks]
endpoint = "http://{address}"
credentials = {{ access_key_id = "{id}", access_key_secret = "{secret}" }}
poll = {{ fastest = "1s", slowest = "5s", waiting_after = "3s" }}
budget = {{ edition = "enterprise" }}

[[workspaces]]
name = "warehouse"
region = "{region}"
project_id = {project_id}

[channels.terminal]
kind = "console"

[[subscriptions]]
workspace = "warehouse"
channels = ["terminal"]
on = ["started", "stage", "waiting", "finished"]

[network]
allow_private = ["{network}"]
"#
    ));
    text
}
