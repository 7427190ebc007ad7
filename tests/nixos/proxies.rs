//! What the modules write for Caddy and nginx, in the hands of the real ones.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Child;
use std::time::{Duration, Instant};

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

/// Answers to a request, and its status line; nothing where nobody listens yet.
fn asked(port: u16, head: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
        .write_all(format!("{head}\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())
        .ok()?;
    let mut answer = Vec::new();
    // Whatever came until the other side had enough.
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer).into_owned();
    text.lines().next().map(str::to_owned)
}

#[test]
fn apt_cacher_ng_takes_what_the_module_writes_and_is_no_proxy_for_everything() {
    let own = tempfile::tempdir().unwrap();
    // It listens at none above 32767, and those that the system gives are above.
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port = (20_000..30_000).find(is_free).unwrap();
    let mut count = 0;
    for (host, config) in hosts().as_object().unwrap() {
        let Some(files) = config["aptCache"].as_object() else { continue };
        // The same for all hosts that have it, and one is enough to be run.
        count += 1;
        if count > 1 {
            continue;
        }
        for name in ["conf", "cache", "log"] {
            fs::create_dir(own.path().join(name)).unwrap();
        }
        for (name, file) in files {
            let text = file["text"].as_str().unwrap();
            let text = text
                .replace("/var/cache/apt-cacher-ng", own.path().join("cache").to_str().unwrap())
                .replace("/var/log/apt-cacher-ng", own.path().join("log").to_str().unwrap())
                .replace("Port: 3142", &format!("Port: {port}"))
                .replace("BindAddress: localhost", "BindAddress: 127.0.0.1");
            fs::write(own.path().join("conf").join(name), text).unwrap();
        }
        let said = fs::File::create(own.path().join("said")).unwrap();
        let mut order = command("/usr/sbin/apt-cacher-ng");
        order.arg("-c").arg(own.path().join("conf")).args(["ForeGround=1"]);
        order.arg(format!("SocketPath={}", own.path().join("socket").display()));
        let mut server =
            Ended(order.stdout(said.try_clone().unwrap()).stderr(said).spawn().unwrap());
        let begun = Instant::now();
        let report = loop {
            if let Some(line) = asked(port, "GET /acng-report.html HTTP/1.1") {
                break line;
            }
            let told = || fs::read_to_string(own.path().join("said")).unwrap();
            assert!(server.0.try_wait().unwrap().is_none(), "{host}: it ended: {}", told());
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "{host}: it does not answer: {}",
                told()
            );
            std::thread::sleep(Duration::from_millis(50));
        };
        assert!(report.contains(" 200 "), "{report}");
        let tunnel = asked(port, "CONNECT example.org:443 HTTP/1.1").unwrap();
        assert!(tunnel.contains(" 403 "), "it would lead anybody anywhere: {tunnel}");
        let told = fs::read_to_string(own.path().join("said")).unwrap();
        assert!(!told.contains("Warning") && !told.contains("rror"), "{told}");
    }
    assert_eq!(count, 2);
}

/// A process that ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
