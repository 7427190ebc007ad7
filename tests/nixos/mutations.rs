//! Mistakes that somebody could make in the fleet: each must be caught, by the evaluation or by the properties. If one
//! is not, the tests have a hole.

use std::fs;
use std::path::Path;

use crate::fleet::complaints;
use crate::nix::{command, hosts_of, project};

/// A file below `nixos`, what stands there, and what somebody writes instead.
const MISTAKES: [(&str, &str, &str); 30] = [
    // Options that do not exist, and values of other types.
    ("hosts/common.nix", "settings.PasswordAuthentication", "setings.PasswordAuthentication"),
    (
        "hosts/on-prem-runner.nix",
        "virtualisation.libvirtd.enable = true",
        "virtualisation.libvirt.enable = true",
    ),
    ("hosts/on-prem-runner.nix", "RouteMetric = 100", "RouteMetric = [ 100 ]; } // { x = \"y\""),
    ("hosts/cache-runner.nix", "cache.default.push = \"token\"", "cache.default.psuh = \"token\""),
    ("hosts/ec2.nix", "fleet.gitlabRunner.concurrent = 4", "fleet.gitlabRunner.concurrent = 0"),
    (
        "hosts/zfs-proto-common.nix",
        "firewallInterfaces = [ \"cluster\" ]",
        "firewallInterfaces = \"cluster\"",
    ),
    // Names and numbers that are another's.
    ("hosts/zfs-proto-2.nix", "5e1c0b02", "5e1c0b01"),
    ("hosts/zfs-proto-3.nix", "zfs-proto-3", "zfs-proto-2"),
    ("hosts/ec2-graviton.nix", "vol0b0b0000000000000a", "vol0a11ce0000000000a"),
    ("hosts/ec2-x86_64.nix", "5e1c0a01", "5e1c0a1"),
    // Substituters that cannot be used, or are oneself.
    ("hosts/ec2-x86_64.nix", "\"on-prem-runner\"", "\"ec2-x86_64\""),
    ("hosts/ec2-x86_64.nix", "\"on-prem-runner\"", "\"on-prem\""),
    ("hosts/cache-runner.nix", "inherit (cache) url publicKeys;", "inherit (cache) url;"),
    ("hosts/common.nix", "rootCertificates = [ ./example-root.pem ];", "rootCertificates = [ ];"),
    ("modules/client.nix", "fallback = true;", "fallback = false;"),
    ("modules/client.nix", "connect-timeout = cfg.connectTimeout;", ""),
    ("modules/client.nix", "default = 60;", "default = 3600;"),
    // Secrets where all can read them.
    ("hosts/cache-runner.nix", "[ \"/run/agenix/cache-signing-key\" ]", "[ ./example-root.pem ]"),
    ("hosts/cache-runner.nix", "\"/run/agenix/push-token\"", "\"${./example-root.pem}\""),
    ("modules/server.nix", "unitConfig.AssertPathExists = map (secret: secret.file) secrets;", ""),
    // More power than is good.
    (
        "modules/nix-settings.nix",
        "sandbox = true;",
        "sandbox = true; trusted-users = [ \"gitlab-runner\" ];",
    ),
    (
        "hosts/cache-runner.nix",
        "fleet.storage.enable = true;",
        "fleet.storage.enable = true; users.groups.docker.members = [ \"gitlab-runner\" ];",
    ),
    (
        "hosts/common.nix",
        "fleet.nix.enable = true;",
        "fleet.nix.enable = true; networking.firewall.enable = false;",
    ),
    (
        "hosts/ec2.nix",
        "interfaces = [ \"ens5\" ];",
        "interfaces = [ \"ens5\" ]; }; networking.firewall = { allowedTCPPorts = [ 443 ];",
    ),
    // Disks that may be others.
    (
        "hosts/on-prem-runner.nix",
        "/dev/disk/by-id/nvme-EXAMPLE_DISK_S4XYNF0M123456",
        "/dev/nvme0n1",
    ),
    ("hosts/ec2-x86_64.nix", "layout.disk.cache.serial = \"vol0a11ce0000000000a\";", ""),
    (
        "modules/storage.nix",
        "\"snowbank.service\"\n          \"snowbank-zfs-init.service\"",
        "\"snowbank-zfs-init.service\"",
    ),
    ("modules/storage.nix", "networking.hostId = cfg.hostId;", ""),
    // Units that say something else than is meant.
    (
        "modules/server.nix",
        "unitConfig.StartLimitIntervalSec = 60;",
        "serviceConfig.StartLimitIntervalSec = 60;",
    ),
    ("modules/server.nix", "\"multi-user.target\"", "\"multi-user\""),
];

fn copy(from: &Path, to: &Path) {
    let copied =
        command("cp").args(["-r", "--no-target-directory"]).arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

#[test]
fn every_mistake_of_the_list_is_caught() {
    let own = tempfile::tempdir().unwrap();
    let tree = own.path();
    for name in ["Cargo.toml", "Cargo.lock"] {
        fs::copy(project().join(name), tree.join(name)).unwrap();
    }
    copy(&project().join("nixos"), &tree.join("nixos"));
    assert_eq!(
        complaints(&hosts_of(tree).unwrap()),
        [""; 0],
        "without a mistake there is nothing to catch"
    );
    let mut missed = Vec::new();
    for (file, from, to) in MISTAKES {
        let path = tree.join("nixos").join(file);
        let right = fs::read_to_string(&path).unwrap();
        assert!(
            right.contains(from),
            "{file} has no {from:?} any more: make the mistake another way"
        );
        fs::write(&path, right.replacen(from, to, 1)).unwrap();
        let is_caught = hosts_of(tree).map_or(true, |hosts| !complaints(&hosts).is_empty());
        fs::write(&path, right).unwrap();
        if !is_caught {
            missed.push(format!("{file}: {to:?} for {from:?}"));
        }
    }
    assert!(missed.is_empty(), "not caught:\n{}", missed.join("\n"));
}
