//! Every endpoint, GET and HEAD, at `/` and at `/c/<cache>/`: status, headers, body.

use crate::support::{
    bank::data_directory,
    fixtures::{fixtures, path},
    http::{Response, field, fields},
    nix::StorePath,
    server::{Server, Setup},
};

/// Where the default cache answers.
pub(crate) const PREFIXES: [&str; 2] = ["", "/c/default"];

pub(crate) fn local() -> Server {
    Setup::bare().local_store(&fixtures().store).start()
}

/// GET, and HEAD on the same connection, which must say the same without a body.
#[track_caller]
pub(crate) fn get_and_head(server: &Server, url: &str) -> Response {
    let mut connection = server.connect();
    let head = connection.request("HEAD", url, &[]);
    // A body after HEAD would be taken for the next answer here.
    let get = connection.request("GET", url, &[]);
    assert_eq!(head.status, get.status, "HEAD and GET of {url}");
    for name in ["content-type", "content-length", "etag", "cache-control", "accept-ranges"] {
        // HEAD may leave out what would have to be computed, but what it says must be so.
        let left_out = name == "content-length" && head.header(name).is_none() && get.status != 200;
        assert!(
            left_out || head.header(name) == get.header(name),
            "{name} of HEAD and GET of {url}"
        );
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
                // Of the NAR as it is sent: it feeds the client's progress bar.
                "FileSize",
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
    let any = store.logs().join("any");
    crate::support::trees::write(&any, b"any");
    store.add(&any);
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
