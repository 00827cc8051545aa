//! `lts token`: who may use a server.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use light_task_scheduler::{Clock, Name, SystemClock};

use crate::api::{NewToken, Role, TokenFile};
use crate::batch::parse_name;
use crate::duration::parse_duration;
use crate::exit::{NOT_FOUND, OK, Problem, Result};
use crate::output;

/// Where tokens are kept if nobody says otherwise.
const FILE_DEFAULT: &str = "./lts-tokens.json";

/// Makes, lists and revokes the tokens of a server, in their file; a server that runs takes note within a second.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lts token create ada --role admin
  lts token create gpu-7 --role worker --queues video,audio --expires 90d
  lts token ls
  lts token revoke 3f2a9c11d0e4")]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    ask: Ask,
}

/// The file of tokens.
#[derive(Debug, Args)]
struct Place {
    /// The file of tokens, as the server has it
    #[arg(long, env = "LTS_TOKENS", value_name = "FILE", default_value = FILE_DEFAULT)]
    tokens: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Ask {
    /// Makes a token, and tells it this once
    Create {
        /// Whose it is, for people
        name: String,
        /// What it is good for: viewer, operator, admin, worker
        #[arg(long, value_parser = parse_role)]
        role: Role,
        /// Only for these queues [default: all]
        #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = parse_name)]
        queues: Vec<Name>,
        /// After what time it ends [default: never]
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        expires: Option<Duration>,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Lists the tokens, without their secrets
    Ls {
        /// Print a JSON object per token
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Ends a token, and the sessions that were signed in with it
    Revoke {
        /// Its id, as `ls` shows it
        id: String,
        #[command(flatten)]
        place: Place,
    },
}

/// Reads a role.
fn parse_role(text: &str) -> Result<Role, String> {
    let found = Role::ALL.into_iter().find(|role| role.as_str() == text);
    found.ok_or_else(|| format!("the roles are {}", Role::ALL.map(Role::as_str).join(", ")))
}

/// Runs it.
pub(crate) async fn run(args: TokenArgs) -> Result<u8> {
    match args.ask {
        Ask::Create { name, role, queues, expires, json, place } => {
            let expires_at = expires.map(|after| SystemClock.now() + after);
            let file = TokenFile::open(&place.tokens)?;
            let (token, text) = file.create(NewToken { name, role, queues, expires_at })?;
            if json {
                output::json(
                    &serde_json::json!({ "id": token.id, "name": token.name, "role": token.role, "token": text }),
                )?;
            } else {
                output::line(&text)?;
                output::note(&format!("kept in {} by its hash: it is not shown again", file.path().display()));
            }
        }
        Ask::Ls { json, place } => list(&TokenFile::open(&place.tokens)?, json)?,
        Ask::Revoke { id, place } => {
            if !TokenFile::open(&place.tokens)?.revoke(&id)? {
                return Err(Problem::new(NOT_FOUND, format!("there is no token {id}")));
            }
        }
    }
    Ok(OK)
}

fn list(file: &TokenFile, json: bool) -> Result<()> {
    let tokens = file.list()?;
    let queues = |queues: &[Name]| queues.iter().map(ToString::to_string).collect::<Vec<_>>();
    if json {
        return tokens.iter().try_for_each(|token| {
            output::json(&serde_json::json!({
                "id": token.id, "name": token.name, "role": token.role, "queues": queues(&token.queues),
                "created_at": token.created_at, "expires_at": token.expires_at,
            }))
        });
    }
    let row = |token: &crate::api::Token| {
        let bound = if token.queues.is_empty() { "all".to_owned() } else { queues(&token.queues).join(",") };
        let (made, ends) = (output::time(Some(token.created_at)), output::time(token.expires_at));
        vec![token.id.clone(), token.role.as_str().to_owned(), bound, made, ends, token.name.clone()]
    };
    output::table(&["ID", "ROLE", "QUEUES", "CREATED", "EXPIRES", "NAME"], &tokens.iter().map(row).collect::<Vec<_>>())
}
