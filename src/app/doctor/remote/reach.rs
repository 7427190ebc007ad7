//! The name and the connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::super::{Finding, Verdict};
use super::{Step, Stopped};
use crate::source::upstream::connect::Address;

/// How long a name may take; the resolver of the system has no limit that one could set.
const DNS_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may take to come about; Nix waits 5 to 15 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a server may take for a handshake and for its first answer, together.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// When no further address of a name is tried.
const CONNECT_TIMEOUT_OF_ALL: Duration = Duration::from_secs(15);

/// A connection that ends at a time, whatever trickles through it.
#[derive(Debug)]
pub(super) struct Bounded {
    stream: TcpStream,
    deadline: Instant,
}

impl Bounded {
    /// Connects, to be done within [`ANSWER_TIMEOUT`].
    pub(super) fn open(place: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&place, CONNECT_TIMEOUT)?;
        Ok(Self { stream, deadline: Instant::now() + ANSWER_TIMEOUT })
    }

    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buffer)
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Whether an error means that nothing came in time.
pub(super) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

/// An address of the server that takes connections.
pub(super) fn reach(address: &Address, findings: &mut Vec<Finding>) -> Result<SocketAddr, Stopped> {
    let host = address.host();
    let places = resolve(host, address.port()).map_err(|why| {
        findings.push(Finding::problem(
            format!("DNS: {host} has no address ({why})"),
            format!(
                "look for a typing error in the URL; then `getent hosts {host}`, /etc/resolv.conf, and \
                 whether a VPN is needed"
            ),
        ));
        Stopped(Step::Dns)
    })?;
    let list = places.iter().map(|place| place.ip().to_string()).collect::<Vec<_>>().join(", ");
    findings.push(Finding::ok(format!("DNS: {host} is {list}")));
    connect(&places, findings).ok_or(Stopped(Step::Tcp))
}

/// The first of the addresses that takes a connection. All are tried, for Nix may come upon each.
fn connect(places: &[SocketAddr], findings: &mut Vec<Finding>) -> Option<SocketAddr> {
    let begin = Instant::now();
    let mut reached = None;
    let mut failed = Vec::new();
    for place in places {
        if begin.elapsed() > CONNECT_TIMEOUT_OF_ALL {
            break;
        }
        let start = Instant::now();
        match TcpStream::connect_timeout(place, CONNECT_TIMEOUT) {
            Ok(_) => {
                reached.get_or_insert((*place, start.elapsed()));
            }
            Err(error) => failed.push((*place, error)),
        }
    }
    if reached.is_some() {
        // Of a family that this machine has not: that is found out at once, and costs nothing.
        failed.retain(|(_, error)| !has_no_route(error));
    }
    findings.extend(failed.iter().map(|(place, error)| Finding {
        verdict: if reached.is_some() { Verdict::Warning } else { Verdict::Problem },
        ..unreached(*place, error)
    }));
    let (place, took) = reached?;
    findings.push(Finding::ok(format!("TCP: {place} answers, in {} ms", took.as_millis())));
    Some(place)
}

fn has_no_route(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable)
}

fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let (sender, receiver) = mpsc::channel();
    let name = host.to_owned();
    // It is left behind if it does not end: the process ends soon.
    thread::spawn(move || {
        let found = (name.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
        // Nobody may be waiting any more.
        let _late = sender.send(found);
    });
    match receiver.recv_timeout(DNS_TIMEOUT) {
        Ok(Ok(places)) if places.is_empty() => Err("the name exists, and has none".into()),
        Ok(Ok(places)) => Ok(places),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer in {} s", DNS_TIMEOUT.as_secs())),
    }
}

fn unreached(place: SocketAddr, error: &io::Error) -> Finding {
    let port = place.port();
    let (what, remedy) = match error.kind() {
        io::ErrorKind::ConnectionRefused => (
            "connection refused: nothing listens there".to_owned(),
            format!(
                "start the server, or correct the port {port} in the URL; a firewall may refuse too"
            ),
        ),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => (
            format!("no connection in {} s", CONNECT_TIMEOUT.as_secs()),
            format!("look for a firewall that drops port {port}, and whether a VPN is needed"),
        ),
        _ => (error.to_string(), "look at the routes and firewalls of this machine".to_owned()),
    };
    Finding::problem(format!("TCP: {place}: {what}"), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_there_is_told_from_who_does_not_answer() {
        let place = SocketAddr::from(([127, 0, 0, 1], 9));
        let said = unreached(place, &io::ErrorKind::ConnectionRefused.into()).to_string();
        assert!(said.contains("127.0.0.1:9: connection refused: nothing listens there"), "{said}");
        let said = unreached(place, &io::ErrorKind::TimedOut.into()).to_string();
        assert!(said.contains("no connection in 5 s") && said.contains("firewall"), "{said}");
    }

    #[test]
    fn an_address_that_fails_beside_one_that_answers_is_a_warning_and_no_route_is_nothing() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let good = listener.local_addr().unwrap();
        let refused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut findings = Vec::new();
        assert_eq!(connect(&[refused, good], &mut findings), Some(good));
        let verdicts: Vec<_> = findings.iter().map(|finding| finding.verdict).collect();
        assert_eq!(verdicts, [Verdict::Warning, Verdict::Ok], "{findings:?}");
        findings.clear();
        assert_eq!(connect(&[refused], &mut findings), None);
        assert_eq!(findings[0].verdict, Verdict::Problem);
        assert!(has_no_route(&io::ErrorKind::NetworkUnreachable.into()));
    }

    #[test]
    fn a_name_that_is_none_is_a_problem_with_what_to_do() {
        let address = Address::parse("http://no-such-host.invalid").unwrap();
        let mut findings = Vec::new();
        assert!(reach(&address, &mut findings).is_err());
        let said = findings[0].to_string();
        assert!(said.contains("DNS: no-such-host.invalid has no address"), "{said}");
    }
}
