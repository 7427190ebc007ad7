//! The example of agenix, with a real age: who may decrypt what, and who may not.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use serde_json::Value;

use crate::nix::{command, evaluate, project};

#[test]
fn each_secret_is_for_the_hosts_that_need_it_and_for_no_other() {
    let output = evaluate(&["nixos/secrets/secrets.nix"], &project());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let secrets: Value = serde_json::from_slice(&output.stdout).unwrap();
    let own = tempfile::tempdir().unwrap();
    let host = |name: &str| project().join("nixos/secrets/tests-only").join(name);
    let may = |secret: &str, name: &str| {
        let key = fs::read_to_string(host(&format!("{name}.pub"))).unwrap();
        let keys = secrets[secret]["publicKeys"].as_array().unwrap();
        keys.iter().any(|known| key.starts_with(known.as_str().unwrap()))
    };
    for (secret, rule) in secrets.as_object().unwrap() {
        // As agenix calls it.
        let file = own.path().join(secret);
        let mut order = command("age");
        for key in rule["publicKeys"].as_array().unwrap() {
            order.args(["--recipient", key.as_str().unwrap()]);
        }
        let mut age = order.arg("--output").arg(&file).stdin(Stdio::piped()).spawn().unwrap();
        age.stdin.take().unwrap().write_all(b"a secret").unwrap();
        assert!(age.wait().unwrap().success());
        for name in ["host-one", "host-two"] {
            // A key that others can read is one that ssh refuses.
            let key = own.path().join(name);
            fs::copy(host(name), &key).unwrap();
            let decrypted =
                command("age").args(["--decrypt", "--identity"]).arg(&key).arg(&file).output();
            let decrypted = decrypted.unwrap();
            assert_eq!(decrypted.status.success(), may(secret, name), "{secret} by {name}");
            assert_eq!(decrypted.stdout == b"a secret", may(secret, name));
        }
    }
    assert!(may("gitlab-runner.age", "host-one") && may("gitlab-runner.age", "host-two"));
    assert!(!may("cache-signing-key-one.age", "host-two"), "a signing key is one host's own");
}
