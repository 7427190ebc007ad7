//! Who looks at a page, and what of it they are shown.

use std::net::IpAddr;
use std::sync::Arc;

use http::request::Parts;

use crate::auth::{Audience, Caller, Credential, Right};
use crate::http::auth::{Admitted, Origin, credential, know_tokens};
use crate::http::error::Failure;
use crate::http::state::State;
use crate::source::cache::Cache;

/// Headers by which proxies say for whom they ask.
const OF_PROXIES: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];

/// Somebody who looks at a page of a cache.
pub(super) struct Viewer {
    /// Whether the cache knows them by what they show.
    pub(super) is_known: bool,
    /// Whether they are shown what is not everybody's.
    pub(super) sees_status: bool,
    /// The caches that they may read.
    pub(super) caches: Vec<Arc<Cache>>,
}

impl Viewer {
    /// Who it is that was admitted to a page of `cache`.
    pub(super) async fn of(
        state: &Arc<State>,
        cache: &Cache,
        request: &Parts,
    ) -> Result<Self, Failure> {
        let Some(Admitted { origin, .. }) = request.extensions.get() else {
            return Err(Failure::NotFound);
        };
        let shown = credential(&request.headers);
        // Where tokens cannot be checked nobody is known.
        let shown = match know_tokens(state, &shown).await? {
            Ok(()) => shown,
            Err(_) => Credential::None,
        };
        let (certificate, source) = (origin.certificate.as_ref(), origin.source);
        let caller = Caller { credential: &shown, certificate, source };
        let is_known = state.gate.knows(&cache.name, caller).is_some();
        let sees_status = match state.status_for {
            Audience::Nobody => false,
            Audience::Known => is_known,
            Audience::Loopback => is_known || is_of_this_machine(origin, request),
            Audience::Everybody => true,
        };
        let may_read = |cache: &&Arc<Cache>| {
            let open = state.gate.is_open(&cache.name, Right::Pull);
            open || (is_known && state.gate.check(&cache.name, Right::Pull, caller).is_ok())
        };
        let caches = state.caches.values().filter(may_read).map(Arc::clone).collect();
        Ok(Self { is_known, sees_status, caches })
    }
}

/// Whether it is asked from this machine, and for nobody else.
fn is_of_this_machine(origin: &Origin, request: &Parts) -> bool {
    origin.source.is_some_and(is_loopback)
        && !OF_PROXIES.iter().any(|name| request.headers.contains_key(*name))
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn a_request_by_a_proxy_is_not_of_this_machine() {
        let origin = |source: Option<&str>| Origin {
            source: source.map(|source| source.parse().unwrap()),
            ..Origin::default()
        };
        let plain = Request::new(()).into_parts().0;
        for own in ["127.0.0.1", "::1", "127.8.0.1", "::ffff:127.0.0.1"] {
            assert!(is_of_this_machine(&origin(Some(own)), &plain), "{own}");
        }
        for other in [Some("10.0.0.1"), Some("fe80::1"), None] {
            assert!(!is_of_this_machine(&origin(other), &plain), "{other:?}");
        }
        for header in OF_PROXIES {
            let request = Request::builder().header(header, "x").body(()).unwrap();
            assert!(!is_of_this_machine(&origin(Some("::1")), &request.into_parts().0), "{header}");
        }
    }
}
