//! `snowbank serve`

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;

use super::{CommandError, logging};
use crate::app;
use crate::config::{self, Environment, Overrides};

/// Serves the caches over HTTP.
///
/// Without any option: the host's own store and a bank, on 127.0.0.1:5000.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  snowbank serve
  snowbank serve --config /etc/snowbank.toml
  snowbank serve --data-dir /tank/snowbank --listen 0.0.0.0:5000 --listen unix:/run/snowbank/http.sock
  snowbank serve --store none
  snowbank serve --print-example-config > snowbank.toml

Each option is also a variable of the environment (SNOWBANK_CONFIG, SNOWBANK_DATA_DIR, SNOWBANK_LISTEN
with commas, SNOWBANK_STORE), and SNOWBANK_PUSH=none|token|open says who may push to the default cache.
A value comes from the file, then the environment, then a flag; the later one wins. SIGTERM finishes what is in flight, a second one exits at once; SIGHUP reads the keys again.")]
pub(super) struct ServeArguments {
    /// The configuration, TOML [example: --config /etc/snowbank.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Where caches, keys and derived state lie [example: --data-dir /tank/snowbank]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Where to listen; repeatable [example: --listen 0.0.0.0:5000 --listen unix:/run/snowbank.sock]
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,

    /// The Nix store to serve: auto, none, or the root of a chroot store [example: --store /srv/chroot]
    #[arg(long, value_name = "auto|none|ROOT")]
    store: Option<String>,

    /// Print the documented configuration with every default, and exit
    #[arg(long)]
    print_example_config: bool,
}

pub(super) fn run(arguments: &ServeArguments) -> Result<(), CommandError> {
    if arguments.print_example_config {
        // A closed pipe (`| head`) is no failure of ours.
        let _closed = std::io::stdout().write_all(config::EXAMPLE.as_bytes());
        return Ok(());
    }
    let lookup = |name: &str| std::env::var_os(name);
    let is_root = rustix::process::geteuid().is_root();
    let config = config::load(&arguments.overrides(), &Environment { lookup: &lookup, is_root })?;
    let _until_the_last_line = logging::start(&config.log);
    Ok(app::run(config)?)
}

impl ServeArguments {
    fn overrides(&self) -> Overrides {
        Overrides {
            config: self.config.clone(),
            data_dir: self.data_dir.clone(),
            listen: self.listen.clone(),
            store: self.store.clone(),
            // A directory that was removed under us: relative paths then fail where they are used.
            working_dir: std::env::current_dir().unwrap_or_else(|_| "/".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use crate::cli::Arguments;

    #[test]
    fn each_flag_is_in_the_help_with_its_variable_and_an_example() {
        let mut command = Arguments::command();
        let serve = command.find_subcommand_mut("serve").unwrap();
        let help = serve.render_long_help().to_string();
        for (flag, variable) in [
            ("--config", "SNOWBANK_CONFIG"),
            ("--data-dir", "SNOWBANK_DATA_DIR"),
            ("--listen", "SNOWBANK_LISTEN"),
            ("--store", "SNOWBANK_STORE"),
        ] {
            assert!(help.contains(variable), "{variable} in\n{help}");
            assert!(help.contains(&format!("example: {flag} ")), "{flag} in\n{help}");
        }
        assert!(help.contains("SNOWBANK_PUSH"), "{help}");
    }

    #[test]
    fn listen_may_be_given_twice() {
        let words = ["snowbank", "serve", "--listen", "127.0.0.1:1", "--listen", "unix:/x"];
        assert!(Arguments::try_parse_from(words).is_ok());
        let error = Arguments::try_parse_from(["snowbank", "serve", "--lisen", "x"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
    }
}
