//! What a Nix on this machine goes by: that of the user, and that of the nix-daemon.
//!
//! Where there is a daemon it is the one that fetches, and it gets neither the environment nor the
//! configuration of the user. Which file of authorities counts was tried with Nix 2.26: `ssl-cert-file`,
//! then `NIX_SSL_CERT_FILE`, then `SSL_CERT_FILE`, then the first of the usual places that is there.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::NixConf;
use super::daemon::{DaemonEnvironment, Origin};

/// Where Nix looks for certificate authorities if nothing says where; the last two are what the libcurl
/// of other distributions has built in.
const BUNDLES: [&str; 4] = [
    "etc/ssl/certs/ca-certificates.crt",
    "nix/var/nix/profiles/default/etc/ssl/certs/ca-bundle.crt",
    "etc/pki/tls/certs/ca-bundle.crt",
    "etc/ssl/ca-bundle.pem",
];

/// Reads the environment.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Whose view it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Whoever runs this.
    User,
    /// The nix-daemon.
    Daemon,
}

/// The file of certificate authorities that counts, and why this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthoritiesFile {
    /// The file.
    pub path: PathBuf,
    /// What names it.
    pub named_by: &'static str,
}

/// What one Nix goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Whose.
    pub who: Who,
    /// The configuration.
    pub conf: NixConf,
    /// The file to which an administrator would add something.
    pub file: PathBuf,
    /// Whom it trusts to name a server.
    pub authorities: AuthoritiesFile,
    /// Its file of passwords.
    pub netrc: PathBuf,
    /// Where it remembers what caches said; nothing where that cannot be known.
    pub cache: Option<PathBuf>,
    /// Where its environment was read, for a daemon.
    pub origin: Option<Origin>,
}

impl fmt::Display for Who {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::User => "this user",
            Self::Daemon => "the nix-daemon",
        })
    }
}

impl View {
    /// The views of this machine, whose root is `root` (`/` but in tests): that of the daemon, if there is
    /// one, then that of the user.
    pub fn all(root: &Path, lookup: Lookup<'_>) -> Vec<Self> {
        let daemon = has_daemon(root, lookup).then(|| Self::of_daemon(root));
        daemon.into_iter().chain([Self::of_user(root, lookup)]).collect()
    }

    fn of_daemon(root: &Path) -> Self {
        let environment = DaemonEnvironment::find(root);
        // What it is not told it takes from the system's list of users, which says this of root.
        let home = |name: &str| (name == "HOME").then(|| root.join("root").into_os_string());
        let get = |name: &str| environment.get(name).or_else(|| home(name));
        let origin = Some(environment.origin);
        Self { origin, ..Self::new(Who::Daemon, root, &get, &[]) }
    }

    fn of_user(root: &Path, lookup: Lookup<'_>) -> Self {
        Self::new(Who::User, root, lookup, &user_files(lookup))
    }

    /// `more` are files that count after the system's.
    fn new(who: Who, root: &Path, lookup: Lookup<'_>, more: &[PathBuf]) -> Self {
        let directory =
            variable(lookup, "NIX_CONF_DIR").map_or_else(|| root.join("etc/nix"), PathBuf::from);
        let file = directory.join("nix.conf");
        let mut conf = NixConf::with_defaults();
        conf.apply_file(&file);
        more.iter().for_each(|file| conf.apply_file(file));
        if let Some(text) = variable(lookup, "NIX_CONFIG") {
            conf.apply_text(&text.to_string_lossy(), "NIX_CONFIG (environment)");
        }
        let netrc = conf.get("netrc-file").map_or_else(|| directory.join("netrc"), PathBuf::from);
        let authorities = authorities(&conf, root, lookup);
        let cache = cache_directory(lookup);
        Self { who, conf, file, authorities, netrc, cache, origin: None }
    }
}

/// As Nix finds it (`users.cc`).
fn cache_directory(lookup: Lookup<'_>) -> Option<PathBuf> {
    let own = variable(lookup, "NIX_CACHE_HOME").map(PathBuf::from);
    let shared = || variable(lookup, "XDG_CACHE_HOME").map(|home| PathBuf::from(home).join("nix"));
    let home = || variable(lookup, "HOME").map(|home| PathBuf::from(home).join(".cache/nix"));
    own.or_else(shared).or_else(home)
}

fn variable(lookup: Lookup<'_>, name: &str) -> Option<OsString> {
    lookup(name).filter(|value| !value.is_empty())
}

