//! Clients that do not move, and those that only move slowly.

use super::*;

const SHORT: Duration = Duration::from_millis(400);

/// Runs `client` against a server whose heads must be whole within `SHORT`, and expects to be cut
/// not before that and not long after.
async fn is_cut_in_time<F: Future<Output = ()>>(client: impl FnOnce(TcpStream) -> F) {
    let server = Server::start(ListenLimits { head_timeout: SHORT, ..generous() });
    let begin = Instant::now();
    client(server.connect().await).await;
    let elapsed = begin.elapsed();
    assert!(elapsed >= SHORT && elapsed < SHORT + PATIENCE / 4, "cut after {elapsed:?}");
    server.until("the connection ends", |stats| stats.open.load(Relaxed) == 0).await;
    assert_eq!(server.stats.head_timeouts.load(Relaxed), 1);
}

#[tokio::test]
async fn a_client_that_says_nothing_is_cut() {
    is_cut_in_time(|mut client| async move {
        assert_eq!(read_to_end(&mut client).await, "");
    })
    .await;
}

#[tokio::test]
async fn a_client_that_stops_within_a_head_is_cut() {
    is_cut_in_time(|mut client| async move {
        client.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
        assert_eq!(read_to_end(&mut client).await, "");
    })
    .await;
}

#[tokio::test]
async fn a_client_that_drips_a_head_is_cut() {
    is_cut_in_time(|mut client| async move {
        let mut drip = async |byte: u8| {
            tokio::time::sleep(SHORT / 20).await;
            client.write_all(&[byte]).await
        };
        let head = b"GET / HTTP/1.1\r\nHost: x\r\nA: ".iter().chain(std::iter::repeat(&b'a'));
        for &byte in head.take(2000) {
            if drip(byte).await.is_err() {
                return;
            }
        }
        panic!("2,000 bytes were taken");
    })
    .await;
}

#[tokio::test]
async fn a_head_that_begins_on_an_idle_connection_has_the_head_timeout_too() {
    let server = Server::start(ListenLimits { head_timeout: SHORT, ..generous() });
    let mut client = server.connect().await;
    client.write_all(&get("/a")).await.unwrap();
    assert_eq!(read_answer(&mut client).await, "/a");
    let begin = Instant::now();
    client.write_all(b"GET /b HT").await.unwrap();
    assert_eq!(read_to_end(&mut client).await, "");
    assert!(begin.elapsed() < PATIENCE / 4, "cut after {:?}", begin.elapsed());
}

#[tokio::test]
async fn an_idle_connection_outlives_the_head_timeout_and_ends_at_its_own() {
    let idle = SHORT * 3;
    let limits = ListenLimits { head_timeout: SHORT, idle_timeout: idle, ..generous() };
    let server = Server::start(limits);
    let mut client = server.connect().await;
    for path in ["/a", "/b"] {
        client.write_all(&get(path)).await.unwrap();
        assert_eq!(read_answer(&mut client).await, path);
        tokio::time::sleep(idle / 2).await;
    }
    let begin = Instant::now() - idle / 2;
    assert_eq!(read_to_end(&mut client).await, "");
    let elapsed = begin.elapsed();
    assert!(elapsed >= idle - SHORT / 4 && elapsed < idle + PATIENCE / 4, "{elapsed:?}");
    assert_eq!(server.stats.idle_timeouts.load(Relaxed), 1);
}

#[tokio::test]
async fn a_request_that_takes_long_to_answer_is_not_cut() {
    let limits = ListenLimits { head_timeout: SHORT / 4, idle_timeout: SHORT / 4, ..generous() };
    let server = Server::start(limits);
    let mut client = server.connect().await;
    client.write_all(&get("/gated")).await.unwrap();
    tokio::time::sleep(SHORT * 2).await;
    server.gate.add_permits(1);
    assert_eq!(read_answer(&mut client).await, "opened");
    // And when it is answered, the idle time counts from there.
    assert_eq!(read_to_end(&mut client).await, "");
    assert_eq!(server.stats.idle_timeouts.load(Relaxed), 1);
}

#[tokio::test]
async fn a_reader_that_stands_still_is_cut_by_a_reset() {
    let server = Server::start(ListenLimits { stall_timeout: SHORT, ..generous() });
    let mut client = server.connect().await;
    client.write_all(&get("/big")).await.unwrap();
    server.until("the stall is noticed", |stats| stats.stall_timeouts.load(Relaxed) == 1).await;
    server.until("the connection ends", |stats| stats.open.load(Relaxed) == 0).await;
    let mut received = Vec::new();
    let ended = timeout(PATIENCE, client.read_to_end(&mut received)).await.unwrap();
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert!(received.len() < BIG);
}

#[tokio::test]
async fn a_reader_that_is_slow_but_moves_is_never_cut() {
    // Both deadlines are far shorter than the download takes.
    let limits = ListenLimits { stall_timeout: SHORT, idle_timeout: SHORT, ..generous() };
    let server = Server::start(limits);
    let mut client = server.connect().await;
    client.write_all(&get("/big")).await.unwrap();
    let mut buffer = vec![0; 2 << 20];
    let (begin, mut received) = (Instant::now(), 0);
    while received < BIG {
        tokio::time::sleep(SHORT / 8).await;
        let read = timeout(PATIENCE, client.read(&mut buffer)).await.unwrap().unwrap();
        assert_ne!(read, 0, "cut after {received} bytes in {:?}", begin.elapsed());
        received += read;
    }
    assert!(begin.elapsed() > SHORT * 2, "{:?} is not slow", begin.elapsed());
    assert_eq!(server.stats.stall_timeouts.load(Relaxed), 0);
}

#[tokio::test]
async fn an_answer_that_fails_is_a_reset_and_not_an_end() {
    let server = Server::start(generous());
    let mut client = server.connect().await;
    client.write_all(&get("/fail")).await.unwrap();
    let mut received = Vec::new();
    let ended = timeout(PATIENCE, client.read_to_end(&mut received)).await.unwrap();
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}
