//! How a server is told what to do: flags, environment, file, sockets and signals from whoever runs it.

use std::{
    fs,
    io::Write,
    net::TcpListener,
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt, net::UnixDatagram},
    },
    path::Path,
    process::Stdio,
    time::Duration,
};

use rustix::process::Signal;

use crate::support::{
    PATIENCE, command,
    fixtures::{fixtures, path},
    http::{Connection, fields},
    nix::{Outcome, run, tempdir},
    server::Setup,
    wait_until,
};

/// `snowbank serve` with these words and this environment, for starts that are to fail.
fn serve(words: &[&str], environment: &[(&str, &str)]) -> Outcome {
    let mut order = command(env!("CARGO_BIN_EXE_snowbank"));
    run(order.arg("serve").args(words).envs(environment.iter().copied()), 20)
}

#[track_caller]
fn assert_one_clear_line(outcome: &Outcome, parts: &[&str]) {
    assert_eq!(outcome.code, Some(2), "a wrong configuration ends with 2: {}", outcome.stderr);
    let lines: Vec<&str> = outcome.stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    assert_eq!(lines.len(), 1, "one line, not {lines:#?}");
    for part in parts {
        assert!(lines[0].contains(part), "no {part:?} in {:?}", lines[0]);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_fresh_server_needs_no_configuration_and_says_what_to_put_into_nix_conf() {
    let server = Setup::bare().local_store(&fixtures().store).start();
    assert_eq!(server.nix_conf("substituters"), server.url());
    let (name, key) =
        server.key().split_once(':').map(|(name, key)| (name.to_owned(), key.to_owned())).unwrap();
    assert!(!name.is_empty() && key.len() == 44, "{name}:{key}");
    assert!(server.lines_after("listening on ")[0].starts_with("http://127.0.0.1:"));
}

#[test]
fn the_signing_key_is_readable_by_its_owner_only_and_never_shown() {
    let server = Setup::bare().local_store(&fixtures().store).start();
    let keys = server.data().join("keys");
    assert_eq!(
        fs::metadata(&keys).unwrap().permissions().mode() & 0o077,
        0,
        "the directory of the keys is private"
    );
    let mut secrets = 0;
    for entry in fs::read_dir(&keys).unwrap() {
        let file = entry.unwrap().path();
        let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        let contents = fs::read_to_string(&file).unwrap();
        let secret = contents.trim().rsplit(':').next().unwrap().to_owned();
        if secret.len() == 88 {
            secrets += 1;
            assert_eq!(mode, 0o600, "{file:?}");
            assert!(!server.log().contains(&secret), "the secret key is in the output");
            for url in ["/", "/metrics", "/health"] {
                assert!(!server.get(url).text().contains(&secret), "the secret key is at {url}");
            }
        }
    }
    assert_eq!(secrets, 1, "one secret key was made");
}

#[test]
fn a_key_that_others_can_read_is_refused_by_name() {
    let own = tempdir();
    let data = own.path().join("data");
    let setup = || Setup::on(&data).local_store(&fixtures().store);
    setup().start().stop();
    let files = fs::read_dir(data.join("keys")).unwrap().map(|entry| entry.unwrap().path());
    let secret =
        files.into_iter().find(|file| fs::read_to_string(file).unwrap().trim().len() > 88).unwrap();
    for mode in [0o644, 0o640, 0o604] {
        fs::set_permissions(&secret, fs::Permissions::from_mode(mode)).unwrap();
        let (status, said) =
            setup().try_start(Stdio::null(), 1).err().expect("the server refuses such a key");
        assert!(!status.success());
        assert!(
            said.contains(secret.file_name().unwrap().to_str().unwrap()),
            "the message names the file: {said}"
        );
        assert!(
            said.contains("600") || said.contains("chmod"),
            "the message says what to do: {said}"
        );
    }
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    setup().start();
}

#[test]
fn a_restart_keeps_the_key() {
    let own = tempdir();
    let start = || Setup::on(&own.path().join("data")).local_store(&fixtures().store).start();
    let first = start();
    let key = first.key();
    first.stop();
    assert_eq!(start().key(), key);
}

#[test]
fn the_environment_overrides_the_file_and_a_flag_overrides_both() {
    let own = tempdir();
    let places = ["of-file", "of-environment", "of-flag"].map(|name| own.path().join(name));
    let file = own.path().join("snowbank.toml");
    fs::write(
        &file,
        format!(
            "data_dir = {:?}\nstore = \"none\"\nlisten = [\"127.0.0.1:0\"]\n",
            text(&places[0])
        ),
    )
    .unwrap();
    for depth in 1..=3 {
        let mut order = command(env!("CARGO_BIN_EXE_snowbank"));
        order
            .arg("serve")
            .env("SNOWBANK_CONFIG", &file)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        if depth >= 2 {
            order.env("SNOWBANK_DATA_DIR", &places[1]);
        }
        if depth >= 3 {
            order.arg("--data-dir").arg(&places[2]);
        }
        let mut child = order.stdin(Stdio::null()).spawn().unwrap();
        let chosen = &places[depth - 1];
        let mut ended = None;
        wait_until(&format!("a key in {chosen:?}, or the end of the server"), PATIENCE, || {
            ended = child.try_wait().unwrap();
            ended.is_some()
                || fs::read_dir(chosen.join("keys"))
                    .is_ok_and(|mut entries| entries.next().is_some())
        });
        let _ = child.kill();
        let output = child.wait_with_output().unwrap();
        assert!(ended.is_none(), "the server ended:\n{}", String::from_utf8_lossy(&output.stderr));
        for other in places.iter().skip(depth) {
            assert!(!other.exists(), "{other:?} was used too early");
        }
    }
}

#[test]
fn every_setting_can_come_from_the_environment() {
    let own = tempdir();
    let data = own.path().join("data");
    let mut order = command(env!("CARGO_BIN_EXE_snowbank"));
    order.arg("serve").env_clear().env("SNOWBANK_DATA_DIR", &data);
    order.env("SNOWBANK_LISTEN", "127.0.0.1:0").env("SNOWBANK_STORE", "none");
    let mut child =
        order.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    let output = std::io::BufReader::new(child.stdout.take().unwrap());
    let found = std::io::BufRead::lines(output)
        .map_while(Result::ok)
        .find(|line| line.starts_with("listening on "));
    line.push_str(&found.unwrap_or_default());
    let _ = child.kill();
    child.wait().unwrap();
    assert!(line.starts_with("listening on http://127.0.0.1:"), "{line:?}");
}

#[test]
fn a_wrong_configuration_is_one_line_and_exit_code_2() {
    let own = tempdir();
    let data = text(own.path()).to_owned();
    for (words, parts) in [
        (vec!["--data-dir", &data, "--listen", "nonsense"], vec!["listen", "nonsense"]),
        (
            vec!["--data-dir", &data, "--listen", "127.0.0.1:99999"],
            vec!["listen", "127.0.0.1:99999"],
        ),
        (
            vec!["--data-dir", &data, "--listen", "127.0.0.1:0", "--store", "relative/root"],
            vec!["store", "relative/root"],
        ),
        (
            vec!["--data-dir", &data, "--config", "/nonexistent/file.toml"],
            vec!["/nonexistent/file.toml"],
        ),
    ] {
        assert_one_clear_line(&serve(&words, &[]), &parts);
    }
    for (contents, parts) in [
        ("listen = 5", vec!["listen"]),
        ("lisen = [\"127.0.0.1:0\"]", vec!["lisen"]),
        ("store = [", vec!["snowbank.toml"]),
        ("listen = [\"localhost\"]", vec!["listen", "localhost"]),
    ] {
        let file = own.path().join("snowbank.toml");
        fs::write(&file, contents).unwrap();
        let outcome = serve(&["--data-dir", &data, "--config", text(&file)], &[]);
        assert_one_clear_line(&outcome, &parts);
    }
    let outcome = serve(&["--data-dir", &data], &[("SNOWBANK_LISTEN", "nowhere")]);
    assert_one_clear_line(&outcome, &["nowhere"]);
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (status, said) = Setup::bare()
        .bank_only(&fixtures().store)
        .listen(&[&address])
        .try_start(Stdio::null(), 1)
        .err()
        .expect("the address is taken");
    assert!(!status.success() && said.contains(&address), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn the_help_has_every_flag_and_an_example() {
    let outcome = serve(&["--help"], &[]).expect_success().text();
    for part in
        ["--config", "--data-dir", "--listen", "--store", "SNOWBANK_LISTEN", "snowbank serve"]
    {
        assert!(outcome.contains(part), "no {part} in\n{outcome}");
    }
}

#[test]
fn several_addresses_and_a_unix_socket_are_served_at_once() {
    // The path of a unix socket may have 107 bytes, and a directory under target/ may need them all.
    let short = tempfile::Builder::new().prefix("sb").tempdir_in("/tmp").unwrap();
    let socket = short.path().join("snowbank.sock");
    let server = Setup::bare()
        .local_store(&fixtures().store)
        .listen(&["127.0.0.1:0", "127.0.0.1:0", &format!("unix:{}", socket.display())])
        .start();
    let addresses: Vec<_> = server
        .lines_after("listening on ")
        .into_iter()
        .filter(|line| line.starts_with("http://"))
        .collect();
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    for address in addresses {
        let address = address.trim_start_matches("http://").parse().unwrap();
        Connection::open(address).request("GET", "/nix-cache-info", &[]).expect(200);
    }
    let url = format!("/{}.narinfo", path("leaf").hash());
    Connection::open_unix(&socket).request("GET", &url, &[]).expect(200);
    server.stop_and_keep(|| assert!(!socket.exists(), "the socket is removed in the end"));
}

#[test]
fn a_socket_that_a_killed_server_left_behind_is_taken_over() {
    let short = tempfile::Builder::new().prefix("sb").tempdir_in("/tmp").unwrap();
    let socket = short.path().join("snowbank.sock");
    let address = format!("unix:{}", socket.display());
    let start = || Setup::bare().local_store(&fixtures().store).listen(&[&address]).start();
    start().kill();
    assert!(socket.exists(), "a killed server cannot clean up");
    let _second = start();
    Connection::open_unix(&socket).request("GET", "/nix-cache-info", &[]).expect(200);
}

#[test]
fn sockets_that_systemd_opened_are_served() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // systemd hands sockets over from descriptor 3 on and names the process that they are for.
    let script = "exec 3<&0 </dev/null\nexport LISTEN_FDS=1 LISTEN_PID=$$";
    let server = Setup::bare()
        .local_store(&fixtures().store)
        .listen(&[])
        .after_shell(script)
        .start_with(Stdio::from(OwnedFd::from(listener)), 1);
    assert_eq!(server.address(), address);
    server.get("/nix-cache-info").expect(200);
}

#[test]
fn systemd_is_told_when_it_is_ready_alive_and_stopping() {
    let short = tempfile::Builder::new().prefix("sb").tempdir_in("/tmp").unwrap();
    let socket = short.path().join("notify");
    let systemd = UnixDatagram::bind(&socket).unwrap();
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut server = Setup::bare()
        .local_store(&fixtures().store)
        .environment("NOTIFY_SOCKET", &socket)
        .environment("WATCHDOG_USEC", "2000000")
        .start();
    let mut said = String::new();
    let mut hear = |what: &str| {
        while !said.contains(what) {
            let mut buffer = [0; 4096];
            let count = systemd
                .recv(&mut buffer)
                .unwrap_or_else(|error| panic!("no {what}: {error}; only {said:?}"));
            said.push_str(&String::from_utf8_lossy(&buffer[..count]));
            said.push('\n');
        }
    };
    hear("READY=1");
    hear("WATCHDOG=1");
    server.signal(Signal::TERM);
    hear("STOPPING=1");
    assert!(server.wait(PATIENCE).success());
}

#[test]
fn sighup_reads_the_keys_again_without_a_restart() {
    let own = tempdir();
    let data = own.path().join("data");
    let mut server = Setup::on(&data).local_store(&fixtures().store).start();
    let url = format!("/{}.narinfo", path("refs").hash());
    assert_eq!(fields(&server.get(&url).expect(200).text(), "Sig").len(), 1);
    let second = fixtures().store.run("nix", &["key", "generate-secret", "--key-name", "second-1"]);
    let file = data.join("keys/second-1.secret");
    let mut created = fs::File::create(&file).unwrap();
    created.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
    created.write_all(second.as_bytes()).unwrap();
    server.signal(Signal::HUP);
    wait_until("the second key to sign", PATIENCE, || {
        fields(&server.get(&url).expect(200).text(), "Sig")
            .iter()
            .any(|signature| signature.starts_with("second-1:"))
    });
    // A key that does not parse changes nothing.
    fs::write(&file, "nonsense").unwrap();
    server.signal(Signal::HUP);
    wait_until("a line about the broken key", PATIENCE, || server.log().contains("second-1"));
    assert_eq!(
        fields(&server.get(&url).expect(200).text(), "Sig").len(),
        2,
        "the keys from before are kept"
    );
    server.assert_alive();
}

#[test]
fn a_signature_verifies_under_the_key_that_was_printed() {
    let server = Setup::bare().local_store(&fixtures().store).start();
    // Nix itself says whether it trusts what the server answers.
    let words = [
        "store",
        "verify",
        "--no-contents",
        "--store",
        &server.url(),
        "--option",
        "trusted-public-keys",
        &server.key(),
    ];
    let mut words = words.to_vec();
    words.extend([path("refs").as_str(), path("top").as_str()]);
    fixtures().store.run("nix", &words);
}

#[test]
fn nothing_is_written_outside_the_data_directory() {
    let own = tempdir();
    let server = Setup::on(&own.path().join("data"))
        .local_store(&fixtures().store)
        .environment("HOME", own.path())
        .start();
    server.get(&format!("/nar/{}.nar", fixtures().nar_hash(path("refs")))).expect(200);
    server.stop();
    let names: Vec<_> =
        fs::read_dir(own.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["data"]);
}

#[test]
fn a_data_directory_that_cannot_be_made_is_named() {
    let own = tempdir();
    let file = own.path().join("file");
    fs::write(&file, "in the way").unwrap();
    let (status, said) = Setup::on(&file.join("data"))
        .bank_only(&fixtures().store)
        .try_start(Stdio::null(), 1)
        .err()
        .expect("there is no such directory");
    assert!(!status.success() && said.contains(text(&file)), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

/// Kept short, as everything else that waits for the clock.
#[test]
fn idle_connections_do_not_keep_a_server_from_ending() {
    let mut server = Setup::bare().local_store(&fixtures().store).start();
    let mut idle = server.connect();
    idle.request("GET", "/nix-cache-info", &[]).expect(200);
    server.signal(Signal::TERM);
    assert!(server.wait(Duration::from_secs(10)).success());
    assert!(idle.closes_within(PATIENCE));
}
