//! Requests that no honest client sends.

use super::*;

/// What must be refused, each followed by a request that must not be answered.
#[tokio::test]
async fn ambiguous_requests_are_refused_and_end_the_connection() {
    let server = Server::start(generous());
    for (name, head) in [
        (
            "CL+TE",
            "POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "TE+CL",
            "POST /length HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        ),
        (
            "two lengths",
            "POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
        ),
        (
            "the same length twice",
            "POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
        ),
        (
            "a list of lengths",
            "POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 4, 5\r\n\r\nabcde",
        ),
        ("a signed length", "POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: +4\r\n\r\nabcd"),
        (
            "an endless length",
            "POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551616\r\n\r\n",
        ),
        ("bare LF", "GET /a HTTP/1.1\nHost: x\n\n"),
        ("bare LF in a header", "GET /a HTTP/1.1\r\nHost: x\nEvil: y\r\n\r\n"),
        ("bare CR in a header", "GET /a HTTP/1.1\r\nHost: x\rEvil: y\r\n\r\n"),
        ("obs-fold", "GET /a HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n"),
        ("folded first header", "GET /a HTTP/1.1\r\n Host: x\r\n\r\n"),
        ("space before the colon", "GET /a HTTP/1.1\r\nHost : x\r\n\r\n"),
        ("no colon", "GET /a HTTP/1.1\r\nHost\r\n\r\n"),
        ("zero byte", "GET /a HTTP/1.1\r\nHost: x\0y\r\n\r\n"),
        ("TE not chunked", "POST /length HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n"),
        (
            "TE in HTTP/1.0",
            "POST /length HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("HTTP/2 by surprise", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("garbage", "\x16\x03\x01\x02\r\n\r\n"),
    ] {
        let request = [head.as_bytes(), &get("/smuggled")].concat();
        let answer = server.exchange(&request).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") || answer.is_empty(), "{name}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), answer.lines().count().min(1), "{name}");
    }
    server.until("every connection ends", |stats| stats.open.load(Relaxed) == 0).await;
}

#[tokio::test]
async fn a_request_before_a_refused_one_is_still_answered() {
    let server = Server::start(generous());
    let answer = server.exchange(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\n\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\r\n\r\n/a"), "{answer}");
    assert!(answer.contains("HTTP/1.1 400 ") && !answer.contains("/b"), "{answer}");
}

#[tokio::test]
async fn a_head_at_fault_is_refused_however_it_is_cut_into_packets() {
    let server = Server::start(generous());
    let request = b"GET /a HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n";
    for cut in [3, 17, 25, 32, 33, 34, 38] {
        let mut client = server.connect().await;
        client.set_nodelay(true).unwrap();
        client.write_all(&request[..cut]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let _sent = client.write_all(&request[cut..]).await;
        let answer = read_to_end(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "cut at {cut}: {answer}");
    }
}

#[tokio::test]
async fn bad_chunks_fail_the_upload_and_end_the_connection() {
    let server = Server::start(generous());
    for chunks in [
        "x\r\n",
        "-1\r\n\r\n",
        "fffffffffffffffff\r\n",
        "5\r\nabc\r\n0\r\n\r\n",
        "0x5\r\nabcde\r\n0\r\n\r\n",
    ] {
        let head = "POST /length HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        let request = [head.as_bytes(), chunks.as_bytes(), &get("/smuggled")].concat();
        let answer = server.exchange(&request).await;
        assert!(!answer.contains("Ok(") && !answer.contains("/smuggled"), "{chunks:?}: {answer}");
    }
}

#[tokio::test]
async fn a_chunked_upload_is_taken_and_nothing_after_it_is() {
    let server = Server::start(generous());
    let head = "POST /length HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let request = [head.as_bytes(), b"5;ext=1\r\nabcde\r\n0\r\n\r\n", &get("/second")].concat();
    let answer = server.exchange(&request).await;
    assert!(answer.contains("Ok(5)") && answer.contains("connection: close"), "{answer}");
    assert!(!answer.contains("/second"), "{answer}");
}

#[tokio::test]
async fn too_much_of_a_head_is_431_and_the_client_gets_to_read_it() {
    let server = Server::start(generous());
    let url = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(100_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(10_000));
    let few = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(65));
    let wide = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "b".repeat(100_000));
    for request in [url, many, few, wide] {
        let answer = server.exchange(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer:?} for {}", &request[..40]);
    }
    let allowed = format!("GET /ok HTTP/1.1\r\n{}Connection: close\r\n\r\n", "A: b\r\n".repeat(63));
    assert!(server.exchange(allowed.as_bytes()).await.ends_with("/ok"));
}

#[tokio::test]
async fn an_upload_that_nobody_wants_gets_its_answer_all_the_same() {
    let server = Server::start(generous());
    let head = b"PUT /refused HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n";
    let answer = server.exchange(&[head, vec![0; 2_000_000].as_slice()].concat()).await;
    assert!(answer.ends_with("/refused"), "{answer}");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(generous());
    let paths: Vec<_> = (0..100).map(|number| format!("/{number}")).collect();
    let mut client = server.connect().await;
    let upload = b"PUT /length HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na\nb".to_vec();
    let requests = paths.iter().flat_map(|path| [get(path), upload.clone()].concat());
    client.write_all(&requests.collect::<Vec<_>>()).await.unwrap();
    for path in paths {
        assert_eq!(read_answer(&mut client).await, path);
        assert_eq!(read_answer(&mut client).await, "Ok(3)");
    }
}
