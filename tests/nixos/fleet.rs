//! Properties of the example fleet: what must hold of each host, and of all of them together.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::nix::{hosts, nix, project};

/// A host and what is wrong with it.
pub(crate) type Complaint = String;

#[test]
fn every_file_of_nix_parses() {
    let listed = crate::nix::command("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "*.nix"])
        .current_dir(project())
        .output()
        .unwrap();
    let files: Vec<_> =
        String::from_utf8(listed.stdout).unwrap().lines().map(String::from).collect();
    assert!(files.len() > 20, "{files:?}");
    let parsed =
        nix("nix-instantiate").arg("--parse").args(&files).current_dir(project()).output().unwrap();
    assert!(parsed.status.success(), "{}", String::from_utf8_lossy(&parsed.stderr));
}

#[test]
fn the_fleet_has_every_property_that_a_fleet_must_have() {
    let complaints = complaints(hosts());
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert_eq!(hosts().as_object().unwrap().len(), 14);
}

/// Everything that is wrong with these hosts.
pub(crate) fn complaints(hosts: &Value) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    let all = hosts.as_object().unwrap();
    for (name, host) in all {
        for complaint in [
            warnings(host),
            substituters(name, host),
            secrets(host),
            trusted_users(host),
            firewall(host),
            units(host),
            disks(host),
        ]
        .concat()
        {
            complaints.push(format!("{name}: {complaint}"));
        }
    }
    complaints.extend(together(all));
    complaints
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn warnings(host: &Value) -> Vec<Complaint> {
    strings(&host["warnings"]).iter().map(|warning| format!("it warns: {warning}")).collect()
}

/// Whatever is substituted from is trusted, asked for in time, and not the machine itself.
fn substituters(name: &str, host: &Value) -> Vec<Complaint> {
    let settings = &host["settings"];
    let mut complaints = Vec::new();
    let urls = strings(&settings["substituters"]);
    let bare = |url: &str| url.split('?').next().unwrap().trim_end_matches('/').to_owned();
    let once: BTreeSet<_> = urls.iter().map(|url| bare(url)).collect();
    if once.len() != urls.len() {
        complaints.push(format!("a substituter stands twice: {urls:?}"));
    }
    let keys = strings(&settings["trusted-public-keys"]);
    if keys.iter().collect::<BTreeSet<_>>().len() != keys.len() {
        complaints.push(format!("a key stands twice: {keys:?}"));
    }
    for url in &once {
        let label = url.rsplit("//").next().unwrap().split('.').nth(1).unwrap_or_default();
        if label == name.replace('_', "-") {
            complaints.push(format!("it substitutes from itself: {url}"));
        }
        let of_it =
            |key: &&str| key.split(':').next().unwrap().replace('_', "-") == format!("{label}-1");
        if !keys.iter().any(of_it) {
            complaints.push(format!("no key that it trusts is that of {url}"));
        }
        if url.starts_with("https://") && strings(&host["certificateFiles"]).is_empty() {
            complaints.push(format!("nobody whom it trusts issues a certificate for {url}"));
        }
    }
    if !urls.is_empty() {
        let short =
            settings["connect-timeout"].as_i64().is_some_and(|seconds| (1..=10).contains(&seconds));
        if !short || settings["fallback"] != true {
            complaints.push("a cache that is away would slow its builds down, or fail them".into());
        }
        if settings["narinfo-cache-negative-ttl"].as_i64().is_none_or(|seconds| seconds > 300) {
            complaints.push("it remembers for long that a path is not there".into());
        }
    }
    complaints
}

/// No secret is in the store, nor in the arguments of a process.
fn secrets(host: &Value) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    walk(host, &mut Vec::new(), &mut |path, text| {
        let shown = path.join(".");
        let is_key = |word: &&str| {
            let base64 = word.split(':').nth(1).unwrap_or_default();
            base64.len() == 88 && base64.ends_with("==")
        };
        if text.split_whitespace().any(|word| is_key(&word)) {
            complaints.push(format!("{shown} holds a secret key"));
        }
        for word in ["glrt-", "BEGIN PRIVATE KEY", "BEGIN EC PRIVATE KEY", "sb_"] {
            if text.contains(word) {
                complaints.push(format!("{shown} holds a secret ({word}…)"));
            }
        }
        if path.last().is_some_and(|last| last == "ExecStart")
            && text.contains("CREDENTIALS_DIRECTORY=")
        {
            complaints.push(format!("{shown} has a secret in its arguments"));
        }
    });
    complaints
}

