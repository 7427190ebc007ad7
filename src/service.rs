//! Being a service: signals come in, and the service manager is told how we are.
//!
//! | signal | what happens |
//! |---|---|
//! | SIGTERM, SIGINT | requests in flight are finished, up to the drain deadline |
//! | a second one | nothing is waited for |
//! | SIGHUP | `reload` is called: keys are read again |
//!
//! `sd_notify` is spoken to the socket in `NOTIFY_SOCKET`: READY once we listen, RELOADING around a
//! reload, STOPPING when we drain, and WATCHDOG at half its time for as long as we are healthy, so that
//! a server that is stuck is killed and started again.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::http::listen::Stage;

/// Tells the service manager how we are; without one it does nothing.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// Finds the service manager through the variables that `lookup` looks up.
    ///
    /// A variable that makes no sense is an error: a service that never says it is ready would be
    /// killed by its manager later, with less to say why.
    pub fn from_environment(lookup: impl Fn(&str) -> Option<OsString>) -> io::Result<Self> {
        let Some(name) = lookup("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(Self::default());
        };
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&name)?,
        };
        let socket = UnixDatagram::unbound()?;
        // Our manager may be stuck; we are not to be.
        socket.set_nonblocking(true)?;
        let number = |name: &str| lookup(name)?.to_str()?.parse::<u64>().ok();
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|time| ours && *time > 0);
        let watchdog = watchdog.map(Duration::from_micros);
        Ok(Self { socket: Some((socket, address)), watchdog })
    }

    /// We listen.
    pub fn ready(&self) {
        self.send(&[NotifyState::Ready]);
    }

    /// We are ending.
    pub fn stopping(&self) {
        self.send(&[NotifyState::Stopping]);
    }

    /// One line for `systemctl status`.
    pub fn status(&self, line: &str) {
        self.send(&[NotifyState::Status(line)]);
    }

    fn reloading(&self) {
        // The time is what tells systemd which READY belongs to this reload (`Type=notify-reload`).
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.send(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "cannot read the clock for the service manager"),
        }
    }

    /// Says that we are alive at half the watchdog's time, as long as `is_healthy` says so; for ever.
    ///
    /// A probe that hangs says nothing, and so do we.
    pub async fn watch<H: Future<Output = bool>>(&self, is_healthy: impl Fn() -> H) {
        let Some(time) = self.watchdog else { return std::future::pending().await };
        let mut beat = tokio::time::interval(time / 2);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            if is_healthy().await {
                self.send(&[NotifyState::Watchdog]);
            } else {
                tracing::warn!("not healthy: the watchdog is not told that all is well");
            }
        }
    }

    fn send(&self, states: &[NotifyState<'_>]) {
        let Some((socket, address)) = &self.socket else { return };
        let message: String = states.iter().map(|state| format!("{state}\n")).collect();
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            tracing::warn!(%error, "cannot tell the service manager how we are");
        }
    }
}

