//! Arguments in, exit status out; nothing else.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    callboard::cli::main(std::env::args_os()).await.into()
}
