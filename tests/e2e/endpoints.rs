//! Every endpoint, GET and HEAD, at `/` and at `/c/<cache>/`: status, headers, body.

use crate::support::{
    PATIENCE,
    bank::data_directory,
    fixtures::{fixtures, path},
    http::{Response, field, fields},
    nix::StorePath,
    server::{Server, Setup},
    wait_until,
};

/// Where the default cache answers.
const PREFIXES: [&str; 2] = ["", "/c/default"];

fn local() -> Server {
    Setup::bare().local_store(&fixtures().store).start()
}

/// GET, and HEAD on the same connection, which must say the same without a body.
#[track_caller]
fn get_and_head(server: &Server, url: &str) -> Response {
    let mut connection = server.connect();
    let head = connection.request("HEAD", url, &[]);
    // A body after HEAD would be taken for the next answer here.
    let get = connection.request("GET", url, &[]);
    assert_eq!(head.status, get.status, "HEAD and GET of {url}");
    for name in ["content-type", "content-length", "etag", "cache-control", "accept-ranges"] {
        assert_eq!(head.header(name), get.header(name), "{name} of HEAD and GET of {url}");
    }
    get
}

#[test]
fn cache_info_names_the_store_and_a_priority() {
    let server = local();
    for prefix in PREFIXES {
        let answer = get_and_head(&server, &format!("{prefix}/nix-cache-info")).expect(200);
        assert!(answer.must("content-type").starts_with("text/x-nix-cache-info"));
        let text = answer.text();
        assert_eq!(
            field(&text, "StoreDir").unwrap(),
            fixtures().store.directory().to_str().unwrap()
        );
        assert_eq!(field(&text, "WantMassQuery").as_deref(), Some("1"));
        field(&text, "Priority").unwrap().parse::<u32>().expect("Priority is a number");
        assert!(text.ends_with('\n'));
    }
}

#[test]
fn a_narinfo_has_its_fields_in_the_order_of_nix() {
    let server = local();
    for prefix in PREFIXES {
        let answer =
            get_and_head(&server, &format!("{prefix}/{}.narinfo", path("refs").hash())).expect(200);
        assert!(answer.must("content-type").starts_with("text/x-nix-narinfo"));
        assert!(answer.header("cache-control").is_some(), "a narinfo says how long it may be kept");
        assert_eq!(answer.must("content-length"), answer.body.len().to_string());
        let text = answer.text();
        let names: Vec<&str> = text.lines().map(|line| line.split_once(':').unwrap().0).collect();
        assert_eq!(
            names,
            [
                "StorePath",
                "URL",
                "Compression",
                "NarHash",
                "NarSize",
                "References",
                "Deriver",
                "Sig"
            ],
            "of an unbaked path"
        );
        assert_eq!(field(&text, "StorePath").unwrap(), path("refs").as_str());
        assert_eq!(
            field(&text, "NarHash").unwrap(),
            format!("sha256:{}", fixtures().nar_hash(path("refs")))
        );
        assert_eq!(
            field(&text, "NarSize").unwrap(),
            fixtures().dump_size(path("refs")).to_string()
        );
        let mut references = [path("leaf").base_name(), path("refs").base_name()];
        references.sort_unstable();
        assert_eq!(field(&text, "References").unwrap(), references.join(" "));
        let (name, _) = server
            .key()
            .split_once(':')
            .map(|(name, key)| (name.to_owned(), key.to_owned()))
            .unwrap();
        assert!(field(&text, "Sig").unwrap().starts_with(&format!("{name}:")));
    }
}

#[test]
fn a_narinfo_without_references_says_so_and_a_content_address_is_kept() {
    let server = local();
    let text = server.get(&format!("/{}.narinfo", path("fixed").hash())).expect(200).text();
    assert!(text.contains("\nReferences: \n"), "{text}");
    assert!(field(&text, "CA").unwrap().starts_with("fixed:r:sha256:"));
    let flat = server.get(&format!("/{}.narinfo", path("flat").hash())).expect(200).text();
    assert!(field(&flat, "CA").unwrap().starts_with("fixed:sha256:"));
    let leaf = server.get(&format!("/{}.narinfo", path("leaf").hash())).expect(200).text();
    assert!(field(&leaf, "CA").unwrap().starts_with("text:sha256:"));
}

