//! `snowbank zfs replicate` through a real ssh to a real sshd.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    process::Child,
};

use crate::replicate::Node;
use crate::support::{PATIENCE, command, run, wait_until};

/// An sshd on loopback that lets root in with a key, and what tells ssh where it is, as `node-b`.
struct Sshd {
    child: Child,
    _own: tempfile::TempDir,
}

/// Root's own: ssh looks nowhere else, whatever `HOME` says.
const CONFIG: &str = "/root/.ssh/config";

impl Sshd {
    fn start() -> Self {
        let own = tempfile::tempdir().unwrap();
        let file = |name: &str| own.path().join(name).display().to_string();
        for key in ["host", "client"] {
            run("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", &file(key)]);
        }
        // Nobody else is on this machine who could take the port.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let settings = [
            format!("Port {port}\nListenAddress 127.0.0.1\nHostKey {}", file("host")),
            format!("AuthorizedKeysFile {}\nStrictModes no", file("client.pub")),
            "PermitRootLogin prohibit-password\nUsePAM no\nPidFile none\n".into(),
        ];
        fs::write(file("sshd_config"), settings.join("\n")).unwrap();
        fs::create_dir_all("/run/sshd").unwrap();
        fs::create_dir_all("/root/.ssh").unwrap();
        let known = file("known_hosts");
        let settings = format!(
            "Host node-b\nHostName 127.0.0.1\nPort {port}\nIdentityFile {}\nUserKnownHostsFile {known}\n\
             StrictHostKeyChecking accept-new\n",
            file("client")
        );
        fs::write(CONFIG, settings).unwrap();
        let child = command("/usr/sbin/sshd").args(["-D", "-f", &file("sshd_config")]).spawn();
        let sshd = Self { child: child.unwrap(), _own: own };
        wait_until("sshd to listen", PATIENCE, || TcpStream::connect(("127.0.0.1", port)).is_ok());
        sshd
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(CONFIG);
    }
}

#[test]
fn a_copy_on_another_machine_follows_by_ssh_and_one_that_cannot_be_reached_is_told() {
    let (a, b) = (Node::new(), Node::new());
    let copy = b.dataset("from-a");
    let words = ["zfs", "replicate", "default", "--to", &format!("root@node-b:{copy}"), "--json"];
    a.write("one", 3_000_000);
    let sshd = Sshd::start();
    let first = a.place.root(&words).json();
    assert!(first["sent"][0]["bytes"].as_u64().unwrap() > 3_000_000, "{first}");
    assert_eq!(fs::read(b.received("from-a").join("one")).unwrap().len(), 3_000_000);
    a.write("two", 1_000_000);
    let second = a.place.root(&words).json();
    let bytes = second["sent"][0]["bytes"].as_u64().unwrap();
    assert!((1_000_000..2_000_000).contains(&bytes), "{second}");
    assert!(b.received("from-a").join("two").exists());
    drop(sshd);
    let refused = a.place.root(&words).refusal();
    assert!(refused.contains("node-b"), "{refused}");
}
