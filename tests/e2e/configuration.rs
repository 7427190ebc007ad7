//! How a server is told what to do: flags, environment, file, sockets and signals from whoever runs it.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt, path::Path, process::Stdio};

use crate::support::{
    PATIENCE, command,
    fixtures::{fixtures, path},
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
    let output = std::io::BufReader::new(child.stdout.take().unwrap());
    let (sender, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let lines = std::io::BufRead::lines(output).map_while(Result::ok);
        lines
            .filter(|line| line.starts_with("listening on "))
            .try_for_each(|line| sender.send(line))
    });
    let line = lines.recv_timeout(PATIENCE);
    let _ = child.kill();
    child.wait().unwrap();
    let line = line.expect("the server says where it listens");
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
            vec!["--data-dir", &data, "--listen", "127.0.0.1:0", "--store", "maybe"],
            vec!["store", "maybe"],
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
fn several_caches_have_their_own_priorities_sources_and_keys() {
    let own = tempdir();
    let file = own.path().join("snowbank.toml");
    let config = "[cache.default]\npriority = 31\n[cache.team]\npriority = 7\nsigning_keys = []\n";
    fs::write(&file, config).unwrap();
    let server = Setup::on(&own.path().join("data"))
        .local_store(&fixtures().store)
        .argument("--config")
        .argument(&file)
        .start();
    let priority =
        |prefix: &str| server.get(&format!("{prefix}/nix-cache-info")).expect(200).text();
    assert!(
        priority("").contains("Priority: 31\n")
            && priority("/c/default").contains("Priority: 31\n")
    );
    assert!(priority("/c/team").contains("Priority: 7\n"));
    // Only the default cache has the host's store by default.
    let narinfo = format!("{}.narinfo", path("leaf").hash());
    server.get(&format!("/{narinfo}")).expect(200);
    server.get(&format!("/c/team/{narinfo}")).expect(404);
}

#[test]
fn the_documented_example_is_a_configuration_that_loads() {
    let own = tempdir();
    let example = serve(&["--print-example-config"], &[]).expect_success().text();
    let file = own.path().join("snowbank.toml");
    fs::write(&file, example).unwrap();
    let setup = Setup::on(&own.path().join("data")).local_store(&fixtures().store);
    setup.argument("--config").argument(&file).start().get("/nix-cache-info").expect(200);
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
