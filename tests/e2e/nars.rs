//! The NAR URLs: lengths, ranges, tags, and the forms that other servers use.

use crate::{
    endpoints::{PREFIXES, get_and_head, local},
    support::{
        PATIENCE,
        bank::data_directory,
        fixtures::{fixtures, path},
        http::field,
        server::{Server, Setup},
        wait_until,
    },
};

#[test]
fn a_nar_has_length_ranges_and_an_etag_and_no_content_encoding() {
    let server = local();
    let nar_hash = fixtures().nar_hash(path("shapes"));
    for url in [format!("/nar/{nar_hash}.nar"), format!("/nar/{nar_hash}.nar.zst")] {
        for prefix in PREFIXES {
            // The compressed form exists once the other has been read.
            let url = format!("{prefix}{url}");
            wait_until(&format!("{url} to be there, and whole"), PATIENCE, || {
                let answer = server.head(&url);
                answer.status == 200 && answer.header("content-length").is_some()
            });
            let wishes = [("Accept-Encoding", "deflate, gzip, br, zstd")];
            let answer = server.connect().request("GET", &url, &wishes).expect(200);
            assert!(answer.must("content-type").starts_with("application/x-nix-"));
            assert_eq!(answer.must("content-length"), answer.body.len().to_string());
            assert_eq!(answer.must("accept-ranges"), "bytes");
            assert_eq!(
                answer.header("content-encoding"),
                None,
                "Nix cannot resume an encoded answer"
            );
            assert!(answer.must("cache-control").contains("immutable"), "{:?}", answer.headers);
            let etag = answer.must("etag").to_owned();
            for value in [etag.as_str(), "*", &format!("\"other\", {etag}"), &format!("W/{etag}")] {
                let again = server.connect().request("GET", &url, &[("If-None-Match", value)]);
                assert_eq!(again.expect(304).must("etag"), etag, "If-None-Match: {value}");
            }
            server.connect().request("GET", &url, &[("If-None-Match", "\"other\"")]).expect(200);
            get_and_head(&server, &url);
        }
    }
}

#[test]
fn single_ranges_of_a_nar_are_cut_exactly() {
    let (server, nar_hash) = (local(), fixtures().nar_hash(path("shapes")));
    let plain = format!("/nar/{nar_hash}.nar");
    assert_ranges(&server, &plain);
    let baked = format!("{plain}.zst");
    wait_until("the path to be baked", PATIENCE, || server.head(&baked).status == 200);
    assert_ranges(&server, &baked);
    // The uncompressed form of a baked path is read out of the compressed file.
    assert_ranges(&server, &plain);
}

#[test]
fn single_ranges_of_a_nar_in_a_bank_are_cut_exactly() {
    let directory = data_directory(&fixtures().bank("zstd"));
    let server = Setup::on(&directory.data).bank_only(&fixtures().store).start();
    let narinfo = server.get(&format!("/{}.narinfo", path("small").hash())).expect(200).text();
    assert_ranges(&server, &format!("/{}", field(&narinfo, "URL").unwrap()));
    assert_ranges(&server, &format!("/nar/{}.nar", fixtures().nar_hash(path("small"))));
}

#[track_caller]
fn assert_ranges(server: &Server, url: &str) {
    // One connection throughout: a length that is wrong by one would spoil the next answer.
    let mut connection = server.connect();
    let whole = connection.request("GET", url, &[]).expect(200);
    let (size, bytes) = (whole.body.len(), &whole.body);
    let etag = whole.must("etag").to_owned();
    for (range, expected) in [
        ("bytes=0-0".to_owned(), 0..1),
        ("bytes=0-99".to_owned(), 0..100),
        (format!("bytes={}-{}", size / 2, size / 2 + 50), size / 2..size / 2 + 51),
        (format!("bytes={}-", size / 3), size / 3..size),
        (format!("bytes={}-", size - 1), size - 1..size),
        (format!("bytes=10-{}", size * 10), 10..size),
        ("bytes=-1".to_owned(), size - 1..size),
        (format!("bytes=-{}", size * 2), 0..size),
        ("bytes=0-".to_owned(), 0..size),
    ] {
        let part = connection.request("GET", url, &[("Range", &range)]).expect(206);
        assert!(part.body == bytes[expected.clone()], "{range} of {url} has other bytes");
        assert_eq!(
            part.must("content-range"),
            format!("bytes {}-{}/{size}", expected.start, expected.end - 1)
        );
        assert_eq!(part.must("etag"), etag);
        let same =
            connection.request("GET", url, &[("Range", &range), ("If-Range", &etag)]).expect(206);
        assert!(same.body == part.body);
        let stale = connection
            .request("GET", url, &[("Range", &range), ("If-Range", "\"old\"")])
            .expect(200);
        assert_eq!(stale.body.len(), size, "a stale If-Range gets all of {url}");
    }
    for range in [
        format!("bytes={size}-"),
        format!("bytes={}-", u64::MAX),
        "bytes=-0".to_owned(),
        "bytes=0-1,5-9".to_owned(),
    ] {
        let refused = connection.request("GET", url, &[("Range", &range)]);
        assert_eq!(
            refused.expect(416).must("content-range"),
            format!("bytes */{size}"),
            "{range} of {url}"
        );
    }
    for range in [
        "bytes=x-",
        "lines=1-2",
        "bytes=9-3",
        "bytes",
        "bytes=",
        "bytes=--5",
        "bytes=18446744073709551616-",
    ] {
        let answer = connection.request("GET", url, &[("Range", range)]);
        assert!(matches!(answer.status, 200 | 416), "{range} of {url}: {}", answer.status);
    }
}

#[test]
fn the_nar_urls_of_other_servers_are_answered() {
    let directory = data_directory(&fixtures().bank("zstd"));
    let bank = Setup::on(&directory.data).bank_only(&fixtures().store).start();
    for server in [local(), bank] {
        let (out, nar_hash) = (path("refs").hash(), fixtures().nar_hash(path("refs")));
        for url in [
            format!("nar/{out}-{nar_hash}.nar"),
            format!("nar/{nar_hash}.nar?hash={out}"),
            format!("nar/{out}.nar"),
        ] {
            for prefix in PREFIXES {
                let answer = get_and_head(&server, &format!("{prefix}/{url}")).expect(200);
                assert!(answer.body == fixtures().dump(path("refs")), "{url} is another NAR");
            }
        }
        // A hash that is not this path's is an answer about another path.
        let other = fixtures().nar_hash(path("leaf"));
        server.get(&format!("/nar/{out}-{other}.nar")).expect(404);
    }
}

#[test]
fn a_bank_is_served_under_the_names_its_files_have() {
    let directory = data_directory(&fixtures().bank("zstd"));
    let server = Setup::on(&directory.data).bank_only(&fixtures().store).start();
    let file = directory.nar(path("refs"));
    let url = format!("/nar/{}", file.file_name().unwrap().to_str().unwrap());
    assert!(get_and_head(&server, &url).expect(200).body == std::fs::read(file).unwrap());
}
