//! The environment of the nix-daemon, which is not that of the users it works for.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// The name of its process, as the kernel has it.
const PROCESS: &str = "nix-daemon";
/// Where systemd has what is set for it, the earlier over the later.
const UNITS: [&str; 4] = [
    "etc/systemd/system/nix-daemon.service.d",
    "run/systemd/system/nix-daemon.service.d",
    "etc/systemd/system/nix-daemon.service",
    "usr/lib/systemd/system/nix-daemon.service",
];

/// What is known of the daemon's environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonEnvironment {
    variables: Vec<(OsString, OsString)>,
    /// Where it was read.
    pub origin: Origin,
}

/// Where the environment of the daemon was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In `/proc`, of the process itself: this is all of it.
    Process,
    /// In the units of systemd: what is set elsewhere is not known.
    Units,
}

impl DaemonEnvironment {
    /// Looks for it below `root`, which is `/` but in tests.
    pub fn find(root: &Path) -> Self {
        match of_process(&root.join("proc")) {
            Some(variables) => Self { variables, origin: Origin::Process },
            None => Self { variables: of_units(root), origin: Origin::Units },
        }
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<OsString> {
        let found = self.variables.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone())
    }
}

/// The environment of the first process that is a daemon and lets itself be looked at.
fn of_process(proc: &Path) -> Option<Vec<(OsString, OsString)>> {
    let processes = std::fs::read_dir(proc).ok()?;
    let daemons = processes.filter_map(Result::ok).map(|entry| entry.path()).filter(|process| {
        std::fs::read_to_string(process.join("comm")).is_ok_and(|name| name.trim_end() == PROCESS)
    });
    daemons.filter_map(|process| std::fs::read(process.join("environ")).ok()).map(parse).next()
}

fn parse(environ: Vec<u8>) -> Vec<(OsString, OsString)> {
    let variables = environ.split(|byte| *byte == 0).filter_map(|variable| {
        let equals = variable.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (&variable[..equals], &variable[equals + 1..]);
        Some((OsString::from_vec(name.to_vec()), OsStr::from_bytes(value).to_owned()))
    });
    variables.collect()
}

fn of_units(root: &Path) -> Vec<(OsString, OsString)> {
    let files = UNITS.iter().map(|unit| root.join(unit)).flat_map(files_of);
    let texts = files.filter_map(|file| std::fs::read_to_string(file).ok());
    texts.flat_map(|text| of_unit(&text)).map(|(name, value)| (name.into(), value.into())).collect()
}

/// A unit, or the drop-ins of one: the last of them by name wins.
fn files_of(unit: PathBuf) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(&unit) else { return vec![unit] };
    let mut files: Vec<PathBuf> =
        entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    files.sort();
    files.reverse();
    files
}

/// What the lines `Environment=` of a unit set. Each holds assignments, in quotes or not.
fn of_unit(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("Environment="));
    let assignments = lines.flat_map(|line| {
        let mut quote = None;
        let mut words = vec![String::new()];
        for character in line.chars() {
            match (character, quote) {
                ('"' | '\'', None) => quote = Some(character),
                (_, Some(open)) if open == character => quote = None,
                (' ', None) => words.push(String::new()),
                _ => words.iter_mut().last().into_iter().for_each(|word| word.push(character)),
            }
        }
        words
    });
    let split = assignments.filter_map(|word| {
        word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
    });
    split.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn the_process_itself_is_believed_before_the_units() {
        let root = tempfile::tempdir().unwrap();
        let unit = "[Service]\nEnvironment=\"NIX_SSL_CERT_FILE=/a b\" X=1\nEnvironment='Y=2'\n";
        write(root.path(), UNITS[2], unit);
        let found = DaemonEnvironment::find(root.path());
        assert_eq!(found.origin, Origin::Units);
        let get = |name| found.get(name).map(|value| value.into_string().unwrap());
        assert_eq!(get("NIX_SSL_CERT_FILE").as_deref(), Some("/a b"));
        assert_eq!((get("X").as_deref(), get("Y").as_deref()), (Some("1"), Some("2")));
        write(root.path(), &format!("{}/override.conf", UNITS[0]), "Environment=X=3\n");
        assert_eq!(DaemonEnvironment::find(root.path()).get("X"), Some("3".into()));

        write(root.path(), "proc/7/comm", "bash\n");
        write(root.path(), "proc/7/environ", "X=5\0");
        write(root.path(), "proc/8/comm", "nix-daemon\n");
        write(root.path(), "proc/8/environ", "PATH=/bin\0X=4=4\0");
        let found = DaemonEnvironment::find(root.path());
        assert_eq!((found.origin, found.get("X")), (Origin::Process, Some("4=4".into())));
        assert_eq!(found.get("Y"), None);
    }
}
