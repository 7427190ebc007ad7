//! Has new connections get the certificate that lies on the disk now, and has the next one issued in time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::runtime::Handle;
use zeroize::Zeroizing;

use crate::bank::publish::private::{make_private_directory, replace_private_file};
use crate::http::listen::ListenAddress;
use crate::http::state::State;
use crate::tls::acme::Obtained;
use crate::tls::issuance::Issuance;
use crate::tls::server::{Reloaded, Tls};

/// How often it is looked for changed files. Looking is two system calls.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often it is looked whether the next certificate is due.
const DUE_EVERY: Duration = Duration::from_secs(60);
/// How long to wait after a failure, which is doubled with each one more.
const RETRY_FIRST: Duration = Duration::from_secs(30);
/// The longest wait: a certificate of a day is due with eight hours left.
const RETRY_LAST: Duration = Duration::from_secs(3600);

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
        told = look(&tls, state, told).await;
        for listener in listeners.iter().filter(|address| matches!(address, ListenAddress::Tls(_)))
        {
            let revocations = tls.revocations().count();
            let not_after = tls.validity().map_or(0, |validity| validity.not_after);
            state.metrics.tls.shown(&listener.to_string(), not_after, revocations);
        }
    }
}

/// Looks once. `told` is what is wrong with the files and was told already.
async fn look(tls: &Arc<Tls>, state: &Arc<State>, told: Option<String>) -> Option<String> {
    let shared = Arc::clone(tls);
    let looked =
        tokio::task::spawn_blocking(move || shared.reload().map_err(|error| error.to_string()));
    match looked.await {
        Ok(Ok(Reloaded::Same)) => None,
        Ok(Ok(Reloaded::New)) => {
            tracing::info!("new connections get what the files of tls hold now");
            state.metrics.tls.reloaded(true);
            None
        }
        // Certificate and key are two files: they may be caught between the one and the other.
        Ok(Err(error)) if told.as_ref() == Some(&error) => told,
        Ok(Err(error)) => {
            tracing::error!("what is in use stays: {error}");
            state.metrics.tls.reloaded(false);
            Some(error)
        }
        Err(_) => {
            tracing::error!("looking for a new certificate failed");
            told
        }
    }
}

/// Has a certificate issued whenever the next one is due, for ever.
pub(super) async fn keep_renewed(
    issuance: Option<Arc<Issuance>>,
    tls: Option<Arc<Tls>>,
    state: &Arc<State>,
) {
    let (Some(issuance), Some(tls)) = (issuance, tls) else {
        return std::future::pending().await;
    };
    let mut after_failure = RETRY_FIRST;
    loop {
        let pause = match renew(&issuance, &tls).await {
            Ok(false) => DUE_EVERY,
            Ok(true) => {
                tracing::info!("a certificate was issued for {}", issuance.names().join(", "));
                state.metrics.tls.renewed(true);
                after_failure = RETRY_FIRST;
                // Never more often than this, whatever stands in what was issued.
                RETRY_FIRST
            }
            Err(why) => {
                tracing::error!("no certificate was issued, and what is in use stays: {why}");
                state.metrics.tls.renewed(false);
                let pause = after_failure;
                let most = if issuance.is_near() { DUE_EVERY } else { RETRY_LAST };
                after_failure = (after_failure * 2).min(most);
                pause
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Has a certificate issued if it is time, and says whether one was.
async fn renew(issuance: &Arc<Issuance>, tls: &Arc<Tls>) -> Result<bool, String> {
    let (issuance, tls, runtime) = (Arc::clone(issuance), Arc::clone(tls), Handle::current());
    // A thread of its own: there are files to be read and written in between, and a server to be waited for.
    let renewed = tokio::task::spawn_blocking(move || {
        let now = Timestamp::now().as_second();
        let is_due = tls.validity().is_none_or(|validity| validity.is_due(now, &issuance.names()));
        if !is_due && issuance.is_by_the_same(&tls.chain()) {
            return Ok(false);
        }
        let directory = tls.certificate_file().parent().unwrap_or(Path::new("/"));
        make_private_directory(directory).map_err(|error| error.to_string())?;
        let obtained = runtime.block_on(issuance.obtain(tls.challenges(), now));
        keep(&obtained.map_err(|error| error.to_string())?, &tls)?;
        Ok(true)
    });
    renewed.await.map_err(|error| error.to_string())?
}

/// Certificate and key in one file, so that neither is ever without the other.
fn keep(obtained: &Obtained, tls: &Tls) -> Result<(), String> {
    let path = tls.certificate_file();
    let text = Zeroizing::new(format!("{}{}", obtained.certificate, obtained.key.as_str()));
    replace_private_file(path, text.as_bytes()).map_err(|error| error.to_string())?;
    tls.reload().map(drop).map_err(|error| error.to_string())
}
