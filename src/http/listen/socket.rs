//! The sockets: bound by us or handed over, and what is accepted from them.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use socket2::{Domain, SockRef, Socket as RawSocket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::server::TlsStream;

use super::guard::LINGER;
use super::{ListenAddress, Peer};
use crate::tls::server::Tls;

/// Every socket that we listen on.
#[derive(Debug)]
pub struct Listeners {
    listeners: Vec<Listener>,
    /// Which one is asked first next time, so that a busy one does not starve the others.
    next: usize,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Tls {
        listener: TcpListener,
        tls: Arc<Tls>,
    },
    /// With the name that goes when the listener does, unless it is not ours.
    Unix {
        listener: UnixListener,
        _file: Option<SocketFile>,
    },
}

/// Why we cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The kernel refused.
    #[error("cannot listen on {address}: {source}")]
    Io {
        /// Where we wanted to listen.
        address: ListenAddress,
        /// Why not.
        source: io::Error,
    },
    /// Another server listens there.
    #[error("cannot listen on unix:{}: another process is listening there", .0.display())]
    InUse(PathBuf),
    /// Nothing could be shown to those who come.
    #[error(
        "cannot listen on https://{0}: there is no certificate; set tls.certificate and tls.key"
    )]
    NoCertificate(SocketAddr),
    /// Something else has that name, and it is not ours to remove.
    #[error("cannot listen on unix:{}: there is a file of another kind", .0.display())]
    NotASocket(PathBuf),
    /// `systemd` was asked for, but nothing was handed over.
    #[error("cannot listen on systemd: no sockets were passed in LISTEN_FDS")]
    NothingPassed,
}

impl Listeners {
    /// Binds every address; must be called on a runtime. `mode` is that of unix sockets.
    /// `stall` is how long a TCP peer may leave data unacknowledged.
    pub fn bind(
        addresses: &[ListenAddress],
        mode: u32,
        stall: Duration,
        tls: Option<&Arc<Tls>>,
    ) -> Result<Self, BindError> {
        let mut listeners = Vec::new();
        for address in addresses {
            let failed = |source| BindError::Io { address: address.clone(), source };
            match address {
                ListenAddress::Tcp(at) => {
                    listeners.push(Listener::Tcp(bind_tcp(*at, stall).map_err(failed)?));
                }
                ListenAddress::Tls(at) => {
                    let tls = Arc::clone(tls.ok_or(BindError::NoCertificate(*at))?);
                    let listener = bind_tcp(*at, stall).map_err(failed)?;
                    listeners.push(Listener::Tls { listener, tls });
                }
                ListenAddress::Unix(path) => listeners.push(bind_unix(path, mode)?),
                ListenAddress::Systemd => {
                    let passed = passed_sockets(stall).map_err(failed)?;
                    if passed.is_empty() {
                        return Err(BindError::NothingPassed);
                    }
                    listeners.extend(passed);
                }
            }
        }
        Ok(Self { listeners, next: 0 })
    }

    /// Where we listen, with the port that the kernel chose where it was asked to.
    pub fn addresses(&self) -> Vec<ListenAddress> {
        let address = |listener: &Listener| match listener {
            Listener::Tcp(listener) => listener.local_addr().ok().map(ListenAddress::Tcp),
            Listener::Tls { listener, .. } => listener.local_addr().ok().map(ListenAddress::Tls),
            Listener::Unix { listener, .. } => {
                let address = listener.local_addr().ok()?;
                address.as_pathname().map(|path| ListenAddress::Unix(path.to_owned()))
            }
        };
        self.listeners.iter().filter_map(address).collect()
    }

    /// The next connection, from whichever socket has one.
    pub(super) async fn accept(&mut self) -> io::Result<Accepted> {
        poll_fn(|context| {
            for _ in 0..self.listeners.len() {
                let turn = self.next;
                self.next = (turn + 1) % self.listeners.len();
                if let Poll::Ready(accepted) = self.listeners[turn].poll_accept(context) {
                    return Poll::Ready(accepted);
                }
            }
            Poll::Pending
        })
        .await
    }
}

impl Listener {
    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        let tcp = |(stream, address)| (Socket::new(Stream::Tcp(stream)), Peer::Tcp(address));
        match self {
            Self::Tcp(listener) => {
                listener.poll_accept(context).map_ok(tcp).map_ok(Accepted::plain)
            }
            Self::Tls { listener, tls } => listener
                .poll_accept(context)
                .map_ok(tcp)
                .map_ok(|(socket, peer)| Accepted { socket, peer, tls: Some(tls.config()) }),
            Self::Unix { listener, .. } => listener.poll_accept(context).map_ok(|(stream, _)| {
                Accepted::plain((Socket::new(Stream::Unix(stream)), Peer::Unix))
            }),
        }
    }
}

/// A connection that came.
pub(super) struct Accepted {
    pub(super) socket: Socket,
    pub(super) peer: Peer,
    /// What is to be spoken on it, if it is TLS.
    pub(super) tls: Option<Arc<ServerConfig>>,
}

impl Accepted {
    fn plain((socket, peer): (Socket, Peer)) -> Self {
        Self { socket, peer, tls: None }
    }
}

/// Connections that the kernel keeps ready for us; it lowers this to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// How many unsent bytes the kernel takes from us before it says "wait". Without a bound it takes
/// megabytes, and a slow reader then looks like one that stands still until a third of them is gone.
/// A reader is seen to move whenever half of this was sent: 4 KiB/s at a stall timeout of 30 s.
const UNSENT_BYTES: u32 = 256 * 1024;

