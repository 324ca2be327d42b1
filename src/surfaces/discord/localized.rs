//! The commands in Chinese, as Discord shows them to those who set it so. What has no line here is shown in English.

/// Of a command by its name, or of one of its words. At most 100 characters, as Discord takes them.
pub(super) fn chinese(command: &str, word: &str) -> Option<&'static str> {
    Some(match (command, word) {
        ("watch", "") => "在此发布某次发布的每个阶段变化，直到它结束；也可关注整个工作空间或下一次发布",
        ("watch", "run") => "发布 ID、其开头、DataWorks 控制台链接、工作空间名称，或 next",
        ("watch", "only") => "只发布这些，逗号分隔：failed、waiting、finished、succeeded、stopped、stage",
        ("watch", "stages") => "只发布这些阶段，填写阶段代码，逗号分隔",
        ("watch", "for") => "到时自动停止，10m 到 30d：90m、2h、3d",
        ("watch", "to") => "发布到哪里：here、另一个房间或已配置的渠道",
        ("unwatch", "") => "停止在此发布某次发布、工作空间、下一次发布或全部；也可撤销",
        ("unwatch", "run") => "发布 ID 或其开头、工作空间、next、all 或 undo",
        ("unwatch", "more") => "next 之后填工作空间，undo 之后填要恢复的关注，all 之后填 yes",
        ("watches", "") => "列出本房间的关注",
        ("mute", "") => "在一段时间内只发布需要处理的内容：失败、等待人工和结束",
        ("mute", "for") => "多长时间，5m 到 24h；默认 1h",
        ("mute" | "unmute", "run") => "发布 ID 或其开头、工作空间、next，或 here 表示本房间的全部",
        ("unmute", "") => "恢复发布全部内容",
        ("status", "") => "逐阶段显示某次发布的当前状态",
        ("status" | "why", "run") => "发布 ID、其开头或链接",
        ("why", "") => "说明某次发布的每个变化在此如何处理，以及原因",
        ("runs", "") => "列出最近的发布",
        ("help", "") => "说明我能做什么，或某个命令的用法",
        ("help", "command") => "要说明的命令",
        (_, "workspace") => "工作空间名称",
        _ => return None,
    })
}
