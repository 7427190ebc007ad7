#!/usr/bin/env python3
"""Which options NixOS has, and of which types, as far as the modules here set or read any: `standin/contract.json`.

The stand-in for nixpkgs declares just these, so that an option that NixOS does not have is an error where there is no
nixpkgs. Made anew from the options of a NixOS, as `options.json` of its manual has them or as a map of paths to types:

    nixos/tests/contract.py OPTIONS.json > nixos/tests/standin/contract.json
"""

import json
import sys

# What the modules, the hosts and the images use. An option outside is unknown to the stand-in.
USED = [
    "boot.extraModprobeConfig", "boot.growPartition", "boot.initrd", "boot.kernel.sysctl", "boot.kernelModules",
    "boot.kernelPackages", "boot.kernelParams", "boot.loader", "boot.supportedFilesystems", "boot.tmp", "boot.zfs",
    "environment.etc", "environment.sessionVariables", "environment.systemPackages", "environment.variables",
    "fileSystems", "hardware.cpu", "hardware.enableRedistributableFirmware", "image", "networking.dhcpcd",
    "networking.domain", "networking.extraHosts", "networking.firewall", "networking.hostId", "networking.hostName",
    "networking.hosts", "networking.interfaces", "networking.nftables", "networking.useDHCP",
    "networking.useNetworkd", "nix.enable", "nix.gc", "nix.optimise", "nix.package", "nix.settings",
    "nix.buildMachines", "nix.distributedBuilds", "nixpkgs.hostPlatform", "nixpkgs.overlays", "programs.git",
    "programs.ssh", "security.acme", "security.pki", "security.polkit", "security.sudo", "services.caddy",
    "services.cloud-init", "services.earlyoom", "services.gitlab-runner", "services.grafana.enable",
    "services.grafana.provision", "services.grafana.settings", "services.harmonia", "services.jenkins",
    "services.nginx", "services.openssh", "services.prometheus.enable", "services.prometheus.exporters.node",
    "services.prometheus.exporters.zfs", "services.prometheus.ruleFiles", "services.prometheus.scrapeConfigs",
    "services.qemuGuest", "services.udev.extraRules", "services.zfs", "swapDevices", "system.stateVersion",
    "systemd.mounts", "systemd.network", "systemd.paths", "systemd.services", "systemd.slices", "systemd.sockets",
    "systemd.targets", "systemd.timers", "systemd.tmpfiles", "time.timeZone", "users.groups", "users.mutableUsers",
    "users.users", "virtualisation.docker", "virtualisation.libvirtd", "virtualisation.podman", "zramSwap",
    "virtualisation.diskSize", "virtualisation.oci-containers",
]


def is_used(path):
    return any(path == used or path.startswith(used + ".") for used in USED)


def main():
    options = json.load(open(sys.argv[1], encoding="utf-8"))
    types = {path: one if isinstance(one, str) else one["type"] for path, one in options.items()}
    tree = {}
    for path in sorted(filter(is_used, types)):
        node, parts = tree, path.split(".")
        # A name with a dot in it stands in quotes, and no module here sets any of those.
        if '"' in path:
            continue
        for part in parts[:-1]:
            inner = node.setdefault(part, {})
            if isinstance(inner, str):
                inner = node[part] = {"_type": inner}
            node = inner
        known = node.get(parts[-1])
        if isinstance(known, dict):
            known["_type"] = types[path]
        else:
            node[parts[-1]] = types[path]
    json.dump(tree, sys.stdout, indent=1, sort_keys=True)
    print()


if __name__ == "__main__":
    main()