/// The signals that a service gets. They are caught from its making on.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Catches the signals; must be called on a runtime.
    pub fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Turns signals into stages and reloads; returns once nothing is to be waited for any more.
    pub async fn obey(
        mut self,
        stage: &watch::Sender<Stage>,
        notifier: &Notifier,
        reload: impl AsyncFn(),
    ) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
                _ = self.hangup.recv() => {
                    notifier.reloading();
                    reload().await;
                    notifier.ready();
                    continue;
                }
            }
            if *stage.borrow() == Stage::Serving {
                tracing::info!("finishing the requests in flight; a second signal ends them");
                notifier.stopping();
                stage.send_replace(Stage::Draining);
            } else {
                tracing::warn!("a second signal: ending at once");
                stage.send_replace(Stage::Aborting);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::path::Path;
    use std::sync::Mutex;

    use tokio::net::UnixDatagram as Datagrams;
    use tokio::time::{Instant, timeout};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A service manager's end of the conversation.
    struct Manager {
        socket: Datagrams,
        directory: tempfile::TempDir,
    }

    impl Manager {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let socket = Datagrams::bind(directory.path().join("notify")).unwrap();
            Self { socket, directory }
        }

        fn notifier(&self, watchdog: &str) -> Notifier {
            notifier(&self.directory.path().join("notify"), watchdog)
        }

        async fn hears(&self) -> String {
            let mut buffer = [0; 1000];
            let received = timeout(PATIENCE, self.socket.recv(&mut buffer)).await;
            let length = received.expect("a message comes").unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        }
    }

    fn notifier(socket: &Path, watchdog: &str) -> Notifier {
        let lookup = |name: &str| match name {
            "NOTIFY_SOCKET" => Some(socket.into()),
            "WATCHDOG_USEC" => Some(watchdog.into()),
            _ => None,
        };
        Notifier::from_environment(lookup).unwrap()
    }

    #[tokio::test]
    async fn the_service_manager_hears_what_it_is_told() {
        let manager = Manager::new();
        let notifier = manager.notifier("");
        notifier.ready();
        notifier.status("serving 3 caches");
        notifier.stopping();
        assert_eq!(manager.hears().await, "READY=1\n");
        assert_eq!(manager.hears().await, "STATUS=serving 3 caches\n");
        assert_eq!(manager.hears().await, "STOPPING=1\n");
    }

    #[tokio::test]
    async fn without_a_service_manager_nothing_is_said() {
        Notifier::from_environment(|_| None).unwrap().ready();
        // One that went away is no reason to end.
        notifier(Path::new("/nonexistent/notify"), "").ready();
    }

    #[tokio::test]
    async fn the_watchdog_is_told_only_while_we_are_healthy() {
        let manager = Manager::new();
        let notifier = manager.notifier("100000");
        let probes = Cell::new(0);
        let is_healthy = async || {
            probes.set(probes.get() + 1);
            probes.get() <= 3
        };
        let begin = Instant::now();
        let heard = async {
            for _ in 0..3 {
                assert_eq!(manager.hears().await, "WATCHDOG=1\n");
            }
            // The first is said at once, the others each half the time later.
            assert!(begin.elapsed() >= Duration::from_millis(90), "{:?}", begin.elapsed());
            while probes.get() < 6 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = notifier.watch(is_healthy) => panic!("it goes on for ever"),
            done = timeout(PATIENCE, heard) => done.unwrap(),
        }
        assert!(manager.socket.try_recv(&mut [0; 100]).is_err(), "three probes were healthy");
    }

    #[tokio::test]
    async fn another_process_watchdog_is_not_ours() {
        let lookup = |name: &str| match name {
            "NOTIFY_SOCKET" => Some("@snowbank-test".into()),
            "WATCHDOG_USEC" => Some("1000000".into()),
            "WATCHDOG_PID" => Some("1".into()),
            _ => None,
        };
        assert_eq!(Notifier::from_environment(lookup).unwrap().watchdog, None);
    }

    /// Signals go to the whole process, so everything that sends them is in this one test.
    #[tokio::test]
    async fn signals_reload_then_drain_then_abort() {
        let manager = Manager::new();
        let notifier = manager.notifier("");
        let signals = Signals::catch().unwrap();
        let (stage, mut stages) = watch::channel(Stage::Serving);
        let reloads = Mutex::new(0);
        let raise = |signal| {
            rustix::process::kill_process(rustix::process::getpid(), signal).unwrap();
        };
        let test = async {
            raise(rustix::process::Signal::HUP);
            let reloading = manager.hears().await;
            assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
            assert_eq!(manager.hears().await, "READY=1\n");
            assert_eq!(*reloads.lock().unwrap(), 1);
            raise(rustix::process::Signal::TERM);
            stages.wait_for(|stage| *stage == Stage::Draining).await.unwrap();
            assert_eq!(manager.hears().await, "STOPPING=1\n");
            raise(rustix::process::Signal::TERM);
            stages.wait_for(|stage| *stage == Stage::Aborting).await.unwrap();
        };
        let reload = async || *reloads.lock().unwrap() += 1;
        let both = async { tokio::join!(signals.obey(&stage, &notifier, reload), test) };
        timeout(PATIENCE, both).await.expect("both end");
    }
}
