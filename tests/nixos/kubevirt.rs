//! The template of a virtual machine for KubeVirt: its parts fit together, and to the host that runs in it.

use std::path::Path;

use serde_json::Value;

use crate::nix::{command, hosts, project};

/// A document of YAML as JSON.
fn yaml(file: &Path) -> Value {
    let program =
        "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)";
    let output = command("/usr/bin/python3").args(["-c", program]).arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn names(list: &Value) -> Vec<&str> {
    let mut names: Vec<_> =
        list.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_disk_of_the_machine_has_its_volume_and_the_label_that_the_guest_mounts() {
    let machine = yaml(&project().join("nixos/kubevirt/vm-template.yaml"));
    assert_eq!(machine["kind"], "VirtualMachine");
    // It switches itself off, and is not to be started again.
    assert_eq!(machine["spec"]["runStrategy"], "Once");
    let spec = &machine["spec"]["template"]["spec"];
    let devices = &spec["domain"]["devices"];
    assert_eq!(names(&devices["disks"]), names(&spec["volumes"]));
    assert_eq!(names(&devices["interfaces"]), names(&spec["networks"]));
    let volumes = spec["volumes"].as_array().unwrap();
    let info = volumes.iter().find(|volume| volume["name"] == "runner-info").unwrap();
    assert!(info.get("configMap").is_none(), "a token is a secret: {info}");
    let label = info["secret"]["volumeLabel"].as_str().unwrap();
    let host = &hosts()["kubevirt-runner"]["fileSystems"]["/runner-info"];
    assert_eq!(host["device"], format!("/dev/disk/by-label/{label}"));
    assert!(host["options"].as_array().unwrap().contains(&"nofail".into()), "{host}");
}
