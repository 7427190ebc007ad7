//! Texts that hosts are made of, in the hands of the programs that read them.

use std::fs;

use serde_json::Value;

use crate::nix::{command, hosts, nix};

/// As NixOS writes it into nix.conf.
fn setting(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().map(setting).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

#[test]
fn a_real_nix_knows_every_setting_and_reads_it_as_it_was_meant() {
    for (host, config) in hosts().as_object().unwrap() {
        let own = tempfile::tempdir().unwrap();
        let settings = config["settings"].as_object().unwrap();
        assert!(settings.len() > 10, "{host}: {settings:?}");
        let lines: Vec<_> =
            settings.iter().map(|(name, value)| format!("{name} = {}", setting(value))).collect();
        fs::write(own.path().join("nix.conf"), lines.join("\n") + "\n").unwrap();
        let mut order = nix("nix");
        order.args(["config", "show", "--json"]).env("NIX_CONF_DIR", own.path());
        let output = order.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("warning"), "{host}: {said}");
        let read: Value = serde_json::from_slice(&output.stdout).unwrap();
        for name in
            ["substituters", "trusted-public-keys", "connect-timeout", "fallback", "min-free"]
        {
            let Some(meant) = settings.get(name) else { continue };
            let read = &read[name]["value"];
            // Lists of those two are sets to Nix.
            let sorted = |value: &Value| {
                let mut words: Vec<_> = setting(value).split(' ').map(str::to_owned).collect();
                words.sort_unstable();
                words
            };
            assert_eq!(sorted(read), sorted(meant), "{host}: {name}");
        }
    }
}

#[test]
fn a_real_systemd_makes_every_directory_for_users_that_the_host_has() {
    let mut count = 0;
    for (host, config) in hosts().as_object().unwrap() {
        let own = tempfile::tempdir().unwrap();
        let file = |path: &str| own.path().join(path);
        fs::create_dir_all(file("etc/tmpfiles.d")).unwrap();
        // Whoever is not of this host is unknown there, whoever is on this machine.
        let ids = |kind: &str| {
            let all = config[kind].as_object().unwrap().keys().cloned();
            ["root".to_owned()].into_iter().chain(all.filter(|name| name != "root")).enumerate()
        };
        let users: String =
            ids("users").map(|(id, name)| format!("{name}:x:{id}:{id}::/:/bin/sh\n")).collect();
        let groups: String = ids("groups").map(|(id, name)| format!("{name}:x:{id}:\n")).collect();
        fs::write(file("etc/passwd"), users).unwrap();
        fs::write(file("etc/group"), groups).unwrap();
        let rules: Vec<_> = config["tmpfiles"]["rules"]
            .as_array()
            .unwrap()
            .iter()
            .map(|rule| rule.as_str().unwrap())
            .collect();
        let text = rules.join("\n") + "\n";
        fs::write(file("etc/tmpfiles.d/host.conf"), text).unwrap();
        let mut order = command("systemd-tmpfiles");
        order.arg(format!("--root={}", own.path().display())).args(["--create", "host.conf"]);
        let output = order.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("host.conf"), "{host}: {said}");
        for rule in rules {
            let path = rule.split_whitespace().nth(1).unwrap();
            // Only root gives directories to others.
            if output.status.success() {
                assert!(file(path.trim_start_matches('/')).is_dir(), "{host}: {rule}: {said}");
                count += 1;
            }
        }
    }
    assert!(count > 10 || !rustix::process::geteuid().is_root(), "{count}");
}
