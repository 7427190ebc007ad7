//! The units that the modules make, as files, in the hands of a real systemd.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::nix::{command, hosts, project};

/// Our services, and how exposed each may be, in tenths (`systemd-analyze security`).
const SERVICES: [(&str, u32); 2] = [("snowbank", 12), ("snowbank-agent", 20)];
/// The server where it has ZFS and a port of its own: to a user namespace ZFS shows no datasets, and how a pool is stands
/// in `/proc/spl`.
const WITH_ZFS_AND_A_PORT: u32 = 14;

/// A unit as NixOS writes it, with programs that are here in the place of those that are not.
fn unit(service: &Value) -> String {
    let mut text = String::from("[Unit]\n");
    let mut line = |name: &str, value: &Value| match value {
        Value::Null => {}
        Value::Bool(value) => text += &format!("{name}={value}\n"),
        Value::Array(all) => {
            for one in all {
                text += &format!("{name}={}\n", word(one));
            }
        }
        value => text += &format!("{name}={}\n", word(value)),
    };
    for (name, key) in [
        ("Description", "description"),
        ("After", "after"),
        ("Before", "before"),
        ("Requires", "requires"),
        ("Wants", "wants"),
    ] {
        line(name, &service[key]);
    }
    for (name, value) in service["unitConfig"].as_object().into_iter().flatten() {
        // What is missing here is not there to be missed.
        if name != "AssertPathExists" {
            line(name, value);
        }
    }
    text += "\n[Service]\n";
    for (name, value) in service["serviceConfig"].as_object().into_iter().flatten() {
        match value {
            Value::Array(all) => {
                all.iter().for_each(|one| text += &format!("{name}={}\n", word(one)))
            }
            Value::Null => {}
            value => text += &format!("{name}={}\n", word(value)),
        }
    }
    text
}

fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Programs of the store are not here; any will do for systemd.
fn with_programs_of_this_machine(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let is_program = line.starts_with("Exec");
        match line.split_once('=').filter(|_| is_program) {
            Some((name, value)) => {
                let rest = value.split_once(' ').map_or("", |(_, rest)| rest);
                out += &format!("{name}=/bin/true {rest}\n");
            }
            None => out += &format!("{line}\n"),
        }
    }
    out
}

fn written(directory: &Path, name: &str, service: &Value) -> std::path::PathBuf {
    let file = directory.join(format!("{name}.service"));
    fs::write(&file, with_programs_of_this_machine(&unit(service))).unwrap();
    file
}

#[test]
fn a_real_systemd_finds_nothing_wrong_with_any_unit() {
    let own = tempfile::tempdir().unwrap();
    let mut count = 0;
    for (host, config) in hosts().as_object().unwrap() {
        for (name, service) in config["services"].as_object().unwrap() {
            // The rest belongs to NixOS, which this is not.
            if !name.starts_with("snowbank") {
                continue;
            }
            let file = written(own.path(), name, service);
            let output = command("systemd-analyze")
                .args(["verify", "--man=no"])
                .arg(&file)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            // Other units of ours are not here.
            let wrong: Vec<_> = said
                .lines()
                .filter(|line| {
                    line.contains(&format!("{name}.service")) && !line.contains("not found")
                })
                .collect();
            assert!(
                wrong.is_empty(),
                "{host}: {}\n{}",
                wrong.join("\n"),
                fs::read_to_string(&file).unwrap()
            );
            count += 1;
        }
    }
    assert!(count > 15, "{count}");
}

#[test]
fn services_are_exposed_no_more_than_they_need() {
    let own = tempfile::tempdir().unwrap();
    for (host, config) in hosts().as_object().unwrap() {
        for (name, most) in SERVICES {
            let service = &config["services"][name];
            if service.is_null() {
                continue;
            }
            let settings = &service["serviceConfig"];
            let zfs = settings["PrivateUsers"] == false && settings["PrivateNetwork"] == false;
            let most = if name == "snowbank" && zfs { WITH_ZFS_AND_A_PORT } else { most };
            let file = written(own.path(), name, service);
            let output = command("systemd-analyze")
                .args(["security", "--offline=true", "--no-pager"])
                .arg(format!("--threshold={most}"))
                .arg(&file)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success(),
                "{name} of {host} is exposed more than {most}/10:\n{said}"
            );
        }
    }
}

#[test]
fn the_units_for_other_systems_are_as_good() {
    let own = tempfile::tempdir().unwrap();
    for (name, most) in SERVICES {
        let text =
            fs::read_to_string(project().join(format!("nixos/systemd/{name}.service"))).unwrap();
        let file = own.path().join(format!("{name}.service"));
        fs::write(&file, with_programs_of_this_machine(&text)).unwrap();
        let output =
            command("systemd-analyze").args(["verify", "--man=no"]).arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let wrong: Vec<_> = said.lines().filter(|line| line.contains(name)).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
        let output = command("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager", &format!("--threshold={most}")])
            .arg(&file)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}
