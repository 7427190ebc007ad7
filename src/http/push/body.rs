//! The body of an upload, read by a thread that may block.

use std::io::{self, Read};

use axum::body::Body;
use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::mpsc;

/// Pieces of a body between the connection and the thread that reads it: with pieces of hyper's
/// usual 400 KiB at most, some MiB.
const IN_FLIGHT: usize = 8;
/// One end of a body: what arrives.
pub(super) struct Arriving {
    body: Body,
    pieces: mpsc::Sender<Piece>,
}

/// The other end: a reader for a blocking thread.
pub(super) struct BodyReader {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
}

enum Piece {
    Data(Bytes),
    Failed(String),
    /// The body is whole. A channel that closes without it is a client that went away.
    End,
}

/// Splits a body into its two ends.
pub(super) fn split(body: Body) -> (Arriving, BodyReader) {
    let (sender, receiver) = mpsc::channel(IN_FLIGHT);
    let reader = BodyReader { pieces: receiver, current: Bytes::new(), ended: false };
    (Arriving { body, pieces: sender }, reader)
}

impl Arriving {
    /// Hands on what comes until its end, or until nobody reads it any more.
    pub(super) async fn hand_on(mut self) {
        loop {
            let piece = match self.body.frame().await {
                None => Piece::End,
                Some(Err(error)) => Piece::Failed(error.to_string()),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => continue,
                    Ok(data) => Piece::Data(data),
                    Err(_trailers) => continue,
                },
            };
            let is_last = !matches!(piece, Piece::Data(_));
            // What nobody wants any more is read on where the body is dropped.
            if self.pieces.send(piece).await.is_err() || is_last {
                return;
            }
        }
    }
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Piece::Data(data)) => self.current = data,
                Some(Piece::End) => self.ended = true,
                Some(Piece::Failed(why)) => return Err(io::Error::other(why)),
                None => {
                    let why = "the client went away";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
                }
            }
        }
        let count = self.current.len().min(buffer.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// Why a small body was not taken.
pub(super) enum NotWhole {
    /// It is larger than it may be.
    TooLong,
    /// It ended before its end.
    BrokeOff(String),
}

/// A body that fits into memory.
pub(super) async fn whole(body: Body, limit: usize) -> Result<Bytes, NotWhole> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(NotWhole::TooLong),
        Err(error) => Err(NotWhole::BrokeOff(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(body: Body) -> io::Result<Vec<u8>> {
        let (arriving, mut reader) = split(body);
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).map(|_| bytes)
        });
        arriving.hand_on().await;
        read.await.unwrap()
    }

    #[tokio::test]
    async fn a_whole_body_is_read_whole() {
        assert_eq!(read(Body::from("abc")).await.unwrap(), b"abc");
        assert_eq!(read(Body::empty()).await.unwrap(), b"");
    }

    #[tokio::test]
    async fn a_client_that_goes_away_is_an_error_and_no_end() {
        let (arriving, mut reader) = split(Body::from("abc"));
        drop(arriving);
        let error = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap_err()
        });
        assert_eq!(error.await.unwrap().kind(), io::ErrorKind::UnexpectedEof);
    }
}
