//! A certificate by ACME, from Pebble: a real ACME server that looks for the proof, with a name server that leads every
//! name to this machine.

use std::{
    fs,
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::json;

use crate::support::{
    PATIENCE,
    authority::Authority,
    bank::{DataDirectory, data_directory},
    command,
    fixtures::fixtures,
    front::free_port,
    host::Process,
    nix::{Outcome, Scratch, run, tempdir},
    server::{Server, Setup},
    wait_until,
};

const NAME: &str = "cache.n3x.internal";

fn start(order: &mut Command, log: &Path) -> Process {
    let log = fs::File::create(log).unwrap();
    order.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    Process(order.spawn().unwrap())
}

/// An ACME server and its name server.
struct Pebble {
    own: Scratch,
    /// Signs the certificate of the ACME server itself.
    authority: Authority,
    directory: String,
    management: u16,
    server: Process,
    _names: Process,
}

impl Pebble {
    /// It looks for proofs at `port` of every name.
    fn start(port: u16) -> Self {
        let (own, authority) = (tempdir(), Authority::new());
        let shown = authority.issue("pebble");
        let [listen, management, names] = [free_port(), free_port(), free_port()];
        let config = own.path().join("pebble.json");
        let text = json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{listen}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": shown.certificate, "privateKey": shown.key,
            "httpPort": free_port(), "tlsPort": port, "ocspResponderURL": "",
        }});
        fs::write(&config, text.to_string()).unwrap();
        let mut order = command("pebble-challtestsrv");
        order.args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-management", "127.0.0.1:0"]);
        order.args(["-http01", "", "-https01", "", "-tlsalpn01", ""]);
        order.args(["-dns01", &format!("127.0.0.1:{names}")]);
        let names_server = start(&mut order, &own.path().join("names.log"));
        let mut order = command("pebble");
        order.arg("-config").arg(&config).args(["-dnsserver", &format!("127.0.0.1:{names}")]);
        order.env("PEBBLE_VA_NOSLEEP", "1");
        let server = start(&mut order, &own.path().join("pebble.log"));
        let directory = format!("https://localhost:{listen}/dir");
        let pebble = Self { own, authority, directory, management, server, _names: names_server };
        // It answers by TCP as well.
        wait_until("the name server is there", PATIENCE, || {
            TcpStream::connect(("127.0.0.1", names)).is_ok()
        });
        wait_until("the ACME server answers", PATIENCE, || {
            pebble.fetch(&pebble.directory).succeeded()
        });
        pebble
    }

    fn fetch(&self, url: &str) -> Outcome {
        let mut order = command("curl");
        order.args(["--silent", "--fail", "--max-time", "10", "--cacert"]);
        run(order.arg(self.authority.bundle()).arg(url), 20)
    }

    /// What whoever is to trust its certificates has to trust, which is another one at each start.
    fn root(&self) -> std::path::PathBuf {
        let url = format!("https://localhost:{}/roots/0", self.management);
        let file = self.own.path().join("issuer.pem");
        fs::write(&file, self.fetch(&url).expect_success().text()).unwrap();
        file
    }

    fn log(&self) -> String {
        fs::read_to_string(self.own.path().join("pebble.log")).unwrap()
    }
}

/// What has its certificate issued.
struct Issued {
    port: u16,
    directory: DataDirectory,
}

impl Issued {
    fn new() -> Self {
        Self { port: free_port(), directory: data_directory(&fixtures().bank("zstd")) }
    }

    fn start(&self, pebble: &Pebble, names: &[&str]) -> Server {
        let config = self.directory.data.with_extension("toml");
        let text = format!(
            "[tls]\ncertificate_from = 'acme'\nnames = {names:?}\nacme_directory = '{}'\n\
             acme_ca = '{}'\nacme_contact = 'ops@n3x.internal'\n",
            pebble.directory,
            pebble.authority.bundle().display()
        );
        fs::write(&config, text).unwrap();
        let tls = format!("https://127.0.0.1:{}", self.port);
        Setup::on(&self.directory.data)
            .bank_only(&fixtures().store)
            .argument("--config")
            .argument(config)
            .listen(&["127.0.0.1:0", &tls])
            .start()
    }

    fn get(&self, root: &Path) -> Outcome {
        let mut order = command("curl");
        order.args(["--silent", "--show-error", "--fail", "--max-time", "20", "--cacert"]);
        order.arg(root).args(["--resolve", &format!("{NAME}:{}:127.0.0.1", self.port)]);
        run(order.arg(format!("https://{NAME}:{}/nix-cache-info", self.port)), 30)
    }
}

fn renewals(server: &Server, result: &str) -> f64 {
    server.metric("snowbank_tls_renewals_total", &format!("result=\"{result}\""))
}

#[test]
fn a_certificate_is_issued_by_acme_kept_and_goes_on_while_the_acme_server_is_away() {
    let issued = Issued::new();
    let mut pebble = Pebble::start(issued.port);
    let server = issued.start(&pebble, &[NAME]);
    wait_until("the certificate is issued", PATIENCE, || {
        assert_eq!(renewals(&server, "failed"), 0.0, "{}\n{}", server.log(), pebble.log());
        renewals(&server, "ok") == 1.0
    });
    let root = pebble.root();
    assert!(issued.get(&root).expect_success().text().starts_with("StoreDir: "));
    wait_until("its end is exported", PATIENCE, || {
        server.metric("snowbank_tls_certificate_expiry_timestamp_seconds", "") > 1.8e9
    });
    for name in ["tls", "tls/issued.pem", "tls/acme-account.json"] {
        let mode = fs::metadata(issued.directory.data.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name}");
    }
    // After a start it is still there, and no other is asked for.
    server.stop();
    let server = issued.start(&pebble, &[NAME]);
    issued.get(&root).expect_success();
    assert_eq!(renewals(&server, "ok") + renewals(&server, "failed"), 0.0);
    server.stop();
    // With another name another one is due, and the ACME server is away.
    pebble.server.0.kill().unwrap();
    let server = issued.start(&pebble, &[NAME, "other.n3x.internal"]);
    wait_until("the failure is counted", PATIENCE, || renewals(&server, "failed") == 1.0);
    assert!(server.log().contains("no certificate was issued, and what is in use stays"));
    issued.get(&root).expect_success();
}

#[test]
fn before_the_first_certificate_comes_nothing_is_shown_and_the_rest_is_served() {
    let issued = Issued::new();
    // It looks at a port where nobody is.
    let pebble = Pebble::start(free_port());
    let server = issued.start(&pebble, &[NAME]);
    wait_until("the failure is counted", PATIENCE, || renewals(&server, "failed") == 1.0);
    assert!(server.log().contains("for the tls-alpn-01 challenge"), "{}", server.log());
    issued.get(&pebble.authority.bundle()).expect_failure();
    server.get("/nix-cache-info").expect(200);
}
