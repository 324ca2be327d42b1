//! `callboard simulate`

use std::net::SocketAddr;

use clap::Args;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Exit, Globals, fail, print, stop_signal};
use crate::demo::{self, dataworks};

/// Serve the simulated DataWorks alone, to try a configuration against
///
/// It speaks the wire form of API version 2024-05-18 and verifies signatures. Three releases live in it, and a new one
/// starts each minute.
#[derive(Debug, Args)]
pub struct Simulate {
    /// Where it listens
    #[arg(long, default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
}

impl Simulate {
    pub async fn run(self, _: &Globals) -> Exit {
        let listener = match TcpListener::bind(self.listen).await {
            Ok(listener) => listener,
            Err(error) => return fail(Exit::Failed, &format!("can't listen on {}: {error}", self.listen)),
        };
        let address = listener.local_addr().unwrap_or(self.listen);
        let world = dataworks::World::new(demo::ACCESS_KEY_ID, demo::ACCESS_KEY_SECRET);
        let mut lines = vec![format!(
            "The simulated DataWorks listens on http://{address}. A configuration that follows it:\n\n\
             [dataworks]\n\
             endpoint = \"http://{address}\"\n\
             credentials = {{ access_key_id = \"{}\", access_key_secret = \"{}\" }}\n\n\
             [[workspaces]]\n\
             name = \"warehouse\"\n\
             region = \"{}\"\n\
             project_id = {}\n\n\
             [network]\n\
             allow_private = [\"{}/32\"]\n\n\
             Runs:",
            demo::ACCESS_KEY_ID,
            demo::ACCESS_KEY_SECRET,
            demo::REGION,
            demo::PROJECT_ID,
            address.ip(),
        )];
        lines.extend(
            demo::releases(&world).iter().map(|release| format!("  {}  {} {}", release.id, release.name, release.fate)),
        );
        print(&format!("{}\n", lines.join("\n")));
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
