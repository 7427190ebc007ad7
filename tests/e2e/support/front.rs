//! nginx and Caddy before a server, over TLS, as README.md says to set them up.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Stdio},
};

use super::{
    PATIENCE,
    authority::Issued,
    command,
    nix::{Scratch, tempdir},
    wait_for,
};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Nginx,
    Caddy,
}

/// A port that was free a moment ago, for programs that cannot be told to take any.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What `start` makes of a free port. It may make nothing of it: somebody else may be faster.
#[track_caller]
pub(crate) fn on_free_port<T>(what: &str, start: impl FnMut(u16) -> Option<T>) -> T {
    let ports = (0..5).map(|_| free_port());
    ports.filter_map(start).next().unwrap_or_else(|| panic!("{what} did not start"))
}

/// Whether a program listens at a port, rather than having ended; what it said then is printed.
pub(crate) fn listens(process: &mut Child, port: u16, log: &Path) -> bool {
    let listens =
        wait_for("a program listens or ends", PATIENCE, || match process.try_wait().unwrap() {
            Some(_) => Some(false),
            None => TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(true),
        });
    if !listens {
        println!("{}", fs::read_to_string(log).unwrap());
    }
    listens
}

/// A proxy that is ended with the test.
pub(crate) struct Front {
    process: Child,
    port: u16,
    own: Scratch,
}

impl Front {
    #[track_caller]
    pub(crate) fn start(kind: Kind, issued: &Issued, to: SocketAddr) -> Self {
        on_free_port(&format!("{kind:?}"), |port| {
            let mut front = Self::start_on(kind, issued, to, port);
            listens(&mut front.process, port, &front.own.path().join("log")).then_some(front)
        })
    }

    fn start_on(kind: Kind, issued: &Issued, to: SocketAddr, port: u16) -> Self {
        let own = tempdir();
        let file = own.path().join("config");
        let mut order = match kind {
            Kind::Nginx => {
                fs::write(&file, nginx(issued, to, port, &own)).unwrap();
                let mut order = command("nginx");
                order.arg("-p").arg(own.path()).arg("-c").arg(&file);
                // Root's nginx would hand its files to an account of Debian's.
                order.args(["-e", "stderr", "-g", "daemon off;"]);
                order
            }
            Kind::Caddy => {
                fs::write(&file, caddy(issued, to, port)).unwrap();
                let mut order = command("caddy");
                order.args(["run", "--adapter", "caddyfile", "--config"]).arg(&file);
                order.env("HOME", own.path()).env("XDG_DATA_HOME", own.path());
                order.env("XDG_CONFIG_HOME", own.path());
                order
            }
        };
        let log = fs::File::create(own.path().join("log")).unwrap();
        order.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self { process: order.spawn().unwrap(), port, own }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.own.path().join("log")).unwrap()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        // nginx has workers, which end with their master if that is told and not killed.
        let process = rustix::process::Pid::from_child(&self.process);
        let _ = rustix::process::kill_process(process, rustix::process::Signal::TERM);
        let _ = self.process.wait();
    }
}

fn nginx(issued: &Issued, to: SocketAddr, port: u16, own: &Scratch) -> String {
    let (certificate, key) = (issued.certificate.display(), issued.key.display());
    let own = own.path().display();
    format!(
        "user {user};
pid {own}/pid;
worker_processes 2;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {own}/body;
  proxy_temp_path {own}/proxy;
  fastcgi_temp_path {own}/fastcgi;
  uwsgi_temp_path {own}/uwsgi;
  scgi_temp_path {own}/scgi;
  upstream snowbank {{
    server {to};
    keepalive 32;
  }}
  server {{
    listen 127.0.0.1:{port} ssl http2;
    server_name localhost;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    client_max_body_size 0;
    location / {{
      proxy_pass http://snowbank;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_set_header Host $host;
      proxy_buffering off;
      proxy_request_buffering off;
    }}
  }}
}}
",
        user = if rustix::process::geteuid().is_root() { "root" } else { "nobody" },
    )
}

fn caddy(issued: &Issued, to: SocketAddr, port: u16) -> String {
    let (certificate, key) = (issued.certificate.display(), issued.key.display());
    format!(
        "{{
  admin off
  auto_https off
}}
https://localhost:{port} {{
  bind 127.0.0.1
  tls {certificate} {key}
  reverse_proxy {to} {{
    flush_interval -1
  }}
}}
"
    )
}