#[test]
fn a_narinfo_is_there_as_json_too() {
    let server = local();
    for prefix in PREFIXES {
        let answer =
            get_and_head(&server, &format!("{prefix}/{}.narinfo?json", path("refs").hash()))
                .expect(200);
        assert!(answer.must("content-type").starts_with("application/json"));
        let text = answer.json().to_string();
        for part in
            [path("refs").base_name(), path("leaf").base_name(), &fixtures().nar_hash(path("refs"))]
        {
            assert!(text.contains(part), "no {part} in {text}");
        }
    }
}

#[test]
fn a_narinfo_that_is_not_here_is_a_quick_404_that_says_nothing() {
    let server = local();
    for prefix in PREFIXES {
        for url in
            ["/00000000000000000000000000000000.narinfo", "/00000000000000000000000000000000.ls"]
        {
            let answer = get_and_head(&server, &format!("{prefix}{url}")).expect(404);
            assert!(!answer.text().contains("0000"), "a 404 repeats nothing of the request");
        }
    }
}

#[test]
fn a_nar_has_length_ranges_and_an_etag_and_no_content_encoding() {
    let server = local();
    let nar_hash = fixtures().nar_hash(path("shapes"));
    for url in [format!("/nar/{nar_hash}.nar"), format!("/nar/{nar_hash}.nar.zst")] {
        for prefix in PREFIXES {
            // The compressed form exists once the other has been read.
            let url = format!("{prefix}{url}");
            wait_until(&format!("{url} to be there"), PATIENCE, || server.head(&url).status == 200);
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

#[test]
fn a_signature_that_a_path_came_with_is_kept_beside_ours() {
    let directory = data_directory(&fixtures().bank("zstd"));
    let file = directory.narinfo(path("refs"));
    let text = std::fs::read_to_string(&file).unwrap();
    let theirs = format!("elsewhere-1:{}==", "A".repeat(86));
    crate::support::bank::replace(&file, format!("{text}Sig: {theirs}\n").as_bytes());
    let server = Setup::on(&directory.data).bank_only(&fixtures().store).start();
    let answer = server.get(&format!("/{}.narinfo", path("refs").hash())).expect(200).text();
    let signatures = fields(&answer, "Sig");
    assert_eq!(signatures.len(), 2, "{answer}");
    assert!(signatures.contains(&theirs), "{answer}");
}

#[test]
fn logs_are_served_decoded_and_after_the_derivation_has_gone() {
    let store = crate::support::nix::Store::fresh();
    let derivation = |first: char| format!("{}-gone.drv", first.to_string().repeat(32));
    let (packed, plain, flat) = (derivation('a'), derivation('b'), derivation('c'));
    let drvs = store.logs().join("drvs");
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    std::io::Write::write_all(&mut encoder, b"packed log\n").unwrap();
    let packed_bytes = encoder.finish().unwrap();
    crate::support::trees::write(
        &drvs.join("aa").join(format!("{}.bz2", &packed[2..])),
        &packed_bytes,
    );
    crate::support::trees::write(&drvs.join("bb").join(&plain[2..]), b"plain log\n");
    crate::support::trees::write(&drvs.join(&flat), b"flat log\n");
    // A database has to be there; adding any path makes one.
    store.add(&drvs.join(&flat));
    let server = Setup::bare().local_store(&store).start();
    for prefix in PREFIXES {
        for (name, log) in
            [(&packed, "packed log\n"), (&plain, "plain log\n"), (&flat, "flat log\n")]
        {
            let answer = get_and_head(&server, &format!("{prefix}/log/{name}")).expect(200);
            assert!(answer.must("content-type").starts_with("text/plain"));
            assert_eq!(answer.text(), log);
        }
        get_and_head(&server, &format!("{prefix}/log/{}", derivation('d'))).expect(404);
    }
}

#[test]
fn realisations_are_404_when_absent_and_served_when_present() {
    let directory = data_directory(&fixtures().bank("zstd"));
    let old = format!("realisations/sha256:{}!out.doi", "ab".repeat(32));
    let new = format!("build-trace-v2/{}-x.drv/out.doi", "a".repeat(32));
    let absent = [
        format!("realisations/sha256:{}!out.doi", "cd".repeat(32)),
        format!("build-trace-v2/{}-y.drv/out.doi", "a".repeat(32)),
    ];
    let text = format!(
        r#"{{"dependentRealisations":{{}},"id":"sha256:{}!out","outPath":"{}","signatures":[]}}"#,
        "ab".repeat(32),
        path("refs").base_name()
    );
    crate::support::trees::write(&directory.bank().join(&old), text.as_bytes());
    let value = format!(r#"{{"outPath":"{}","signatures":[]}}"#, path("refs").base_name());
    crate::support::trees::write(&directory.bank().join(&new), value.as_bytes());
    let server = Setup::on(&directory.data).bank_only(&fixtures().store).start();
    for prefix in PREFIXES {
        for url in [&old, &new] {
            let answer = get_and_head(&server, &format!("{prefix}/{url}")).expect(200);
            assert_eq!(answer.json()["outPath"], path("refs").base_name());
        }
        for url in &absent {
            get_and_head(&server, &format!("{prefix}/{url}")).expect(404);
        }
    }
}

#[test]
fn health_metrics_and_the_landing_page_are_there() {
    let server = local();
    get_and_head(&server, "/health").expect(200);
    server.get(&format!("/{}.narinfo", path("refs").hash())).expect(200);
    let metrics = server.get("/metrics").expect(200);
    assert!(metrics.must("content-type").starts_with("text/plain"));
    for line in metrics.text().lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        assert!(line.starts_with("snowbank_") || line.starts_with("process_"), "{line}");
    }
    assert!(server.metric("snowbank_http_requests_total", "") >= 2.0);
    assert!(server.metric("snowbank_signatures_total", "") >= 1.0);
    for url in ["/", "/c/default/"] {
        let page = server.get(url).expect(200);
        assert!(page.must("content-type").starts_with("text/html"));
        assert!(page.header("content-security-policy").is_some(), "{:?}", page.headers);
        assert!(page.text().contains(&server.key()), "{url} shows the public key to copy");
        assert!(
            page.text().contains("trusted-public-keys") && page.text().contains("substituters"),
            "{url}"
        );
    }
    server.head("/").expect(200);
}

#[test]
fn a_signature_is_made_once_and_remembered() {
    let server = local();
    for _ in 0..20 {
        server.get(&format!("/{}.narinfo", path("refs").hash())).expect(200);
    }
    let made = server.metric("snowbank_signatures_total", "");
    assert!((1.0..=2.0).contains(&made), "{made} signatures for one path");
}

#[test]
fn what_is_not_an_endpoint_or_not_a_method_is_refused() {
    let server = local();
    for url in [
        "/absent",
        "/c/absent/nix-cache-info",
        "/c/",
        "/c/default/absent",
        "/nar/",
        "/log/",
        "/nix-cache-info/",
    ] {
        assert!((400..500).contains(&server.get(url).status), "GET {url}");
    }
    let narinfo = format!("/{}.narinfo", path("refs").hash());
    for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "BREW"] {
        let answer = server.connect().request(method, &narinfo, &[("Content-Length", "0")]);
        assert!((400..=501).contains(&answer.status), "{method}: {}", answer.status);
    }
    server.get(&narinfo).expect(200);
}

#[test]
fn a_path_is_served_when_the_request_names_any_host() {
    let server = local();
    let url: &StorePath = path("leaf");
    let mut connection = server.connect();
    connection.send(format!("GET /{}.narinfo HTTP/1.1\r\nHost: evil.test\r\nX-Forwarded-Host: evil.test\r\n\r\n", url.hash()).as_bytes()).unwrap();
    let answer = connection.response(false).unwrap().expect(200);
    assert!(
        !answer.text().contains("evil.test"),
        "an answer never depends on what the request calls us"
    );
    let page = server.connect().request("GET", "/", &[("X-Forwarded-Host", "evil.test")]);
    assert!(!page.text().contains("evil.test"));
}
