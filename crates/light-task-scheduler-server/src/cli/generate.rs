//! `lts completion`, `lts man` and `lts openapi`: what is made from the code.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::api::description;
use crate::exit::{ERROR, OK, Problem, Result};
use crate::output;

/// Prints a script with which a shell completes lts commands: bash, zsh, fish, elvish or powershell.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lts completion bash > ~/.local/share/bash-completion/completions/lts
  lts completion zsh > ~/.zfunc/_lts
  lts completion fish > ~/.config/fish/completions/lts.fish")]
pub(crate) struct CompletionArgs {
    /// The shell
    #[arg(value_enum, hide_possible_values = true)]
    shell: Shell,
}

/// Writes the man pages, lts.1 and one for each command, into a directory.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  lts man ~/.local/share/man/man1 && man lts-task-ls")]
pub(crate) struct ManArgs {
    /// The directory; it is made if there is none
    directory: PathBuf,
}

/// Prints the description of the HTTP API (OpenAPI 3.1, JSON).
#[derive(Debug, Args)]
#[command(after_help = "Example:
  lts openapi > openapi.json")]
pub(crate) struct OpenApiArgs {}

/// Runs `lts completion`.
pub(crate) fn completion(args: &CompletionArgs) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "lts", &mut script);
    output::bytes(&script)?;
    Ok(OK)
}

/// Runs `lts man`.
pub(crate) fn man(args: &ManArgs) -> Result<u8> {
    let failed = |error: std::io::Error| {
        Problem::new(ERROR, format!("cannot write man pages to {}: {error}", args.directory.display()))
    };
    std::fs::create_dir_all(&args.directory).map_err(failed)?;
    clap_mangen::generate_to(super::Cli::command(), &args.directory).map_err(failed)?;
    Ok(OK)
}

/// Runs `lts openapi`.
pub(crate) fn openapi() -> Result<u8> {
    // By way of a value: its keys are in order.
    let text = serde_json::to_value(description())
        .and_then(|value| serde_json::to_string_pretty(&value))
        .map_err(|error| Problem::new(ERROR, format!("the description cannot be written: {error}")))?;
    output::line(&text)?;
    Ok(OK)
}