/// Whether a daemon listens, or systemd does so in its place.
fn has_daemon(root: &Path, lookup: Lookup<'_>) -> bool {
    let state = || {
        variable(lookup, "NIX_STATE_DIR").map_or_else(|| root.join("nix/var/nix"), PathBuf::from)
    };
    let socket = variable(lookup, "NIX_DAEMON_SOCKET_PATH").map(PathBuf::from);
    socket.unwrap_or_else(|| state().join("daemon-socket/socket")).exists()
}

/// The files of the user, the one that counts most last.
fn user_files(lookup: Lookup<'_>) -> Vec<PathBuf> {
    let split = |value: &OsStr| -> Vec<PathBuf> {
        let parts = value.as_bytes().split(|byte| *byte == b':').filter(|part| !part.is_empty());
        parts.map(|part| PathBuf::from(OsStr::from_bytes(part))).collect()
    };
    let mut files = match variable(lookup, "NIX_USER_CONF_FILES") {
        Some(named) => split(&named),
        None => {
            let home = variable(lookup, "HOME").map(|home| PathBuf::from(home).join(".config"));
            let own = variable(lookup, "XDG_CONFIG_HOME").map(PathBuf::from).or(home);
            let shared = variable(lookup, "XDG_CONFIG_DIRS").unwrap_or_else(|| "/etc/xdg".into());
            let directories = own.into_iter().chain(split(&shared));
            directories.map(|directory| directory.join("nix/nix.conf")).collect()
        }
    };
    files.reverse();
    files
}

fn authorities(conf: &NixConf, root: &Path, lookup: Lookup<'_>) -> AuthoritiesFile {
    if let Some(path) = conf.get("ssl-cert-file") {
        return AuthoritiesFile { path: path.into(), named_by: "ssl-cert-file of nix.conf" };
    }
    for name in ["NIX_SSL_CERT_FILE", "SSL_CERT_FILE"] {
        if let Some(path) = variable(lookup, name) {
            return AuthoritiesFile { path: path.into(), named_by: name };
        }
    }
    let mut usual = BUNDLES.iter().map(|bundle| root.join(bundle));
    let there = usual.clone().find(|bundle| bundle.exists()).or_else(|| usual.next());
    AuthoritiesFile { path: there.unwrap_or_default(), named_by: "the usual place" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: &str) -> PathBuf {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    fn views(root: &Path, variables: &[(&str, &Path)]) -> Vec<View> {
        let lookup = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.as_os_str().to_owned())
        };
        View::all(root, &lookup)
    }

    #[test]
    fn the_daemon_does_not_get_what_the_user_sets() {
        let own = tempfile::tempdir().unwrap();
        let root = own.path();
        write(root, "etc/nix/nix.conf", "ssl-cert-file = /system\nnetrc-file = /n\n");
        let user = write(root, "user.conf", "ssl-cert-file = /user\nextra-substituters = u\n");
        let user: &Path = &user;
        let alone = views(root, &[("NIX_USER_CONF_FILES", user)]);
        assert_eq!(alone.len(), 1);
        assert_eq!(alone[0].authorities.path, Path::new("/user"));
        assert_eq!(alone[0].netrc, Path::new("/n"));
        write(root, "nix/var/nix/daemon-socket/socket", "");
        let both = views(root, &[("NIX_USER_CONF_FILES", user)]);
        assert_eq!([both[0].who, both[1].who], [Who::Daemon, Who::User]);
        assert_eq!(both[0].authorities.path, Path::new("/system"));
        assert!(!both[0].conf.list("substituters").any(|url| url == "u"));
    }

    #[test]
    fn the_setting_wins_over_the_variables_and_these_over_the_usual_place() {
        let own = tempfile::tempdir().unwrap();
        let root = own.path();
        let [a, b] = ["/a", "/b"].map(Path::new);
        let path = |variables: &[(&str, &Path)]| views(root, variables)[0].authorities.clone();
        assert_eq!(path(&[]).path, root.join(BUNDLES[0]));
        let bundle = write(root, BUNDLES[1], "");
        assert_eq!(path(&[]).path, bundle);
        assert_eq!(path(&[("SSL_CERT_FILE", a)]).named_by, "SSL_CERT_FILE");
        assert_eq!(path(&[("SSL_CERT_FILE", a), ("NIX_SSL_CERT_FILE", b)]).path, b);
        let config = Path::new("ssl-cert-file = /c");
        let all = [("NIX_SSL_CERT_FILE", b), ("NIX_CONFIG", config)];
        assert_eq!(path(&all).path, Path::new("/c"));
    }
}
