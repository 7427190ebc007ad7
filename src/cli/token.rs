//! `snowbank token`

use std::io::Write as _;

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::place::PlaceArguments;
use super::{CommandError, output, time};
use crate::auth::token::{Grant, issue};
use crate::config::Config;
use crate::index::state::{Revoked, StateDb, TokenRecord};

/// Makes, lists and revokes the tokens of those who push, or read private caches.
///
/// The server need not run, and need not be told: what changes here holds from its next request on.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  snowbank token create --cache default --scope push,pull --expires 90d --name runner-3
  snowbank token create --cache team --cache docs --scope pull --expires 2027-01-31
  snowbank token create --cache '*' --scope push --expires never --json
  snowbank token ls
  snowbank token revoke a1b2c3d4

A token is shown once and kept as a hash only. Nix takes it from its netrc file, as the password:
  machine cache.example.org login snowbank password sb_…")]
pub(super) struct TokenArguments {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Makes a token and prints it, this once
    Create(CreateArguments),
    /// Lists the tokens, without their secrets
    Ls {
        #[command(flatten)]
        place: PlaceArguments,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Makes a token good for nothing, at once
    Revoke {
        /// What `snowbank token ls` calls it
        id: String,
        #[command(flatten)]
        place: PlaceArguments,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  snowbank token create --cache default --scope push,pull --expires 90d --name runner-3")]
struct CreateArguments {
    /// A cache that it is for; repeatable, and '*' is every cache
    #[arg(long, value_name = "NAME", required = true)]
    cache: Vec<String>,

    /// What it may do
    #[arg(long, value_delimiter = ',', required = true)]
    scope: Vec<Scope>,

    /// When it ends: 90d, 12h, 4w, a date, a time, or never
    #[arg(long, value_name = "90d|DATE|never")]
    expires: String,

    /// Whose it is, for `snowbank why` and `snowbank token ls` [default: its id]
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    place: PlaceArguments,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scope {
    /// Push to its caches
    Push,
    /// Read its caches, where they are private
    Pull,
    /// Say by the API what its caches are to keep, as `snowbank pin` does
    Pin,
}

pub(super) fn run(arguments: &TokenArguments) -> Result<(), CommandError> {
    match &arguments.command {
        TokenCommand::Create(arguments) => create(arguments),
        TokenCommand::Ls { place, json } => list(place, *json),
        TokenCommand::Revoke { id, place } => revoke(place, id),
    }
}

fn create(arguments: &CreateArguments) -> Result<(), CommandError> {
    let config = arguments.place.load()?;
    let now = Timestamp::now();
    let expires = time::expiry(&arguments.expires, now)
        .map_err(|why| CommandError::Usage(format!("--expires {}: {why}", arguments.expires)))?;
    if let Some(name) = &arguments.name
        && (name.is_empty() || name.len() > 100 || name.chars().any(char::is_control))
    {
        return Err(CommandError::Usage("--name: 1 to 100 bytes of one line are expected".into()));
    }
    let grant = Grant {
        name: arguments.name.clone().unwrap_or_default(),
        push: arguments.scope.contains(&Scope::Push),
        pull: arguments.scope.contains(&Scope::Pull),
        pin: arguments.scope.contains(&Scope::Pin),
        caches: caches(&arguments.cache, &config)?,
        created: now.as_second(),
        expires,
    };
    let (text, mut token) = issue(grant)?;
    if token.name.is_empty() {
        token.name.clone_from(&token.id);
    }
    StateDb::open(&config.data_dir)?.add_token(&token)?;
    let mut said = describe(&token);
    said["token"] = json!(text.as_str());
    let line = if arguments.json { said.to_string() } else { text.to_string() };
    // Whoever asked has to have it: a token that nobody saw is of no use, and stays in the list.
    writeln!(std::io::stdout(), "{line}").map_err(CommandError::Output)?;
    eprintln!("{}", advice(&token));
    Ok(())
}

/// The caches by name, or `None` for all; a name that the server does not know is a slip.
fn caches(names: &[String], config: &Config) -> Result<Option<Vec<String>>, CommandError> {
    if names.iter().any(|name| name == "*") {
        return Ok(None);
    }
    for name in names {
        if !config.caches.iter().any(|cache| cache.name == *name) {
            let known: Vec<_> = config.caches.iter().map(|cache| cache.name.as_str()).collect();
            let known = known.join(", ");
            let why = format!("--cache {name}: there is no such cache, only {known}; '*' is all");
            return Err(CommandError::Usage(why));
        }
    }
    let mut caches = names.to_vec();
    caches.sort();
    caches.dedup();
    Ok(Some(caches))
}

/// What to do with a new token. The token itself is on standard output alone.
fn advice(token: &TokenRecord) -> String {
    format!(
        "This is token {}: {}, cache {}, until {}. It is not shown again.\n\
         For Nix, put a line into the file that `netrc-file` of nix.conf names:\n  \
         machine HOST login snowbank password TOKEN\n\
         For snowbank push and the agent, set the variable SNOWBANK_TOKEN.",
        token.id,
        scopes(token).join(" and "),
        shown_caches(token),
        token.expires.map_or_else(|| "it is revoked".into(), time::show)
    )
}

fn list(place: &PlaceArguments, as_json: bool) -> Result<(), CommandError> {
    let config = place.load()?;
    let state = StateDb::open_existing(&config.data_dir)?;
    let tokens = state.map(|state| state.tokens()).transpose()?.unwrap_or_default();
    let text = if as_json {
        Value::Array(tokens.all.iter().map(describe).collect()).to_string() + "\n"
    } else {
        table(&tokens.all)
    };
    // A closed pipe (`| head`) is no failure of ours.
    let _closed = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

fn revoke(place: &PlaceArguments, id: &str) -> Result<(), CommandError> {
    let config = place.load()?;
    // A whole token says which it is as well.
    let id = id.strip_prefix("sb_").unwrap_or(id).split('_').next().unwrap_or(id);
    let state = StateDb::open_existing(&config.data_dir)?;
    let now = Timestamp::now().as_second();
    let revoked = state.map(|state| state.revoke_token(id, now)).transpose()?;
    match revoked.unwrap_or(Revoked::Unknown) {
        Revoked::Now => eprintln!("token {id} is revoked"),
        Revoked::Before => eprintln!("token {id} was revoked before"),
        Revoked::Unknown => return Err(CommandError::NoToken(id.into())),
    }
    Ok(())
}

fn describe(token: &TokenRecord) -> Value {
    json!({
        "id": token.id,
        "name": token.name,
        "caches": token.caches,
        "scopes": scopes(token),
        "created": time::show(token.created),
        "expires": token.expires.map(time::show),
        "revoked": token.revoked.map(time::show),
    })
}

fn scopes(token: &TokenRecord) -> Vec<&'static str> {
    let scopes = [("push", token.push), ("pull", token.pull), ("pin", token.pin)];
    scopes.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect()
}

fn shown_caches(token: &TokenRecord) -> String {
    token.caches.as_ref().map_or_else(|| "*".into(), |caches| caches.join(","))
}

fn table(tokens: &[TokenRecord]) -> String {
    let now = Timestamp::now().as_second();
    let mut rows = vec![["ID", "STATE", "SCOPES", "CACHES", "EXPIRES", "NAME"].map(String::from)];
    rows.extend(tokens.iter().map(|token| {
        let state = match token.expires {
            _ if token.revoked.is_some() => "revoked",
            Some(end) if now >= end => "expired",
            _ => "good",
        };
        let expires = token.expires.map_or_else(|| "never".into(), time::show);
        let name = token.name.clone();
        [
            token.id.clone(),
            state.into(),
            scopes(token).join(","),
            shown_caches(token),
            expires,
            name,
        ]
    }));
    output::table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str) -> TokenRecord {
        TokenRecord {
            id: "a1b2c3d4".into(),
            secret_hash: [1; 32],
            name: name.into(),
            push: true,
            pull: true,
            pin: false,
            caches: Some(vec!["default".into(), "team".into()]),
            created: 0,
            expires: None,
            revoked: None,
        }
    }

    #[test]
    fn the_table_says_which_tokens_are_good() {
        let tokens = [
            token("runner"),
            TokenRecord { expires: Some(86_400), pull: false, caches: None, ..token("old") },
            TokenRecord { revoked: Some(5), ..token("lost") },
        ];
        assert_eq!(
            table(&tokens),
            "ID        STATE    SCOPES     CACHES        EXPIRES               NAME\n\
             a1b2c3d4  good     push,pull  default,team  never                 runner\n\
             a1b2c3d4  expired  push       *             1970-01-02T00:00:00Z  old\n\
             a1b2c3d4  revoked  push,pull  default,team  never                 lost\n"
        );
    }

    #[test]
    fn what_is_said_of_a_token_is_not_its_hash() {
        let said = format!("{} {}", describe(&token("x")), advice(&token("x")));
        assert!(!said.contains("secret_hash") && !said.contains("1,1,1"), "{said}");
    }
}
