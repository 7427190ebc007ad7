//! The handshake of a TLS connection.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use rustls::{ProtocolVersion, ServerConfig};
use tokio::io::AsyncWriteExt as _;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Shared;
use super::socket::Socket;
use crate::auth::certificate::ClientCertificate;
use crate::tls::client;

/// The first byte of each TLS connection: a record that belongs to a handshake (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;

/// What whoever speaks plain HTTP is told, in the one way that he understands.
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    content-type: text/plain; charset=utf-8\r\ncontent-length: 57\r\nconnection: close\r\n\r\n\
    this port speaks TLS: the URL has to begin with https://\n";

/// Shakes hands, within the time that a head may take. `None` where nothing came of it.
pub(super) async fn handshake(
    socket: Socket,
    config: Arc<ServerConfig>,
    shared: &Shared,
) -> Option<TlsStream<Socket>> {
    let stats = &shared.stats;
    let Ok(ended) = tokio::time::timeout(shared.deadlines.head, shake(socket, config)).await else {
        stats.handshake_timeouts.fetch_add(1, Relaxed);
        return None;
    };
    match ended {
        Ok(Some(stream)) => {
            let counter = match stream.get_ref().1.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => &stats.handshakes_tls13,
                _ => &stats.handshakes_tls12,
            };
            counter.fetch_add(1, Relaxed);
            Some(stream)
        }
        Ok(None) => {
            stats.plain_on_tls.fetch_add(1, Relaxed);
            None
        }
        Err(error) => {
            stats.handshake_errors.fetch_add(1, Relaxed);
            tracing::debug!(%error, "a TLS handshake failed");
            None
        }
    }
}

/// What the client showed of itself, if it did. One that cannot be read is none: nothing is allowed by it.
pub(super) fn client_certificate(stream: &TlsStream<Socket>) -> Option<ClientCertificate> {
    let shown = stream.get_ref().1.peer_certificates()?.first()?;
    client::read(shown)
        .inspect_err(|error| tracing::warn!(%error, "a client certificate cannot be read"))
        .ok()
}

/// `None` where something else than TLS was spoken, and an answer given.
async fn shake(
    mut socket: Socket,
    config: Arc<ServerConfig>,
) -> io::Result<Option<TlsStream<Socket>>> {
    match socket.first_byte().await {
        Some(HANDSHAKE) => TlsAcceptor::from(config).accept(socket).await.map(Some),
        // Whoever looks whether anybody is here.
        None => Err(io::ErrorKind::UnexpectedEof.into()),
        Some(_) => {
            socket.write_all(PLAIN_HTTP).await?;
            socket.shutdown().await?;
            socket.drain().await;
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_plain_http_is_as_long_as_it_says() {
        let text = str::from_utf8(PLAIN_HTTP).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
    }
}
