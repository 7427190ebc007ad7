//! The cap on connections, unix sockets, and the end of the server.

use tokio::net::UnixStream;

use super::*;

#[tokio::test]
async fn at_the_cap_a_connection_waits_for_its_turn() {
    let server = Server::start(ListenLimits { connections: 2, ..generous() });
    let (first, second) = (server.connect().await, server.connect().await);
    server.until("both are in", |stats| stats.open.load(Relaxed) == 2).await;
    let mut third = server.connect().await;
    third.write_all(&get("/third")).await.unwrap();
    let early = timeout(Duration::from_millis(100), third.read_u8()).await;
    assert!(early.is_err(), "answered beyond the cap");
    drop(first);
    assert_eq!(read_answer(&mut third).await, "/third");
    assert_eq!(server.stats.open.load(Relaxed), 2);
    drop((second, third));
    server.until("all are gone", |stats| stats.open.load(Relaxed) == 0).await;
    assert_eq!(server.stats.accepted.load(Relaxed), 3);
}

#[tokio::test]
async fn a_unix_socket_serves_next_to_tcp_and_cuts_stalled_readers_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let addresses =
        [ListenAddress::Unix(path.clone()), ListenAddress::Tcp(([127, 0, 0, 1], 0).into())];
    let listeners = Listeners::bind(&addresses, 0o600, PATIENCE, None).unwrap();
    let ListenAddress::Tcp(address) = listeners.addresses()[1] else { panic!("TCP comes second") };
    let stall_timeout = Duration::from_millis(300);
    let server = Server::on(listeners, address, ListenLimits { stall_timeout, ..generous() });
    for _ in 0..3 {
        let mut unix = UnixStream::connect(&path).await.unwrap();
        unix.write_all(&get("/unix")).await.unwrap();
        assert_eq!(read_answer(&mut unix).await, "/unix");
        let mut tcp = server.connect().await;
        tcp.write_all(&get("/tcp")).await.unwrap();
        assert_eq!(read_answer(&mut tcp).await, "/tcp");
    }
    let mut stalled = UnixStream::connect(&path).await.unwrap();
    stalled.write_all(&get("/big")).await.unwrap();
    server.until("the stall is noticed", |stats| stats.stall_timeouts.load(Relaxed) == 1).await;
}

#[tokio::test]
async fn draining_finishes_what_is_in_flight_and_takes_nothing_more() {
    let server = Server::start(generous());
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = server.connect().await;
        client.write_all(&get("/gated")).await.unwrap();
        clients.push(client);
    }
    let mut download = server.connect().await;
    download.write_all(&get("/big")).await.unwrap();
    let mut idle = server.connect().await;
    idle.write_all(&get("/idle")).await.unwrap();
    assert_eq!(read_answer(&mut idle).await, "/idle");
    let silent = server.connect().await;
    server.until("all are in", |stats| stats.open.load(Relaxed) == 23).await;

    server.stage.send_replace(Stage::Draining);
    // What is idle, or has not said anything, ends at once.
    for mut client in [idle, silent] {
        assert_eq!(read_to_end(&mut client).await, "");
    }
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
    server.gate.add_permits(20);
    for client in &mut clients {
        assert!(read_to_end(client).await.ends_with("opened"));
    }
    let mut received = Vec::new();
    timeout(PATIENCE, download.read_to_end(&mut received)).await.unwrap().unwrap();
    assert!(received.len() > BIG, "the download is whole");
    timeout(PATIENCE, server.serving).await.unwrap().unwrap();
    assert_eq!(server.stats.cut_short.load(Relaxed), 0);
}

/// Several threads, so that a connection can be woken while the news is still being spread.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_idle_connection_hears_that_the_server_drains_and_later_that_it_aborts() {
    for _ in 0..50 {
        let server = Server::start(generous());
        let mut idle = Vec::new();
        for _ in 0..16 {
            let mut client = server.connect().await;
            client.write_all(&get("/idle")).await.unwrap();
            assert_eq!(read_answer(&mut client).await, "/idle");
            idle.push(client);
        }
        let mut gated = server.connect().await;
        gated.write_all(&get("/gated")).await.unwrap();
        server.until("all are in", |stats| stats.open.load(Relaxed) == 17).await;
        server.stage.send_replace(Stage::Draining);
        for client in &mut idle {
            assert_eq!(read_to_end(client).await, "");
        }
        assert_eq!(server.stats.idle_timeouts.load(Relaxed), 0, "one waited for its idle timeout");
        server.stage.send_replace(Stage::Aborting);
        timeout(PATIENCE, server.serving).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn the_drain_deadline_ends_what_does_not_finish() {
    let drain_timeout = Duration::from_millis(300);
    let server = Server::start(ListenLimits { drain_timeout, ..generous() });
    let mut stuck = server.connect().await;
    stuck.write_all(&get("/gated")).await.unwrap();
    server.until("it is in", |stats| stats.open.load(Relaxed) == 1).await;
    let begin = Instant::now();
    server.stage.send_replace(Stage::Draining);
    timeout(PATIENCE, server.serving).await.unwrap().unwrap();
    assert!(begin.elapsed() >= drain_timeout);
    assert_eq!(read_to_end(&mut stuck).await, "");
    assert_eq!(server.stats.cut_short.load(Relaxed), 1);
}

#[tokio::test]
async fn aborting_does_not_wait_for_anything() {
    let server = Server::start(generous());
    let mut stuck = server.connect().await;
    stuck.write_all(&get("/gated")).await.unwrap();
    server.until("it is in", |stats| stats.open.load(Relaxed) == 1).await;
    server.stage.send_replace(Stage::Draining);
    server.stage.send_replace(Stage::Aborting);
    timeout(PATIENCE / 4, server.serving).await.unwrap().unwrap();
    assert_eq!(server.stats.open.load(Relaxed), 0);
}
