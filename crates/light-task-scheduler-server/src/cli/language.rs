//! Help in the user's language. The English texts are those in the code; a dictionary has the others, line by line.

use clap::builder::StyledStr;
use clap::{Arg, Command};

/// Lines of help in simplified Chinese: a line of the help, then the same after `= `.
const SIMPLIFIED_CHINESE: &str = include_str!("help.zh-CN.txt");
/// What says which language, the first that is not empty.
const VARIABLES: [&str; 4] = ["LTS_LANG", "LC_ALL", "LC_MESSAGES", "LANG"];

/// The command line with its help in the language that the environment asks for.
pub(crate) fn in_users_language(command: Command) -> Command {
    let language = VARIABLES.iter().filter_map(|name| std::env::var(name).ok()).find(|value| !value.is_empty());
    match language {
        Some(language) if language.to_ascii_lowercase().starts_with("zh") => in_chinese(command),
        _ => command,
    }
}

fn in_chinese(mut command: Command) -> Command {
    // Only now it has the arguments and commands that clap adds by itself.
    command.build();
    translate(command.subcommand_help_heading("命令"))
}

/// A setter of a text of a command.
type Set = fn(Command, String) -> Command;

fn translate(mut command: Command) -> Command {
    let texts: [(Option<String>, Set); 3] = [
        (text(command.get_about()), |command, text| command.about(text)),
        (text(command.get_long_about()), |command, text| command.long_about(text)),
        (text(command.get_after_help()), |command, text| command.after_help(text)),
    ];
    for (text, set) in texts {
        if let Some(text) = text {
            command = set(command, lines_in_chinese(&text));
        }
    }
    let headed = |arg: Arg| {
        let heading = if arg.is_positional() { "参数" } else { "选项" };
        let (short, long) = (text(arg.get_help()), text(arg.get_long_help()));
        let arg = arg.help_heading(heading);
        let arg = short.into_iter().fold(arg, |arg, text| arg.help(lines_in_chinese(&text)));
        long.into_iter().fold(arg, |arg, text| arg.long_help(lines_in_chinese(&text)))
    };
    command.mut_args(headed).mut_subcommands(translate)
}

fn text(styled: Option<&StyledStr>) -> Option<String> {
    styled.map(ToString::to_string)
}

fn lines_in_chinese(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(|line| find(line).unwrap_or(line)).collect();
    lines.join("\n")
}

fn find(line: &str) -> Option<&'static str> {
    entries().find(|(english, _)| *english == line).map(|(_, chinese)| chinese)
}

fn entries() -> impl Iterator<Item = (&'static str, &'static str)> {
    let mut lines = SIMPLIFIED_CHINESE.lines().filter(|line| !line.is_empty());
    std::iter::from_fn(move || Some((lines.next()?, lines.next()?.strip_prefix("= ")?)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;

    use super::*;

    fn lines(command: &Command, found: &mut BTreeSet<String>) {
        let of_args = command.get_arguments().flat_map(|arg| [text(arg.get_help()), text(arg.get_long_help())]);
        let own = [text(command.get_about()), text(command.get_long_about()), text(command.get_after_help())];
        for text in own.into_iter().chain(of_args).flatten() {
            found.extend(text.lines().map(str::to_owned));
        }
        command.get_subcommands().for_each(|command| lines(command, found));
    }

    #[test]
    fn every_line_of_help_has_a_translation_and_no_translation_is_left_over() {
        let mut command = crate::cli::Cli::command();
        command.build();
        let mut all = BTreeSet::new();
        lines(&command, &mut all);
        // Examples are the same in every language.
        let prose: Vec<_> = all.iter().filter(|line| !line.is_empty() && !line.starts_with("  ")).collect();
        let missing: Vec<_> = prose.iter().filter(|line| find(line).is_none()).collect();
        assert!(missing.is_empty(), "{missing:#?}");
        let unused: Vec<_> = entries().filter(|(english, _)| !all.contains(*english)).collect();
        assert!(unused.is_empty(), "{unused:#?}");
    }

    #[test]
    fn help_is_chinese_where_it_is_asked_for() {
        let shown = in_chinese(crate::cli::Cli::command()).render_long_help().to_string();
        for words in ["持久地运行命令", "命令:", "选项:"] {
            assert!(shown.contains(words), "{words} is missing in {shown}");
        }
    }
}
