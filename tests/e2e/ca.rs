//! `snowbank ca`: that what it makes is believed by all who are asked, for its own names alone; that a server honours
//! what it revokes; and that nothing is half made, whenever it is killed.

use std::{
    collections::BTreeSet, fs, net::SocketAddr, os::unix::process::ExitStatusExt as _,
    path::PathBuf, process::Stdio,
};

use rcgen::{CertificateParams, DistinguishedName, Issuer, KeyPair};

use crate::{
    doctor_url::Machine,
    support::{
        PATIENCE,
        authority::{Issued, put},
        bank::{DataDirectory, data_directory},
        ca::Ca,
        command,
        fixtures::{fixtures, path},
        nix::{Client, Outcome, Scratch, Version, run, tempdir},
        server::Server,
        wait_until,
    },
    tls::{copy_trusting, setup},
};

/// A server that shows a certificate, and whoever looks at it trusts an authority.
struct Shown {
    bundle: PathBuf,
    server: Server,
    _directory: DataDirectory,
    _own: Scratch,
}

impl Shown {
    fn start(ca: &Ca, issued: &Issued, of_tls: &str) -> Self {
        let (own, directory) = (tempdir(), data_directory(&fixtures().bank("zstd")));
        let of_cache = "[cache.default]\npush = 'mtls'\n[client.runners]\nnames = ['*.localhost']\nscopes = ['push']\n";
        let more = if of_tls.is_empty() { "" } else { of_cache };
        let server = setup(issued, &directory, &own, (more, of_tls)).start();
        Self { bundle: ca.bundle(), server, _directory: directory, _own: own }
    }

    fn url(&self, host: &str) -> String {
        let address = &self.server.lines_after("listening on https://")[0];
        format!("https://{host}:{}", address.parse::<SocketAddr>().unwrap().port())
    }

    /// What each client says of the server under the name `host`: whether it believes it, by the client's name.
    fn believed(&self, host: &str) -> Vec<(String, bool)> {
        let url = self.url(host);
        let mut said = vec![
            ("curl".to_owned(), self.curl(host, &[]).succeeded()),
            ("OpenSSL".to_owned(), self.openssl(host).succeeded()),
            ("GnuTLS".to_owned(), self.gnutls(host).succeeded()),
        ];
        for version in Version::BOTH {
            let client = Client::new(version, &fixtures().store);
            let copied = copy_trusting(&self.bundle, &client, &url, &self.server.key());
            said.push((format!("Nix, {version:?}"), copied.succeeded()));
        }
        let machine = Machine::of(&url, &self.server.key()).with("NIX_SSL_CERT_FILE", &self.bundle);
        let doctor = machine.doctor(&[&url, "--path", path("leaf").as_str()]);
        // The same line, whichever it is, so that nothing else is what is wrong.
        let (good, bad) = (["issued by", "intermediate"], ["certificate:", "NameConstraint"]);
        let lines = doctor.text();
        let has = |verdict: &str, words: &[&str]| {
            let is_it = |line: &str| {
                line.starts_with(verdict) && words.iter().all(|word| line.contains(word))
            };
            lines.lines().any(is_it)
        };
        assert_ne!(has("ok", &good), has("problem", &bad), "{lines}");
        said.push(("rustls".to_owned(), has("ok", &good)));
        said
    }

    fn curl(&self, host: &str, words: &[&str]) -> Outcome {
        let mut order = command("curl");
        order.args(["--silent", "--show-error", "--fail", "--max-time", "60", "--cacert"]);
        order.arg(&self.bundle).args(words).arg(format!("{}/nix-cache-info", self.url(host)));
        run(&mut order, 90)
    }

    fn openssl(&self, host: &str) -> Outcome {
        let mut order = command("openssl");
        let name = if host == "localhost" { "-verify_hostname" } else { "-verify_ip" };
        order.args(["s_client", "-connect", self.url(host).trim_start_matches("https://")]);
        order.args(["-verify_return_error", "-x509_strict", name, host, "-CAfile"]);
        run(order.arg(&self.bundle), 60)
    }

    fn gnutls(&self, host: &str) -> Outcome {
        let url = self.url(host);
        let (_, port) = url.rsplit_once(':').unwrap();
        let mut order = command("gnutls-cli");
        order.args(["--port", port, "--x509cafile"]).arg(&self.bundle).arg(host);
        run(order.stdin(Stdio::null()), 60)
    }
}

