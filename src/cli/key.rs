//! `snowbank key`

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::CommandError;
use crate::nix::signature::KeyName;
use crate::sign::SecretKey;

/// Makes signing keys and shows their public halves.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  snowbank key generate cache.example.org-1 --out /etc/snowbank/cache.key
  snowbank key public /etc/snowbank/cache.key

To rotate: generate a key with the next number, put its file beside the old one in `signing_keys`,
send SIGHUP, add the new public key to `trusted-public-keys` of every client, and take the old file
out when no client trusts the old key alone any more.")]
pub(super) struct KeyArguments {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Makes a secret key, mode 0600, and prints its public half
    Generate {
        /// The key's name, such as cache.example.org-1; clients trust a key by name and bytes
        name: String,
        /// Where the secret key goes; an existing file is never overwritten [default: NAME.secret]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Prints the public half of a secret key, for `trusted-public-keys`
    Public {
        /// The secret key's file
        file: PathBuf,
    },
}

pub(super) fn run(arguments: &KeyArguments) -> Result<(), CommandError> {
    let key = match &arguments.command {
        KeyCommand::Generate { name, out } => {
            let name = KeyName::parse(name).map_err(CommandError::KeyName)?;
            let out = out.clone().unwrap_or_else(|| format!("{name}.secret").into());
            let key = SecretKey::generate(name)?;
            key.save(&out)?;
            key
        }
        KeyCommand::Public { file } => SecretKey::load(file)?,
    };
    // A closed pipe (`| head`) is no failure of ours.
    let _closed = writeln!(std::io::stdout(), "{}", key.public());
    Ok(())
}