fn bind_tcp(address: SocketAddr, stall: Duration) -> io::Result<TcpListener> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // A restart must not wait for connections of the last process to time out.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    tcp_listener(socket.into(), stall)
}

/// Sets on the listening socket what each accepted one inherits, which saves seven system calls a
/// connection.
fn tcp_listener(listener: std::net::TcpListener, stall: Duration) -> io::Result<TcpListener> {
    let socket = SockRef::from(&listener);
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(stall))?;
    socket.set_tcp_notsent_lowat(UNSENT_BYTES)?;
    TcpListener::from_std(listener)
}

fn bind_unix(path: &Path, mode: u32) -> Result<Listener, BindError> {
    remove_if_stale(path)?;
    let address = ListenAddress::Unix(path.to_owned());
    let failed = |source| BindError::Io { address: address.clone(), source };
    let bind = || {
        let socket = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&socket2::SockAddr::unix(path)?)?;
        let file = SocketFile { path: path.to_owned(), identity: identity(path)? };
        // Nobody can connect before `listen`, so nobody slips in while the mode is the umask's.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        socket.listen(BACKLOG)?;
        let listener = UnixListener::from_std(socket.into())?;
        Ok(Listener::Unix { listener, _file: Some(file) })
    };
    bind().map_err(failed)
}

/// Removes a socket that a dead process left behind; refuses where anything is alive.
fn remove_if_stale(path: &Path) -> Result<(), BindError> {
    let failed = |source| BindError::Io { address: ListenAddress::Unix(path.to_owned()), source };
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(BindError::NotASocket(path.to_owned()));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(BindError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

/// The sockets that the service manager opened for us.
fn passed_sockets(stall: Duration) -> io::Result<Vec<Listener>> {
    let mut passed = listenfd::ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..passed.len() {
        // A socket of the other kind is an error that leaves it in its place.
        if let Ok(Some(listener)) = passed.take_tcp_listener(index) {
            listeners.push(Listener::Tcp(tcp_listener(listener, stall)?));
        } else if let Some(listener) = passed.take_unix_listener(index)? {
            listener.set_nonblocking(true)?;
            let listener = UnixListener::from_std(listener)?;
            listeners.push(Listener::Unix { listener, _file: None });
        }
    }
    Ok(listeners)
}

/// The name of a unix socket that we made, removed with it.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another server may have put its own there by now.
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            let _gone_already = std::fs::remove_file(&self.path);
        }
    }
}

/// What tells a file from another of the same name: its device and inode.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// An accepted connection, which counts what the kernel has taken.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Stream,
    written: u64,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// What bytes go through: a socket, or TLS on one.
pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin {
    /// The socket below.
    fn socket(&self) -> &Socket;
}

impl Transport for Socket {
    fn socket(&self) -> &Socket {
        self
    }
}

impl Transport for TlsStream<Socket> {
    fn socket(&self) -> &Socket {
        self.get_ref().0
    }
}

impl Socket {
    fn new(stream: Stream) -> Self {
        Self { stream, written: 0 }
    }

    /// How many bytes the kernel has taken from us.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Makes the close that follows a reset, so that nobody takes what was sent for the whole.
    pub(super) fn reset_on_close(&self) {
        if let Stream::Tcp(stream) = &self.stream {
            // It fails only on a socket that is closed already.
            let _closed = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }

    /// The first byte that came, which stays to be read; `None` at the end, or where that cannot be told.
    pub(super) async fn first_byte(&self) -> Option<u8> {
        let Stream::Tcp(stream) = &self.stream else { return None };
        let mut byte = [0];
        (stream.peek(&mut byte).await.ok()? == 1).then_some(byte[0])
    }

    /// Reads on for a moment: closing with unread bytes resets the connection, and the reset can overtake
    /// the answer that says why.
    pub(super) async fn drain(&mut self) {
        let mut scratch = [0; 4096];
        let read = async { while self.read(&mut scratch).await.is_ok_and(|count| count > 0) {} };
        let _over = tokio::time::timeout(LINGER, read).await;
    }

    fn took(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = written {
            self.written += count as u64;
        }
        written
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = match &mut this.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        };
        this.took(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = match &mut this.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        };
        this.took(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket has no buffer of its own on our side.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALL: Duration = Duration::from_secs(30);

    fn bind(path: &Path) -> Result<Listeners, BindError> {
        Listeners::bind(&[ListenAddress::Unix(path.to_owned())], 0o600, STALL, None)
    }

    #[tokio::test]
    async fn an_accepted_socket_inherits_what_the_listener_was_given() {
        let address = ListenAddress::Tcp(([127, 0, 0, 1], 0).into());
        let mut listeners = Listeners::bind(&[address], 0, STALL, None).unwrap();
        let [ListenAddress::Tcp(address)] = listeners.addresses()[..] else { panic!("one TCP") };
        let _client = TcpStream::connect(address).await.unwrap();
        let Accepted { socket, peer, .. } = listeners.accept().await.unwrap();
        let Stream::Tcp(stream) = socket.stream else { panic!("a TCP connection") };
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(STALL));
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT_BYTES);
        assert!(matches!(peer, Peer::Tcp(_)));
    }

    #[tokio::test]
    async fn a_unix_socket_has_its_mode_and_goes_with_its_listener() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listeners = bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(listeners.addresses(), [ListenAddress::Unix(path.clone())]);
        drop(listeners);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_is_replaced_only_when_nobody_listens() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        // The standard library leaves the file behind, as a process that was killed does.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _alive = bind(&path).unwrap();
        assert!(matches!(bind(&path), Err(BindError::InUse(_))));
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path), Err(BindError::NotASocket(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