#[track_caller]
fn assert_all(believed: &[(String, bool)], expected: bool) {
    assert!(believed.iter().all(|(_, is)| *is == expected), "expected {expected}: {believed:?}");
}

/// What whoever has stolen the intermediate's key makes of it, for a host that the authority is not for.
fn forge(ca: &Ca, host: &str) -> Issued {
    let read = |name: &str| fs::read_to_string(ca.file(name)).unwrap();
    let (intermediate, key) = (read("intermediate.pem"), read("intermediate.key"));
    let issuer = Issuer::from_ca_cert_pem(&intermediate, KeyPair::from_pem(&key).unwrap()).unwrap();
    let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2099, 1, 1);
    params.use_authority_key_identifier_extension = true;
    // Which GnuTLS would take for a host's.
    params.distinguished_name = DistinguishedName::new();
    let key = KeyPair::generate().unwrap();
    let forged = params.signed_by(&key, &issuer).unwrap();
    let file = |extension: &str| ca.around().join(format!("forged.{extension}"));
    let issued = Issued { certificate: file("pem"), key: file("key") };
    put(&issued.certificate, &(forged.pem() + &intermediate));
    put(&issued.key, &key.serialize_pem());
    issued
}

/// Of a forged certificate everybody has to say no, and not because it was made badly.
fn believed_as_forged(ca: &Ca, host: &str) -> Vec<(String, bool)> {
    Shown::start(ca, &forge(ca, host), "").believed(host)
}

#[test]
fn an_authority_for_a_domain_is_believed_by_all_for_its_names_and_by_nobody_for_an_address() {
    let ca = Ca::init(&["--domain", "localhost"]);
    let issued = ca.issue(&["localhost", "*.ci.localhost"]);
    assert_all(&Shown::start(&ca, &issued, "").believed("localhost"), true);
    assert_all(&believed_as_forged(&ca, "localhost"), true);
    assert_all(&believed_as_forged(&ca, "127.0.0.1"), false);
    let refused = ca.run(&["issue", "127.0.0.1"]).expect_failure();
    assert_eq!(refused.code, Some(2));
    assert!(
        refused.stderr.contains("127.0.0.1: the authority is for localhost"),
        "{}",
        refused.stderr
    );
}

#[test]
fn an_authority_for_addresses_is_believed_by_all_for_them_and_by_nobody_for_other_names() {
    let ca = Ca::init(&["--domain", "n3x.internal", "--ip", "127.0.0.0/8", "--ip", "fd00::/8"]);
    let long = format!("{}.n3x.internal", ["a"; 60].join("."));
    for names in [&["127.0.0.1"][..], &["127.0.0.1", "cache.n3x.internal"], &[&long, "127.0.0.1"]] {
        let issued = ca.issue(&[&["--force"], names].concat());
        assert_all(&Shown::start(&ca, &issued, "").believed("127.0.0.1"), true);
    }
    assert_all(&believed_as_forged(&ca, "127.0.0.1"), true);
    assert_all(&believed_as_forged(&ca, "localhost"), false);
}

