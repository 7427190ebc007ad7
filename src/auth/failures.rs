//! How often an address has shown a wrong token lately.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Wrong tokens of an address within a [`WINDOW`] before it is told to wait.
pub(super) const MOST: u32 = 10;
/// See [`MOST`].
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are remembered. Beyond it all are forgotten: 256 bits are not guessed
/// from any number of addresses, so what is bounded here is work, and no lock.
const ADDRESSES: usize = 10_000;

/// Counts by address; an IPv6 network of 64 bits is one.
#[derive(Default)]
pub(super) struct Failures(Mutex<HashMap<Option<IpAddr>, Count>>);

struct Count {
    since: Instant,
    failures: u32,
}

impl Failures {
    /// Counts a failure; whether the address had too many already.
    pub(super) fn count(&self, source: Option<IpAddr>, now: Instant) -> bool {
        let mut counts = self.counts();
        let network = source.map(network);
        if counts.len() >= ADDRESSES && !counts.contains_key(&network) {
            counts.retain(|_, count| now.saturating_duration_since(count.since) < WINDOW);
            if counts.len() >= ADDRESSES {
                counts.clear();
            }
        }
        let count = counts.entry(network).or_insert(Count { since: now, failures: 0 });
        if now.saturating_duration_since(count.since) >= WINDOW {
            *count = Count { since: now, failures: 0 };
        }
        count.failures = count.failures.saturating_add(1);
        count.failures > MOST
    }

    /// A poisoned lock holds whole counts.
    fn counts(&self) -> MutexGuard<'_, HashMap<Option<IpAddr>, Count>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn the_eleventh_failure_within_a_minute_is_too_many_and_the_next_minute_begins_anew() {
        let failures = Failures::default();
        let began = Instant::now();
        for second in 0..MOST {
            let at = began + Duration::from_secs(second.into());
            assert!(!failures.count(address("192.0.2.1"), at));
        }
        let at = |second| began + Duration::from_secs(second);
        assert!(failures.count(address("192.0.2.1"), at(59)));
        assert!(!failures.count(address("192.0.2.2"), at(59)), "another address");
        assert!(!failures.count(None, at(59)), "a unix socket");
        assert!(!failures.count(address("192.0.2.1"), at(60)));
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let failures = Failures::default();
        let now = Instant::now();
        for number in 0..MOST {
            assert!(!failures.count(address(&format!("2001:db8::{number}")), now));
        }
        assert!(failures.count(address("2001:db8::ffff:1"), now));
        assert!(!failures.count(address("2001:db8:0:1::1"), now));
    }

    #[test]
    fn a_flood_of_addresses_takes_no_more_memory_than_it_may() {
        let failures = Failures::default();
        let now = Instant::now();
        for number in 0..3 * ADDRESSES {
            let bits = u32::try_from(number).unwrap();
            failures.count(Some(Ipv4Addr::from_bits(bits).into()), now);
            assert!(failures.counts().len() <= ADDRESSES);
        }
    }
}
