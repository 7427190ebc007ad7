//! What the modules write for Caddy and nginx, in the hands of the real ones.

use std::fs;

use crate::nix::{command, hosts};

/// A certificate and its key in the place of those that a host would have.
fn with_a_certificate(text: &str, directory: &std::path::Path) -> String {
    let (certificate, key) = (directory.join("certificate.pem"), directory.join("key.pem"));
    let made = command("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-days", "2", "-subj", "/CN=localhost", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .unwrap();
    assert!(made.status.success());
    text.replace("/run/agenix/cache-certificate", certificate.to_str().unwrap())
        .replace("/run/agenix/cache-key", key.to_str().unwrap())
}

#[test]
fn caddy_takes_what_the_module_writes() {
    let own = tempfile::tempdir().unwrap();
    let mut count = 0;
    for (host, config) in hosts().as_object().unwrap() {
        for (name, site) in config["caddy"].as_object().unwrap() {
            let text = format!("{name} {{\n{}\n}}\n", site["extraConfig"].as_str().unwrap());
            let file = own.path().join("Caddyfile");
            fs::write(&file, with_a_certificate(&text, own.path())).unwrap();
            let mut order = command("caddy");
            order.args(["validate", "--adapter", "caddyfile", "--config"]).arg(&file);
            let output = order.env("HOME", own.path()).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{host}: {said}\n{text}");
            assert!(text.contains("flush_interval -1") && !text.contains("header"), "{text}");
            count += 1;
        }
    }
    assert_eq!(count, 2);
}

#[test]
fn nginx_takes_what_the_module_writes() {
    let own = tempfile::tempdir().unwrap();
    let mut count = 0;
    for (host, config) in hosts().as_object().unwrap() {
        for (name, site) in config["nginx"].as_object().unwrap() {
            let location = &site["locations"]["/"];
            // As NixOS puts it together (nixos/modules/services/web-servers/nginx).
            let text = format!(
                "pid {0}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\n server {{\n  listen 127.0.0.1:8443 ssl;\n  \
                 server_name {name};\n  ssl_certificate {1};\n  ssl_certificate_key {2};\n  location / {{\n   \
                 proxy_pass {3};\n{4}\n  }}\n }}\n}}\n",
                own.path().display(),
                site["sslCertificate"].as_str().unwrap(),
                site["sslCertificateKey"].as_str().unwrap(),
                location["proxyPass"].as_str().unwrap(),
                location["extraConfig"].as_str().unwrap(),
            );
            let file = own.path().join("nginx.conf");
            fs::write(&file, with_a_certificate(&text, own.path())).unwrap();
            let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap());
            let mut order = command("nginx");
            let output = order.env("PATH", path).args(["-t", "-c"]).arg(&file).output().unwrap();
            assert!(
                output.status.success(),
                "{host}: {}\n{text}",
                String::from_utf8_lossy(&output.stderr)
            );
            count += 1;
        }
    }
    assert_eq!(count, 1);
}
