//! `/help [command]`: the table of commands, or one of them.

use futures_util::FutureExt;

use super::{CATALOG, Call, Command, CommandError, Context, unknown, usage};
use crate::model::{ArgInfo, CommandInfo, Reply, Role, Text};

pub const COMMAND: Command = Command {
    info: CommandInfo {
        name: "help",
        about: "Say what I can do, or how one command works",
        args: &[ArgInfo { name: "command", about: "the command to explain", required: false, completes_runs: false }],
        options: &[],
        role: Role::Viewer,
    },
    run: |context, call| help(context, call).boxed(),
};

#[expect(clippy::unused_async, reason = "the table's signature")]
async fn help(_: &Context, call: Call<'_>) -> Result<Reply, CommandError> {
    let name = call.arg(0).trim_start_matches('/').to_ascii_lowercase();
    if !name.is_empty() {
        let Some(info) = CATALOG.iter().find(|info| info.name == name) else {
            return Err(CommandError::User(unknown(&name)));
        };
        return Ok(Reply::to_asker(explained(info)));
    }
    let intro = call.tongue().say(
        "I follow DataWorks release pipelines and post what changes. A watch ends by itself with its run.",
        "我关注 DataWorks 发布流程，并发布其变化。关注会随发布结束而自动结束。",
    );
    let text = CATALOG.iter().fold(Text::default().plain(intro), |text, info| {
        text.line().code(usage(info)).plain(format!(" {}", info.about))
    });
    let more = call.tongue().say("One of them in full: ", "查看某个命令的详细说明：");
    Ok(Reply::to_asker(text.line().plain(more).code("/help <command>")))
}

/// What it does, what its words mean, and an example.
fn explained(info: &CommandInfo) -> Text {
    let text = Text::default().code(usage(info)).line().plain(format!("{}.", info.about));
    let text = info.args.iter().fold(text, |text, arg| {
        let optional = if arg.required { "" } else { " (optional)" };
        text.line().code(arg.name).plain(format!(": {}{optional}", arg.about))
    });
    let text = info.options.iter().fold(text, |text, option| {
        text.line().code(format!("{}:{}", option.name, option.example)).plain(format!(" {}", option.about))
    });
    text.line().plain("For example: ").code(example(info))
}

/// As somebody would type it.
fn example(info: &CommandInfo) -> String {
    let words = match info.name {
        "watch" => " 7b1e04c2 only:failed,waiting for:3d",
        "unwatch" | "unmute" | "status" | "why" => " 7b1e04c2",
        "mute" => " here for:2h",
        "runs" => " warehouse",
        "help" => " watch",
        _ => "",
    };
    format!("/{}{words}", info.name)
}