fn walk(value: &Value, path: &mut Vec<String>, see: &mut impl FnMut(&[String], &str)) {
    match value {
        Value::String(text) => see(path, text),
        Value::Array(all) => all.iter().for_each(|one| walk(one, path, see)),
        Value::Object(all) => {
            for (name, one) in all {
                path.push(name.clone());
                walk(one, path, see);
                path.pop();
            }
        }
        _ => {}
    }
}

/// Where paths are signed, nobody whom CI runs as may put any content into one.
fn trusted_users(host: &Value) -> Vec<Complaint> {
    let signs =
        !host["services"]["snowbank"].is_null() || !host["settings"]["secret-key-files"].is_null();
    let trusted = strings(&host["settings"]["trusted-users"]);
    let of_ci = ["gitlab-runner", "jenkins", "runner", "*", "@users"];
    let found = trusted.iter().find(|user| of_ci.contains(user));
    let mut complaints = Vec::new();
    if let Some(user) = found.filter(|_| signs) {
        complaints.push(format!("it signs, and {user} is one of trusted-users"));
    }
    let docker = strings(&host["groups"]["docker"]["members"]);
    if !docker.is_empty() {
        complaints.push(format!("{docker:?} in the group docker is root by another name"));
    }
    complaints
}

/// The ports of the cache are opened on named interfaces only.
fn firewall(host: &Value) -> Vec<Complaint> {
    let open: Vec<_> =
        host["firewall"]["allowedTCPPorts"].as_array().into_iter().flatten().collect();
    let mut complaints = Vec::new();
    if !open.is_empty() {
        complaints.push(format!("{open:?} are open on every interface"));
    }
    if host["firewall"]["enable"] != true {
        complaints.push("its firewall is off".into());
    }
    complaints
}

/// What is missing keeps a unit from starting, by name, and nothing else with it.
fn units(host: &Value) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for (unit, service) in host["services"].as_object().into_iter().flatten() {
        let asserted = strings(&service["unitConfig"]["AssertPathExists"]);
        for credential in strings(&service["serviceConfig"]["LoadCredential"]) {
            let file = credential.split_once(':').unwrap().1;
            if !asserted.contains(&file) {
                complaints.push(format!("{unit} does not say that {file} is missing"));
            }
        }
        if service["serviceConfig"]["StartLimitIntervalSec"] != Value::Null {
            complaints.push(format!(
                "{unit} has StartLimitIntervalSec in [Service], where it means nothing"
            ));
        }
        if unit == "snowbank-format" && !strings(&service["before"]).contains(&"snowbank.service") {
            complaints.push("the disks are not made before the server starts".into());
        }
    }
    if !host["layout"].is_null() && host["services"]["snowbank-format"].is_null() {
        complaints.push("it has a layout, and nothing makes its disks".into());
    }
    complaints
}

/// Disks by what they are, and a pool that knows its machine.
fn disks(host: &Value) -> Vec<Complaint> {
    let Some(layout) = host["layout"].as_str() else { return Vec::new() };
    let mut complaints = Vec::new();
    if ["\"/dev/nvme", "\"/dev/sd", "\"/dev/vd"].iter().any(|name| layout.contains(name)) {
        complaints.push("a disk is named as the kernel names it".into());
    }
    if host["hostId"].as_str().is_none_or(|id| id.len() != 8) {
        complaints.push("it has a pool and no hostId".into());
    }
    complaints
}

/// Of all hosts together: names, numbers and disks are each one's own.
fn together(hosts: &serde_json::Map<String, Value>) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    let mut seen: BTreeMap<(&str, String), &str> = BTreeMap::new();
    for (name, host) in hosts {
        let mut own = vec![("hostName", host["hostName"].as_str().unwrap_or_default().to_owned())];
        own.extend(host["hostId"].as_str().map(|id| ("hostId", id.to_owned())));
        let layout: Value = serde_json::from_str(host["layout"].as_str().unwrap_or("{}")).unwrap();
        for disk in layout["disk"].as_object().into_iter().flatten().map(|(_, disk)| disk) {
            let identity = disk["device"].as_str().or_else(|| disk["serial"].as_str());
            own.extend(identity.map(|identity| ("disk", identity.to_owned())));
        }
        for (what, value) in own {
            if let Some(other) = seen.insert((what, value.clone()), name) {
                complaints.push(format!("{name} and {other} have the same {what}: {value}"));
            }
        }
    }
    complaints
}