#[test]
fn a_client_that_is_revoked_is_refused_and_the_others_go_on() {
    let ca = Ca::init(&["--domain", "localhost"]);
    let issued = ca.issue(&["localhost"]);
    let of_tls = format!(
        "client_ca = '{}'\nclient_crl = '{}'\n",
        ca.bundle().display(),
        ca.file("crl.pem").display()
    );
    let shown = Shown::start(&ca, &issued, &of_tls);
    let clients = ["one.localhost", "two.localhost"].map(|name| ca.issue(&["--client", name]));
    let status = |client: &Issued| {
        let (certificate, key) =
            (client.certificate.to_str().unwrap(), client.key.to_str().unwrap());
        let words =
            ["--cert", certificate, "--key", key, "--upload-file", certificate, "--no-fail"];
        let words =
            [&words[..], &["--output", "/dev/null", "--write-out", "%{http_code}"]].concat();
        let mut order = command("curl");
        order.args(["--silent", "--max-time", "60", "--cacert"]).arg(&shown.bundle).args(words);
        let url = format!("{}/nar/{}.nar.xz", shown.url("localhost"), "0".repeat(52));
        run(order.arg(url), 90).text()
    };
    // It may push, and what it pushes is no NAR.
    assert_eq!(clients.each_ref().map(status), ["422", "422"]);
    let revoked = ca.run(&["revoke", "one.localhost"]).expect_success();
    assert_eq!(revoked.text().trim(), ca.file("crl.pem").to_str().unwrap());
    wait_until("the list is loaded", PATIENCE, || {
        shown.server.metric("snowbank_tls_revocations", "") == 1.0
    });
    assert_eq!(clients.each_ref().map(status), ["000", "422"]);
    // OpenSSL reads the list as well, and it is by the intermediate.
    for (client, is_good) in clients.iter().zip([false, true]) {
        let mut order = command("openssl");
        order.args(["verify", "-crl_check", "-x509_strict", "-purpose", "sslclient", "-CAfile"]);
        order.arg(&shown.bundle).arg("-CRLfile").arg(ca.file("crl.pem")).arg("-untrusted");
        order.arg(ca.file("intermediate.pem")).arg(&client.certificate);
        let said = run(&mut order, 60);
        assert_eq!(said.succeeded(), is_good, "{}", said.stderr);
        assert_eq!(said.stderr.contains("certificate revoked"), !is_good, "{}", said.stderr);
    }
    // A certificate of a client is none of a server.
    let as_server = Shown::start(&ca, &clients[1], "");
    assert!(as_server.curl("two.localhost", &[]).stderr.contains("unsuitable certificate purpose"));
}

#[test]
fn what_was_issued_is_listed_with_what_became_of_it() {
    let ca = Ca::init(&["--domain", "n3x.internal", "--name", "N3X", "--days", "20"]);
    ca.issue(&["cache.n3x.internal", "--days", "10"]);
    ca.issue(&["--client", "runner.n3x.internal", "--days", "5"]);
    ca.run(&["revoke", "cache.n3x.internal"]).expect_success();
    let table = ca.run(&["ls"]).expect_success().text();
    let rows: Vec<Vec<&str>> =
        table.lines().skip(1).map(|line| line.split_whitespace().skip(1).collect()).collect();
    let starts: Vec<_> = rows.iter().map(|row| (row[0], row[1], row[3..].join(" "))).collect();
    assert_eq!(
        starts,
        [
            ("root", "good", "CN=N3X root".to_owned()),
            ("intermediate", "good", "CN=N3X intermediate".to_owned()),
            ("client", "good", "runner.n3x.internal".to_owned()),
            ("server", "revoked", "cache.n3x.internal".to_owned()),
        ],
        "{table}"
    );
    let json = ca.run(&["ls", "--json"]).expect_success().text();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[3]["state"], "revoked");
    assert_eq!(json[2]["serial"].as_str().unwrap().len(), 32);
    let issued = ca.run(&["issue", "b.n3x.internal", "--days", "1", "--json"]).expect_success();
    let issued: serde_json::Value = serde_json::from_str(&issued.text()).unwrap();
    assert!(fs::read_to_string(issued["key"].as_str().unwrap()).unwrap().contains("PRIVATE KEY"));
}

#[test]
fn what_cannot_be_meant_ends_with_2_and_says_what_can() {
    let ca = Ca::init(&["--domain", "n3x.internal"]);
    for (words, why) in [
        (&["init", "--domain", "n3x.internal"][..], "an authority is here already"),
        (&["init", "--domain", "*.n3x.internal"], "one such as n3x.internal is"),
        (&["init", "--domain", "n3x.internal", "--ip", "10.1.2.3/8"], "is 10.0.0.0/8 meant"),
        (
            &["init", "--domain", "n3x.internal", "--days", "5", "--intermediate-days", "6"],
            "longer than",
        ),
        (&["init", "--domain", "n3x.internal", "--days", "0"], "0 is not in 1..=36525"),
        (&["init", "--domain", "n3x.internal", "--name", ""], "--name: 1 to 40 bytes"),
        (&["issue", "https://n3x.internal"], "is no DNS name and no address"),
        (&["issue", "n3x.internal", "--days", "2000"], "intermediate.pem, which ends on"),
        (&["issue"], "NAME"),
    ] {
        let said = ca.run(words).expect_failure();
        assert!(said.code == Some(2) && said.stderr.contains(why), "{words:?}: {}", said.stderr);
    }
    let unknown = ca.run(&["revoke", "nobody.n3x.internal"]).expect_failure();
    assert!(unknown.code == Some(1) && unknown.stderr.contains("ca ls"), "{}", unknown.stderr);
    let nowhere = Ca::nowhere().run(&["ls"]).expect_failure();
    assert!(nowhere.code == Some(1) && nowhere.stderr.contains("ca init"), "{}", nowhere.stderr);
}

