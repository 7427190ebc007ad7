//! The accept loop over real loopback sockets, with a service that is small enough to be right.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Either, Full};
use hyper::service::service_fn;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;

mod hostile;
mod lifecycle;
mod slow;

/// Longer than anything here takes, so that a test that hangs fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server on loopback, and what a test needs of it.
struct Server {
    address: SocketAddr,
    stats: Arc<ConnectionStats>,
    stage: watch::Sender<Stage>,
    /// A request to `/gated` is answered once there is a permit here.
    gate: Arc<Semaphore>,
    serving: JoinHandle<()>,
}

impl Server {
    fn start(limits: ListenLimits) -> Self {
        let address = ListenAddress::Tcp(([127, 0, 0, 1], 0).into());
        // The kernel's own stall timeout is out of the way, so that the tests see ours.
        let listeners = Listeners::bind(&[address], 0, PATIENCE, None).unwrap();
        let [ListenAddress::Tcp(address)] = listeners.addresses()[..] else { panic!("one TCP") };
        Self::on(listeners, address, limits)
    }

    fn on(listeners: Listeners, address: SocketAddr, limits: ListenLimits) -> Self {
        let stats = Arc::<ConnectionStats>::default();
        let gate = Arc::new(Semaphore::new(0));
        let (stage, receiver) = watch::channel(Stage::Serving);
        let serving = tokio::spawn({
            let (stats, gate) = (stats.clone(), gate.clone());
            async move {
                let service = move |_| {
                    let gate = gate.clone();
                    service_fn(move |request| answer(request, gate.clone()))
                };
                serve(listeners, &limits, stats, receiver, service).await;
            }
        });
        Self { address, stats, stage, gate, serving }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends `request` on a connection of its own, and reads until the server closes.
    async fn exchange(&self, request: &[u8]) -> String {
        let mut client = self.connect().await;
        // The server may have seen enough, and close, before all of it is sent.
        let _sent = client.write_all(request).await;
        read_to_end(&mut client).await
    }

    /// Waits until `condition` holds.
    async fn until(&self, what: &str, condition: impl Fn(&ConnectionStats) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(&self.stats) {
            assert!(Instant::now() < deadline, "{what} did not come: {:?}", self.stats);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// The limits of a test: nothing is cut unless the test says so.
fn generous() -> ListenLimits {
    ListenLimits {
        head_timeout: PATIENCE,
        idle_timeout: PATIENCE,
        stall_timeout: PATIENCE,
        drain_timeout: PATIENCE,
        ..ListenLimits::default()
    }
}

const BIG: usize = 64 << 20;

/// What the service under test answers.
async fn answer(
    request: Request<Incoming>,
    gate: Arc<Semaphore>,
) -> Result<Response<Either<Full<Bytes>, Chunks>>, Infallible> {
    let body = match request.uri().path() {
        "/big" => Either::Right(Chunks { left: BIG, fail: false }),
        "/fail" => Either::Right(Chunks { left: BIG, fail: true }),
        "/length" => {
            let length = request.into_body().collect().await.map(|body| body.to_bytes().len());
            Either::Left(Full::new(format!("{length:?}").into()))
        }
        "/gated" => {
            gate.acquire().await.unwrap().forget();
            Either::Left(Full::new("opened".into()))
        }
        path => Either::Left(Full::new(path.to_owned().into())),
    };
    Ok(Response::new(body))
}

/// A body of zeros in pieces of 256 KiB.
struct Chunks {
    left: usize,
    fail: bool,
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        static ZEROS: [u8; 256 << 10] = [0; 256 << 10];
        if self.fail && self.left < BIG {
            return Poll::Ready(Some(Err(io::ErrorKind::InvalidData.into())));
        }
        let size = self.left.min(ZEROS.len());
        self.left -= size;
        let frame = (size > 0).then(|| Ok(Frame::data(Bytes::from_static(&ZEROS[..size]))));
        Poll::Ready(frame)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}

/// Reads until the other side closes, cleanly or not.
async fn read_to_end(client: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    let _reset = timeout(PATIENCE, client.read_to_end(&mut bytes)).await.expect("it is closed");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads exactly one answer with a `content-length`, and gives its body.
async fn read_answer(client: &mut (impl AsyncRead + Unpin)) -> String {
    let reading = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.unwrap_or("0").parse().unwrap()];
        client.read_exact(&mut body).await.unwrap();
        String::from_utf8(body).unwrap()
    };
    timeout(PATIENCE, reading).await.expect("an answer comes")
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes()
}
