//! Who may connect: so many in all, and so many from one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use super::{ConnectionStats, ListenLimits};
use crate::auth::certificate::ClientCertificate;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Over TCP, from this address.
    Tcp(SocketAddr),
    /// Over a unix socket.
    Unix,
}

impl Peer {
    /// Its address; `None` at a unix socket.
    pub const fn address(self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip()),
            Self::Unix => None,
        }
    }
}

/// Whose requests come over a connection.
#[derive(Clone, Debug)]
pub struct Client {
    /// Who is at the other end.
    pub peer: Peer,
    /// What it showed when the connection began, its chain verified.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// Whether it came over TLS.
    pub is_secure: bool,
}

/// Counts connections.
#[derive(Debug)]
pub(super) struct Admission {
    permits: Arc<Semaphore>,
    total: u32,
    per_network: usize,
    counts: Mutex<HashMap<IpAddr, usize>>,
    stats: Arc<ConnectionStats>,
}

/// A connection that was let in; dropping it gives its place back.
#[derive(Debug)]
pub(super) struct Admitted {
    admission: Arc<Admission>,
    network: Option<IpAddr>,
    _permit: OwnedSemaphorePermit,
}

impl Admission {
    pub(super) fn new(limits: &ListenLimits, stats: Arc<ConnectionStats>) -> Arc<Self> {
        let total = u32::try_from(limits.connections).unwrap_or(u32::MAX).max(1);
        Arc::new(Self {
            permits: Arc::new(Semaphore::new(total as usize)),
            total,
            per_network: limits.connections_per_ip,
            counts: Mutex::default(),
            stats,
        })
    }

    /// Waits for a place. It is taken *before* a connection is accepted, so that at the limit new
    /// ones wait in the kernel's queue and cost us neither memory nor file descriptors.
    pub(super) async fn place(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        self.permits.clone().acquire_owned().await
    }

    /// Lets `peer` in, unless its network has too many connections already.
    pub(super) fn admit(
        self: &Arc<Self>,
        peer: Peer,
        permit: OwnedSemaphorePermit,
    ) -> Option<Admitted> {
        let network = counted_network(peer);
        if let Some(network) = network {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(network).or_default();
            if *count >= self.per_network {
                self.stats.refused.fetch_add(1, Relaxed);
                return None;
            }
            *count += 1;
        }
        self.stats.accepted.fetch_add(1, Relaxed);
        self.stats.open.fetch_add(1, Relaxed);
        Some(Admitted { admission: self.clone(), network, _permit: permit })
    }

    /// Waits until no connection is left.
    pub(super) async fn all_gone(&self) {
        // It fails only when the semaphore is closed, which nobody does.
        let _all = self.permits.acquire_many(self.total).await;
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.stats.open.fetch_sub(1, Relaxed);
        let Some(network) = self.network else { return };
        let mut counts = self.admission.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&network);
            }
        }
    }
}

/// What connections from `peer` are counted under: an IPv4 address, or an IPv6 /64, which is what one
/// host can choose its address from.
///
/// Unix sockets and loopback are not counted. Behind a proxy on this host every client comes from
/// there, and whoever can run programs here has better ways to harm.
fn counted_network(peer: Peer) -> Option<IpAddr> {
    let Peer::Tcp(address) = peer else { return None };
    match address.ip().to_canonical() {
        ip if ip.is_loopback() => None,
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            Some(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
        }
        ip => Some(ip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(connections_per_ip: usize) -> Arc<Admission> {
        let limits = ListenLimits { connections_per_ip, ..ListenLimits::default() };
        Admission::new(&limits, Arc::default())
    }

    async fn enter(admission: &Arc<Admission>, ip: &str) -> Option<Admitted> {
        let permit = admission.place().await.unwrap();
        admission.admit(Peer::Tcp(SocketAddr::new(ip.parse().unwrap(), 1)), permit)
    }

    #[tokio::test]
    async fn an_address_has_its_share_and_gets_it_back() {
        let admission = admission(1);
        let first = enter(&admission, "192.0.2.1").await;
        assert!(first.is_some());
        assert!(enter(&admission, "192.0.2.1").await.is_none());
        assert!(enter(&admission, "::ffff:192.0.2.1").await.is_none(), "the same, mapped");
        assert!(enter(&admission, "192.0.2.2").await.is_some());
        drop(first);
        assert!(enter(&admission, "192.0.2.1").await.is_some());
        assert_eq!(admission.stats.refused.load(Relaxed), 2);
        assert_eq!(admission.stats.open.load(Relaxed), 0);
        assert!(admission.counts.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_ipv6_host_cannot_multiply_itself() {
        let admission = admission(1);
        let _first = enter(&admission, "2001:db8::1").await.unwrap();
        assert!(enter(&admission, "2001:db8::2").await.is_none());
        assert!(enter(&admission, "2001:db8:0:1::1").await.is_some());
    }

    #[tokio::test]
    async fn loopback_and_unix_sockets_are_not_counted() {
        let admission = admission(1);
        let mut inside = Vec::new();
        for ip in ["127.0.0.1", "127.0.0.1", "::1", "::1"] {
            inside.push(enter(&admission, ip).await.unwrap());
        }
        let permit = admission.place().await.unwrap();
        assert!(admission.admit(Peer::Unix, permit).is_some());
    }
}
