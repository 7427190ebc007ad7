//! Being a service: addresses, sockets from systemd, signals, and what is left behind.

use std::{
    fs,
    net::TcpListener,
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt, net::UnixDatagram},
    },
    process::Stdio,
    time::Duration,
};

use rustix::process::Signal;

use crate::support::{
    PATIENCE,
    fixtures::{fixtures, path},
    http::{Connection, fields},
    nix::tempdir,
    server::Setup,
    wait_until,
};

#[test]
fn several_addresses_and_a_unix_socket_are_served_at_once() {
    // The path of a unix socket may have 107 bytes, and a directory under target/ may need them all.
    let short = tempfile::Builder::new().prefix("sb").tempdir_in("/tmp").unwrap();
    let socket = short.path().join("snowbank.sock");
    let server = Setup::bare()
        .local_store(&fixtures().store)
        .listen(&["127.0.0.1:0", "127.0.0.2:0", &format!("unix:{}", socket.display())])
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
        .listen(&["systemd"])
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
    let key = own.path().join("rotated.secret");
    let rotate = |name: &str| {
        let secret = fixtures().store.run("nix", &["key", "generate-secret", "--key-name", name]);
        let next = own.path().join("next");
        fs::write(&next, secret).unwrap();
        fs::set_permissions(&next, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(&next, &key).unwrap();
    };
    rotate("first-1");
    let file = own.path().join("snowbank.toml");
    fs::write(
        &file,
        format!("[cache.default]\nsigning_keys = [\"generated\", {:?}]\n", key.to_str().unwrap()),
    )
    .unwrap();
    let mut server = Setup::on(&own.path().join("data"))
        .local_store(&fixtures().store)
        .argument("--config")
        .argument(&file)
        .start();
    let url = format!("/{}.narinfo", path("refs").hash());
    let signatures = || fields(&server.get(&url).expect(200).text(), "Sig");
    let signed_by =
        |name: &str| signatures().iter().filter(|signature| signature.starts_with(name)).count();
    assert_eq!((signatures().len(), signed_by("first-1:")), (2, 1), "both keys sign");
    rotate("second-1");
    server.signal(Signal::HUP);
    wait_until("the new key to sign", PATIENCE, || signed_by("second-1:") == 1);
    assert_eq!((signatures().len(), signed_by("first-1:")), (2, 0), "and the old one no longer");
    // A key that does not parse changes nothing.
    fs::write(&key, "nonsense").unwrap();
    server.signal(Signal::HUP);
    wait_until("a line about the broken key", PATIENCE, || server.log().contains("rotated.secret"));
    assert_eq!(
        (signatures().len(), signed_by("second-1:")),
        (2, 1),
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
fn idle_connections_do_not_keep_a_server_from_ending() {
    let mut server = Setup::bare().local_store(&fixtures().store).start();
    let mut idle = server.connect();
    idle.request("GET", "/nix-cache-info", &[]).expect(200);
    server.signal(Signal::TERM);
    assert!(server.wait(Duration::from_secs(10)).success());
    assert!(idle.closes_within(PATIENCE));
}
