//! `callboard completions`

use clap::Args;
use clap_complete::Shell;

use super::{Exit, Globals, command_tree, print};

/// Print the completion script of a shell
///
/// For bash, for example: callboard completions bash > ~/.local/share/bash-completion/completions/callboard
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub async fn run(self, _globals: &Globals) -> Exit {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command_tree(), "callboard", &mut script);
        print(&String::from_utf8_lossy(&script))
    }
}