/// Kills a command at each place where it can be, one after the other, until it comes through, and has `check` look at
/// what it left. Says how often it was killed.
fn kill_at_each(
    place: &str,
    ca: &dyn Fn() -> Ca,
    words: &[&str],
    check: &dyn Fn(&Ca, bool),
) -> usize {
    for count in 1..100 {
        let ca = ca();
        let mut order = ca.order(words);
        order.env("SNOWBANK_FAULT", format!("publish.{place}=kill:{count}"));
        order.stdout(Stdio::null()).stderr(Stdio::null());
        let status = order.spawn().unwrap().wait().unwrap();
        if status.success() {
            check(&ca, true);
            return count - 1;
        }
        assert_eq!(status.signal(), Some(9), "{place} {count}: {status:?}");
        check(&ca, false);
    }
    panic!("it never came through");
}

const PLACES: [&str; 4] = ["write", "fsync", "rename", "unlink"];

#[test]
fn an_authority_is_whole_or_not_there_whenever_making_it_is_killed() {
    let words = ["init", "--domain", "n3x.internal"];
    let mut killed = 0;
    for place in PLACES {
        killed += kill_at_each(place, &Ca::nowhere, &words, &|ca, has_ended| {
            let is_there = ca.directory().exists();
            assert!(is_there || !has_ended);
            if !is_there {
                ca.run(&words).expect_success();
            }
            ca.issue(&["cache.n3x.internal"]);
        });
    }
    assert!(killed > 15, "killed {killed} times only");
}

#[test]
fn no_key_is_lost_whenever_replacing_an_authority_is_killed() {
    let made = || Ca::init(&["--domain", "n3x.internal"]);
    let words = ["init", "--domain", "n3x.internal", "--force"];
    let root_keys = |ca: &Ca| -> BTreeSet<Vec<u8>> {
        let entries = fs::read_dir(ca.around()).unwrap().map(|entry| entry.unwrap());
        let visible = entries.filter(|entry| !entry.file_name().to_str().unwrap().starts_with('.'));
        visible.filter_map(|entry| fs::read(entry.path().join("root.key")).ok()).collect()
    };
    let mut killed = 0;
    for place in PLACES {
        killed += kill_at_each(place, &made, &words, &|ca, has_ended| {
            let before = root_keys(ca);
            // The old one, and the new one if it came so far.
            assert!(!before.is_empty() && (before.len() == 2 || !has_ended), "{}", before.len());
            // Those that are replaced in one second have one name, and are not replaced twice.
            let again = ca.run(&words);
            assert!(root_keys(ca).is_superset(&before), "{}", again.stderr);
        });
    }
    assert!(killed > 15, "killed {killed} times only");
}

#[test]
fn what_is_issued_or_revoked_is_known_whenever_that_is_killed() {
    let made = || Ca::init(&["--domain", "n3x.internal"]);
    let issued = || {
        let ca = made();
        ca.issue(&["cache.n3x.internal"]);
        ca
    };
    let listed = |ca: &Ca| ca.run(&["ls"]).expect_success().text().lines().count() - 3;
    let mut killed = 0;
    for place in PLACES {
        killed += kill_at_each(place, &made, &["issue", "cache.n3x.internal"], &|ca, _| {
            // Whatever somebody may have can be revoked.
            if ca.around().join("cache.n3x.internal.pem").exists() {
                assert_eq!(listed(ca), 1, "{place}");
            }
            ca.run(&["issue", "cache.n3x.internal", "--force"]).expect_success();
        });
        killed += kill_at_each(place, &issued, &["revoke", "cache.n3x.internal"], &|ca, _| {
            ca.run(&["revoke", "cache.n3x.internal"]).expect_success();
            let mut order = command("openssl");
            order.args(["crl", "-noout", "-text", "-in"]).arg(ca.file("crl.pem"));
            let text = run(&mut order, 30).expect_success().text();
            assert_eq!(text.matches("Serial Number:").count(), 1, "{place}: {text}");
        });
    }
    assert!(killed > 10, "killed {killed} times only");
}
