//! `import-proxmox`, with a stand-in for the commands of Proxmox that keeps machines as files.

use std::fs;
use std::process::{Command, Output};

use crate::bench::{Bench, said};

/// FAIL is the first words of what fails. A machine is a directory with what `qm config` says of it.
const PROXMOX: &str = r#"#!/usr/bin/env bash
set -eu
words="${0##*/} $*"
printf '%s\n' "$words" >>"$LOG"
[ -z "${FAIL:-}" ] || [[ "$words" != "$FAIL"* ]] || { echo "denied" >&2; exit 255; }
echo progress: 50%
case "$words" in
  "qm config "*) cat "$MACHINES/$2" ;;
  qmrestore*) [ ! -e "$MACHINES/$2" ]; printf 'name: golden\n' >"$MACHINES/$2" ;;
  "qm set "*) shift; machine=$1; while [ "$1" != --description ]; do shift; done; sed -i "1i description: $2" "$MACHINES/$machine" ;;
  "qm template "*) printf 'template: 1\n' >>"$MACHINES/$2" ;;
  "qm destroy "*) rm "$MACHINES/$2" ;;
esac
"#;

struct Proxmox(Bench);

impl Proxmox {
    fn new() -> Self {
        let bench = Bench::new();
        bench.stand_in("qm", PROXMOX);
        bench.stand_in("qmrestore", PROXMOX);
        fs::create_dir(bench.file("machines")).unwrap();
        fs::write(bench.file("golden.vma.zst"), "a disk").unwrap();
        Self(bench)
    }

    fn order(&self) -> Command {
        let mut order = self.0.program("import-proxmox");
        order.env("MACHINES", self.0.file("machines"));
        order
    }

    fn import(&self, fail: &str, more: &[&str]) -> Output {
        let image = self.0.file("golden.vma.zst");
        let sha256 = sha256_of(&image);
        let mut order = self.order();
        order.args(["--image", image.to_str().unwrap(), "--sha256", &sha256]).args(more);
        order.env("FAIL", fail).output().unwrap()
    }

    fn machine(&self, id: &str) -> Option<String> {
        fs::read_to_string(self.0.file("machines").join(id)).ok()
    }
}

fn sha256_of(file: &std::path::Path) -> String {
    let output = crate::nix::command("sha256sum").arg(file).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

#[test]
fn an_image_becomes_a_template_once() {
    let proxmox = Proxmox::new();
    let output =
        proxmox.import("", &["--id", "9000", "--storage", "tank", "--cloud-init", "local"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "9000\n", "and no progress");
    assert!(proxmox.machine("9000").unwrap().contains("template: 1"));
    let log = proxmox.0.log();
    assert!(log.contains("9000 --storage tank --unique true"), "{log}");
    assert!(log.contains("--ide2 local:cloudinit --agent enabled=1"), "{log}");
    let again = proxmox.import("", &["--id", "9000"]);
    assert_eq!(String::from_utf8_lossy(&again.stdout), "9000\n", "{}", said(&again));
    assert_eq!(proxmox.0.log(), format!("{log}qm config 9000\n"), "it only looked");
}

#[test]
fn wherever_it_fails_no_machine_is_left_and_one_that_was_there_is_never_touched() {
    for fail in ["qmrestore", "qm set", "qm template"] {
        let proxmox = Proxmox::new();
        let output = proxmox.import(fail, &["--id", "9000"]);
        assert_eq!(output.status.code(), Some(255), "{fail}: {}", said(&output));
        assert!(output.stdout.is_empty() && proxmox.machine("9000").is_none(), "{fail}");
    }
    let proxmox = Proxmox::new();
    fs::write(proxmox.0.file("machines/9000"), "name: of somebody\n").unwrap();
    let output = proxmox.import("", &["--id", "9000"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("the machine 9000 is another one"), "{}", said(&output));
    assert_eq!(proxmox.machine("9000").unwrap(), "name: of somebody\n");
}

#[test]
fn what_is_damaged_or_makes_no_sense_is_refused_before_anything_is_run() {
    let proxmox = Proxmox::new();
    let image = proxmox.0.file("golden.vma.zst");
    let image = image.to_str().unwrap();
    let zeros = "0".repeat(64);
    let whole = ["--image", image, "--sha256", zeros.as_str(), "--id", "9000"];
    let with = |name: &str, value: &str| {
        let mut words: Vec<String> = whole.iter().map(|&word| word.to_owned()).collect();
        let at = words.iter().position(|word| word == name).unwrap();
        words[at + 1] = value.to_owned();
        words
    };
    for (words, code, why) in [
        (vec![], 2, "--image is needed"),
        (vec!["--id".to_owned()], 2, "--id takes a value"),
        (vec!["--vmid".to_owned()], 2, "there is no option --vmid"),
        (with("--id", "99"), 2, "from 100"),
        (with("--id", "9000; reboot"), 2, "from 100"),
        (with("--sha256", "abc"), 2, "64 of 0-9 a-f"),
        (with("--image", "disk.qcow2"), 2, "a .vma.zst is expected"),
        (with("--image", "gone.vma.zst"), 2, "there is no such file"),
        (with("--id", "9000"), 1, "it is another image, or was damaged on its way"),
    ] {
        let output = proxmox.order().args(&words).output().unwrap();
        let text = said(&output);
        assert_eq!(
            (output.status.code(), text.contains(why)),
            (Some(code), true),
            "{words:?}: {text}"
        );
        assert!(output.stdout.is_empty(), "{text}");
    }
    assert_eq!(proxmox.0.log(), "", "nothing was run");
    let dry = proxmox.import("", &["--id", "9000", "--dry-run"]);
    assert!(said(&dry).contains("qm template 9000"), "{}", said(&dry));
    assert!(proxmox.machine("9000").is_none());
}
