//! `/help`: the table of commands.

use futures_util::FutureExt;

use super::{CATALOG, Call, Command, CommandError, Context, usage};
use crate::model::{CommandInfo, Reply, Role, Text};

pub const COMMAND: Command = Command {
    info: CommandInfo { name: "help", about: "Say what I can do", args: &[], options: &[], role: Role::Viewer },
    run: |context, call| help(context, call).boxed(),
};

#[expect(clippy::unused_async, reason = "the table's signature")]
async fn help(_: &Context, _: Call<'_>) -> Result<Reply, CommandError> {
    let intro = "I follow DataWorks release pipelines and post what changes. A watch ends by itself with its run.";
    let text = CATALOG.iter().fold(Text::default().plain(intro), |text, info| {
        text.line().code(usage(info)).plain(format!(" {}", info.about))
    });
    Ok(Reply::to_asker(text))
}
