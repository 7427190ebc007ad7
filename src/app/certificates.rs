//! Has new connections get the certificate that lies on the disk now.

use std::sync::Arc;
use std::time::Duration;

use crate::http::listen::ListenAddress;
use crate::http::state::State;
use crate::tls::server::{Reloaded, Tls};

/// How often it is looked for changed files. Looking is two system calls.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Reads the certificate again whenever its files change, for ever; what cannot be used is told once, and
/// what is in use stays.
pub(super) async fn keep_current(
    tls: Option<Arc<Tls>>,
    listeners: &[ListenAddress],
    state: &Arc<State>,
) {
    let Some(tls) = tls else { return std::future::pending().await };
    let mut told = None;
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let looked = {
            let tls = Arc::clone(&tls);
            tokio::task::spawn_blocking(move || tls.reload().map_err(|error| error.to_string()))
        };
        let looked = looked.await;
        for listener in listeners.iter().filter(|address| matches!(address, ListenAddress::Tls(_)))
        {
            let revocations = tls.revocations().count();
            state.metrics.tls.shown(&listener.to_string(), tls.not_after(), revocations);
        }
        match looked {
            Ok(Ok(Reloaded::Same)) => told = None,
            Ok(Ok(Reloaded::New)) => {
                tracing::info!("new connections get what the files of tls hold now");
                state.metrics.tls.reloaded(true);
                told = None;
            }
            // Certificate and key are two files: they may be caught between the one and the other.
            Ok(Err(error)) if told.as_ref() == Some(&error) => {}
            Ok(Err(error)) => {
                tracing::error!("what is in use stays: {error}");
                state.metrics.tls.reloaded(false);
                told = Some(error);
            }
            Err(_) => tracing::error!("looking for a new certificate failed"),
        }
    }
}
