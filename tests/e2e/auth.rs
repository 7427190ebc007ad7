//! Who may read and who may push: what strangers see of a private cache, which tokens open it, and that
//! no secret is written anywhere.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path, path::PathBuf};

use snowbank::{
    auth::token::{Grant, issue},
    index::state::{PushRecord, StateDb},
    nix::hash::Sha256,
};

use crate::support::{
    PATIENCE,
    bank::{DataDirectory, data_directory},
    command,
    fixtures::{fixtures, path},
    http::{Connection, Response, field},
    nix::{Client, Outcome, Version, run, tempdir},
    server::{Server, Setup},
    wait_for,
};

/// A hash that no fixture has.
const ABSENT: &str = "00000000000000000000000000000000";

/// Two private caches of the same paths, `default` and `team`, and a public one that takes pushes.
const PRIVATE: &str = "\
[cache.default]
pull = 'token'
push = 'token'
directory = 'default'
[cache.team]
pull = 'token'
push = 'token'
[cache.docs]
push = 'token'
[cache.closed]
[cache.free]
push = 'open'
[log]
requests = true
";

/// A data directory with its configuration.
struct Place {
    data: DataDirectory,
    config: PathBuf,
}

impl Place {
    fn new(config: &str) -> Self {
        let data = data_directory(&fixtures().bank("zstd"));
        let team = data.data.join("team");
        fs::create_dir(&team).unwrap();
        fs::create_dir(team.join("nar")).unwrap();
        for directory in ["", "nar"] {
            for entry in fs::read_dir(data.bank().join(directory)).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_file() {
                    let to = team.join(directory).join(entry.file_name());
                    fs::hard_link(entry.path(), to).unwrap();
                }
            }
        }
        // An empty bank, for the store directory of the fixtures.
        let docs = data.data.join("docs");
        fs::create_dir(&docs).unwrap();
        fs::copy(data.bank().join("nix-cache-info"), docs.join("nix-cache-info")).unwrap();
        let file = data.data.parent().unwrap().join("snowbank.toml");
        fs::write(&file, config).unwrap();
        Self { data, config: file }
    }

    fn start(&self) -> Server {
        Setup::on(&self.data.data)
            .bank_only(&fixtures().store)
            .argument("--config")
            .argument(&self.config)
            .environment("RUST_LOG", "trace")
            .start()
    }

    fn snowbank(&self, words: &[&str]) -> Outcome {
        let mut order = command(env!("CARGO_BIN_EXE_snowbank"));
        order.args(words).arg("--config").arg(&self.config).arg("--data-dir").arg(&self.data.data);
        run(&mut order, 30)
    }

    /// The text of a new token.
    #[track_caller]
    fn token(&self, caches: &str, scopes: &str) -> String {
        let words = ["token", "create", "--cache", caches, "--scope", scopes, "--expires", "90d"];
        self.snowbank(&words).expect_success().text().trim().to_owned()
    }
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[track_caller]
fn ask(at: SocketAddr, method: &str, path: &str, authorization: &[&str]) -> Response {
    let headers: Vec<_> = authorization.iter().map(|value| ("Authorization", *value)).collect();
    Connection::open(at).request(method, path, &headers)
}

/// What a client sees of an answer, but for the moment that it was made.
fn seen(response: &Response) -> (u16, Vec<(String, String)>, Vec<u8>) {
    // Of every answer its own.
    let own = ["date", "x-request-id"];
    let headers = response.headers.iter().filter(|(name, _)| !own.contains(&name.as_str()));
    let headers = headers.cloned();
    (response.status, headers.collect(), response.body.clone())
}

/// The secret part of a token is in nothing that the server wrote or says.
#[track_caller]
fn assert_nowhere(server: &Server, tokens: &[&str]) {
    let mut written = vec![("the log".to_owned(), server.log().into_bytes())];
    for url in ["/metrics", "/health", "/"] {
        written.push((url.to_owned(), server.get(url).body));
    }
    let mut directories = vec![server.data().to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            } else {
                written.push((entry.path().display().to_string(), fs::read(entry.path()).unwrap()));
            }
        }
    }
    for token in tokens {
        let secret = token.rsplit('_').next().unwrap().as_bytes();
        assert!(secret.len() > 40, "{token} has a secret");
        for (place, bytes) in &written {
            let found = bytes.windows(secret.len()).any(|window| window == secret);
            assert!(!found, "the secret of a token is in {place}");
        }
    }
}

/// Each route with something that is there and something that is not.
fn routes(place: &Place) -> Vec<(String, String)> {
    let refs = path("refs");
    let narinfo = fs::read_to_string(place.data.narinfo(refs)).unwrap();
    let nar = field(&narinfo, "URL").unwrap();
    let deriver = field(&narinfo, "Deriver").unwrap();
    let other_nar = format!("nar/{}.nar.zst", "0".repeat(52));
    let hash = refs.hash();
    [
        (format!("{hash}.narinfo"), format!("{ABSENT}.narinfo")),
        (format!("{hash}.ls"), format!("{ABSENT}.ls")),
        (nar, other_nar),
        (format!("log/{deriver}"), format!("log/{ABSENT}-x.drv")),
        (format!("serve/{hash}/"), format!("serve/{ABSENT}/")),
        (format!("serve/{hash}"), format!("serve/{ABSENT}/a/b")),
        ("nix-cache-info".into(), "nix-cache-inf0".into()),
        (String::new(), "nothing/of/the/kind".into()),
        ("realisations/sha256:a!out.doi".into(), "realisations/x".into()),
        ("build-trace-v2/a.drv/out.doi".into(), "build-trace-v2/x/y".into()),
        ("debuginfo/0123456789".into(), "debuginfo/x".into()),
        ("_snowbank/v1/uploads/1".into(), "_snowbank/v1/uploads/2".into()),
    ]
    .to_vec()
}

#[test]
fn a_stranger_cannot_tell_what_a_private_cache_holds() {
    let place = Place::new(PRIVATE);
    let server = place.start();
    let at = server.address();
    let good = place.token("*", "pull");
    let other = bearer(&place.token("docs", "pull,push"));
    for prefix in ["/", "/c/team/", "/c/default/"] {
        for (there, absent) in routes(&place) {
            let (there, absent) = (format!("{prefix}{there}"), format!("{prefix}{absent}"));
            // Once read by somebody who may, it is in memory, or its file is open.
            ask(at, "GET", &there, &[&bearer(&good)]);
            for method in ["GET", "HEAD", "PUT", "POST", "DELETE"] {
                for shown in [&[][..], &[other.as_str()], &[other.as_str(), other.as_str()]] {
                    let answers = [&there, &absent].map(|path| seen(&ask(at, method, path, shown)));
                    let expected = [401, 403, 400][shown.len()];
                    assert_eq!(answers[0].0, expected, "{method} {there}");
                    assert_eq!(answers[0], answers[1], "{method} {there} and {absent}");
                }
            }
        }
    }
    // It was there all the time, for those who may.
    let url = format!("/c/team/{}.narinfo", path("refs").hash());
    assert_eq!(ask(at, "GET", &url, &[&bearer(&good)]).status, 200);
    assert_nowhere(&server, &[&good, &other]);
}

#[test]
fn a_private_cache_has_no_other_spelling() {
    let place = Place::new(PRIVATE);
    let server = place.start();
    let hash = path("refs").hash();
    for name in ["tea%6d", "tea%6D", "%74eam", "TEAM", "team%2f", "team%00", "./team", "x/../team"]
    {
        for (method, object) in [("GET", hash), ("HEAD", hash), ("GET", ABSENT)] {
            let url = format!("/c/{name}/{object}.narinfo");
            let status = ask(server.address(), method, &url, &[]).status;
            assert!([400, 404].contains(&status), "{method} {url}: {status}");
        }
    }
    for url in
        [format!("//{hash}.narinfo"), format!("/%2f{hash}.narinfo"), format!("/./{hash}.narinfo")]
    {
        assert_eq!(ask(server.address(), "GET", &url, &[]).status, 401, "{url}");
    }
}

#[test]
fn a_token_opens_a_private_cache_as_bearer_and_as_a_password() {
    let place = Place::new(PRIVATE);
    let server = place.start();
    let at = server.address();
    let token = place.token("default", "pull");
    let basic = data_encoding::BASE64.encode(format!("anybody:{token}").as_bytes());
    let hash = path("refs").hash();
    let nar = field(&fs::read_to_string(place.data.narinfo(path("refs"))).unwrap(), "URL").unwrap();
    for shown in [bearer(&token), format!("Basic {basic}")] {
        for url in ["/nix-cache-info".into(), format!("/{hash}.narinfo"), format!("/{nar}")] {
            // The second time from memory, and from the open file.
            for method in ["GET", "HEAD", "GET"] {
                let answer = ask(at, method, &url, &[&shown]).expect(200);
                // Nothing between here and the client may keep it for others.
                let kept = answer.header("cache-control").unwrap_or_default();
                assert!(!kept.contains("public"), "{url}: {kept}");
            }
        }
    }
    let public = ask(at, "GET", "/c/docs/nix-cache-info", &["Bearer nonsense"]).expect(200);
    assert!(public.must("cache-control").contains("public"));
    assert_nowhere(&server, &[&token, &basic]);
}

#[test]
fn nix_substitutes_from_a_private_cache_with_its_netrc() {
    let place = Place::new(PRIVATE);
    let server = place.start();
    let token = place.token("team", "pull");
    let own = tempdir();
    let netrc = own.path().join("netrc");
    fs::write(&netrc, format!("machine 127.0.0.1 login snowbank password {token}\n")).unwrap();
    let url = format!("{}/c/team", server.url());
    for version in Version::BOTH {
        let stranger = Client::new(version, &fixtures().store);
        stranger.realise(&url, &server.key(), &[path("top")]).expect_failure();
        let client = Client::new(version, &fixtures().store);
        let mut order = client.program("nix-store");
        order.arg("--store").arg(client.root()).arg("-r").arg(path("top"));
        order.arg("--option").arg("netrc-file").arg(&netrc);
        for (option, value) in [
            ("substituters", url.as_str()),
            ("trusted-public-keys", &server.key()),
            ("require-sigs", "true"),
        ] {
            order.args(["--option", option, value]);
        }
        run(&mut order, 180).expect_success();
        assert!(client.real(path("top")).exists(), "{version:?}");
    }
    assert_nowhere(&server, &[&token]);
}

#[test]
fn a_token_is_good_for_its_caches_and_scopes_until_it_ends_or_is_revoked() {
    let place = Place::new(PRIVATE);
    let server = place.start();
    let at = server.address();
    let url = format!("/c/team/{}.narinfo", path("leaf").hash());
    let check = |token: &str, status: u16, words: &str| {
        let answer = ask(at, "GET", &url, &[&bearer(token)]).expect(status);
        assert!(answer.text().contains(words), "{:?}", answer.text());
        assert_eq!(answer.header("www-authenticate").is_some(), status == 401);
    };
    let good = place.token("team", "pull");
    check(&good, 200, "StorePath");
    check(&place.token("docs", "pull"), 403, "not for this cache");
    check(&place.token("team", "push"), 403, "may not pull");
    let grant = Grant {
        name: "old".into(),
        push: true,
        pull: true,
        pin: false,
        caches: None,
        created: 0,
        expires: Some(1_000_000_000),
    };
    let (expired, record) = issue(grant).unwrap();
    StateDb::open(server.data()).unwrap().add_token(&record).unwrap();
    check(&expired, 401, "expired");
    let id = good.split('_').nth(1).unwrap();
    place.snowbank(&["token", "revoke", id]).expect_success();
    check(&good, 401, "revoked");
    let (unknown, _) = issue(Grant {
        name: String::new(),
        push: true,
        pull: true,
        pin: false,
        caches: None,
        created: 0,
        expires: None,
    })
    .unwrap();
    check(&unknown, 401, "not known");
    assert_nowhere(&server, &[&good, &expired, &unknown]);
    assert!(server.metric("snowbank_denied_requests_total", "reason=\"revoked\"") >= 1.0);
}

#[test]
fn ten_wrong_tokens_a_minute_are_enough_and_nobody_else_notices() {
    let place = Place::new(PRIVATE);
    let server = place.start();
    let at = server.address();
    let good = bearer(&place.token("team", "pull"));
    let url = format!("/c/team/{}.narinfo", path("leaf").hash());
    let wrong = bearer(&format!("sb_00000000_{}", "0".repeat(52)));
    for _ in 0..10 {
        ask(at, "GET", &url, &[&wrong]).expect(401);
        ask(at, "GET", &url, &[&good]).expect(200);
    }
    let answer = ask(at, "GET", &url, &[&wrong]).expect(429);
    assert_eq!(answer.must("retry-after"), "60");
    ask(at, "GET", "/", &["Basic nonsense"]).expect(429);
    ask(at, "GET", &url, &[&good]).expect(200);
    ask(at, "GET", &url, &[]).expect(401);
    ask(at, "GET", "/c/docs/nix-cache-info", &[&wrong]).expect(200);
    assert!(server.metric("snowbank_denied_requests_total", "too-many-wrong") >= 2.0);
}

#[test]
fn each_cache_lets_in_those_who_may_push_to_it_and_no_others() {
    let place = Place::new(PRIVATE);
    let server = place.start();
    let at = server.address();
    let writer = bearer(&place.token("docs", "push"));
    let reader = bearer(&place.token("docs", "pull"));
    for (method, object) in [
        ("PUT", format!("{ABSENT}.narinfo")),
        ("PUT", "nar/x.nar".into()),
        ("DELETE", "nix-cache-info".into()),
        ("POST", "_snowbank/v1/missing".into()),
        ("GET", "_snowbank/v1/uploads/1".into()),
    ] {
        let status = |cache: &str, shown: &[&str]| {
            ask(at, method, &format!("/c/{cache}/{object}"), shown).status
        };
        assert_eq!(status("docs", &[]), 401, "{method} {object}");
        assert_eq!(status("docs", &[&reader]), 403, "{method} {object}");
        assert_eq!(status("team", &[&writer]), 403, "{method} {object}");
        for (cache, shown) in [("docs", &[writer.as_str()][..]), ("free", &[])] {
            let status = status(cache, shown);
            assert!(![401, 403, 429, 503].contains(&status), "{method} {cache} {object}: {status}");
        }
        let answer = ask(at, method, &format!("/c/closed/{object}"), &[&writer]).expect(405);
        assert_eq!(answer.must("allow"), "GET, HEAD");
        assert_eq!(answer.text(), "this cache takes no pushes\n");
    }
}

#[test]
fn a_state_database_of_a_newer_version_is_left_alone_and_only_the_public_is_served() {
    let place = Place::new(PRIVATE);
    let token = place.token("team", "pull,push");
    let file = place.data.data.join("state/state.sqlite");
    let connection = rusqlite::Connection::open(&file).unwrap();
    connection.pragma_update(None, "user_version", 1000).unwrap();
    drop(connection);
    let before = fs::read(&file).unwrap();
    let server = place.start();
    let at = server.address();
    ask(at, "GET", "/c/docs/nix-cache-info", &[]).expect(200);
    let shown = bearer(&token);
    for shown in [&[][..], &[shown.as_str()]] {
        for (method, url) in
            [("GET", "/c/team/nix-cache-info"), ("PUT", "/c/docs/x"), ("PUT", "/c/free/x")]
        {
            let answer = ask(at, method, url, shown).expect(503);
            assert!(answer.header("retry-after").is_some());
        }
    }
    let log = server.log();
    let said = log.lines().filter(|line| line.contains("schema 1000")).count();
    assert_eq!(said, 1, "{log}");
    let refused = place.snowbank(&["token", "ls"]).expect_failure();
    assert!(refused.stderr.contains("a newer snowbank made it"), "{}", refused.stderr);
    server.stop();
    assert_eq!(fs::read(&file).unwrap(), before);
}

#[test]
fn a_damaged_state_database_is_set_aside_and_the_server_says_what_to_do() {
    let place = Place::new(PRIVATE);
    let token = place.token("team", "pull");
    let file = place.data.data.join("state/state.sqlite");
    fs::write(&file, "no database at all ".repeat(1000)).unwrap();
    let server = place.start();
    assert!(server.log().contains("tokens must be made again"), "{}", server.log());
    let url = "/c/team/nix-cache-info";
    ask(server.address(), "GET", url, &[&bearer(&token)]).expect(401);
    let anew = place.token("team", "pull");
    ask(server.address(), "GET", url, &[&bearer(&anew)]).expect(200);
    let names = fs::read_dir(file.parent().unwrap()).unwrap();
    let aside = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .find(|name| name.starts_with("state.sqlite.corrupt-2"));
    assert!(aside.is_some());
}

#[test]
fn tokens_are_listed_without_their_secrets_and_a_slip_makes_none() {
    let place = Place::new(PRIVATE);
    let words = ["token", "create", "--cache", "team", "--cache", "docs", "--scope", "push"];
    let words = [&words[..], &["--expires", "never", "--name", "runner 3", "--json"]].concat();
    let made = place.snowbank(&words).expect_success();
    assert!(made.stderr.contains("netrc") && made.stderr.contains("SNOWBANK_TOKEN"));
    let stderr = made.stderr.clone();
    let made: serde_json::Value = serde_json::from_str(&made.text()).unwrap();
    let token = made["token"].as_str().unwrap();
    assert!(!stderr.contains(token), "standard error is often kept");
    let listed = place.snowbank(&["token", "ls", "--json"]).expect_success().text();
    let all: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(all[0]["name"], "runner 3");
    assert_eq!(all[0]["caches"], serde_json::json!(["docs", "team"]));
    assert_eq!(all[0]["id"], made["id"]);
    let table = place.snowbank(&["token", "ls"]).expect_success().text();
    assert!(table.lines().nth(1).unwrap().contains("good") && !table.contains(token));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&place.data.data.join("state")), 0o700);
    assert_eq!(mode(&place.data.data.join("state/state.sqlite")), 0o600);
    for (words, code) in [
        (&["token", "create", "--cache", "taem", "--scope", "push", "--expires", "1d"][..], 2),
        (&["token", "create", "--cache", "team", "--scope", "psh", "--expires", "1d"], 2),
        (&["token", "create", "--cache", "team", "--scope", "push", "--expires", "1x"], 2),
        (&["token", "revoke", "00000000"], 1),
    ] {
        let outcome = place.snowbank(words);
        assert_eq!(outcome.code, Some(code), "{words:?}: {}", outcome.stderr);
    }
    assert_eq!(place.snowbank(&["token", "ls"]).expect_success().text(), table);
}

#[test]
fn why_says_who_pushed_a_path_or_that_it_is_not_here() {
    let place = Place::new(PRIVATE);
    let leaf = path("leaf");
    let unknown =
        place.snowbank(&["why", leaf.as_str(), "--cache", "team"]).expect_success().text();
    assert!(unknown.contains("came another way"), "{unknown}");
    let push = PushRecord {
        cache: "team".into(),
        path: snowbank::nix::store_path::StorePath::parse(leaf.base_name()).unwrap(),
        nar_hash: Sha256::from_nix32(&fixtures().nar_hash(leaf)).unwrap(),
        nar_size: fixtures().dump_size(leaf),
        pusher: "runner 3".into(),
        token: Some("a1b2c3d4".into()),
        address: "192.0.2.7".into(),
        at: 1_800_000_000,
    };
    StateDb::open(&place.data.data).unwrap().record_pushes(&[push]).unwrap();
    let said = place.snowbank(&["why", leaf.hash()]).expect_success().text();
    let line = "pushed by   runner 3 with token a1b2c3d4 from 192.0.2.7 on 2027-01-15T08:00:00Z\n";
    assert!(said.contains(line), "{said}");
    let json = place.snowbank(&["why", leaf.as_str(), "--cache", "team", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json.expect_success().text()).unwrap();
    assert_eq!(json["caches"][0]["here"]["path"], leaf.base_name());
    assert_eq!(json["caches"][0]["pushes"][0]["pusher"], "runner 3");
    let absent = place.snowbank(&["why", ABSENT]);
    assert_eq!(absent.code, Some(1));
    assert!(absent.stderr.contains("is in no bank"), "{}", absent.stderr);
    assert_eq!(place.snowbank(&["why", "hello"]).code, Some(2));
}

#[test]
fn nix_pushes_with_its_netrc_and_why_names_the_token() {
    let place = Place::new(PRIVATE);
    let server = place.start();
    let token = place.token("docs", "push");
    let own = tempdir();
    let netrc = own.path().join("netrc");
    let store = &fixtures().store;
    let url = format!("{}/c/docs", server.url());
    let push = |password: &str| {
        fs::write(&netrc, format!("machine 127.0.0.1 login snowbank password {password}\n"))
            .unwrap();
        let mut order = store.program("nix");
        order.args(["copy", "--to", &url, path("leaf").as_str(), "--option", "netrc-file"]);
        run(order.arg(&netrc), 180)
    };
    for wrong in [place.token("docs", "pull"), place.token("team", "push")] {
        let refused = push(&wrong).expect_failure();
        assert!(refused.stderr.contains("403"), "{}", refused.stderr);
    }
    let narinfo = format!("/c/docs/{}.narinfo", path("leaf").hash());
    assert_eq!(server.get(&narinfo).status, 404, "nothing was taken of those who may not");
    push(&token).expect_success();
    server.get(&narinfo).expect(200);
    let id = token.split('_').nth(1).unwrap();
    // It is noted after the push was answered.
    let why = wait_for("the record of the push", PATIENCE, || {
        let why = place.snowbank(&["why", path("leaf").as_str(), "--cache", "docs", "--json"]);
        let why: serde_json::Value = serde_json::from_str(&why.expect_success().text()).unwrap();
        (why["caches"][0]["pushes"] != serde_json::json!([])).then_some(why)
    });
    let pushes = why["caches"][0]["pushes"].as_array().unwrap();
    assert_eq!(pushes.len(), 1, "{why}");
    assert_eq!(pushes[0]["token"], id);
    assert_eq!(pushes[0]["address"], "127.0.0.1");
    assert_eq!(pushes[0]["nar_hash"], why["caches"][0]["here"]["nar_hash"]);
    assert_nowhere(&server, &[&token]);
}

#[test]
fn another_nar_of_a_path_is_refused_and_why_tells_of_it() {
    let place = Place::new(PRIVATE);
    let server = place.start();
    let at = server.address();
    let (leaf, file) = (path("leaf"), path("file"));
    // The path is there; a narinfo that gives it another path's NAR contradicts it.
    let theirs = fixtures().nar_hash(file);
    let narinfo = format!(
        "StorePath: {}\nURL: nar/{}.nar.zst\nCompression: zstd\nNarHash: sha256:{theirs}\nNarSize: {}\nReferences: \n",
        leaf.as_str(),
        "0".repeat(52),
        fixtures().dump_size(file)
    );
    let token = place.token("team", "push");
    let length = narinfo.len().to_string();
    let mut connection = Connection::open(at);
    let url = format!("/c/team/{}.narinfo", leaf.hash());
    let headers = [("Authorization", bearer(&token)), ("Content-Length", length)];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    connection.send_request("PUT", &url, &headers).unwrap();
    connection.send(narinfo.as_bytes()).unwrap();
    connection.response(false).unwrap().expect(409);
    let line = wait_for("the record of the conflict", PATIENCE, || {
        let why = place.snowbank(&["why", leaf.hash(), "--cache", "team"]).expect_success().text();
        why.lines().find(|line| line.contains("refused")).map(str::to_owned)
    });
    let ours = fixtures().nar_hash(leaf);
    assert!(line.contains(&theirs) && line.contains(&ours), "{line}");
}

#[test]
fn an_upload_is_gone_on_with_by_whoever_began_it_and_by_nobody_else() {
    let place = Place::new(PRIVATE);
    let server = place.start();
    let (own, other) = (place.token("docs", "push"), place.token("docs", "push"));
    let new = format!(
        r#"{{"nar_hash":"{}","nar_size":100,"form":"zstd-3"}}"#,
        Sha256::of(b"a NAR that never comes")
    );
    let call = |method: &str, below: &str, token: &str, body: &str| {
        let url = format!("/c/docs/_snowbank/v1/uploads{below}");
        let token = bearer(token);
        let headers = [
            ("Authorization", token.as_str()),
            ("Upload-Offset", "0"),
            ("Part-Hash", &Sha256::of(body.as_bytes()).to_string()),
        ];
        server.connect().send_with_body(method, &url, &headers, body.as_bytes())
    };
    let begun = call("POST", "", &own, &new).expect(200).json();
    let upload = format!("/{}", begun["upload"].as_str().unwrap());
    // Two tokens of one host are two clients, and neither learns of the other's upload.
    let others = call("POST", "", &other, &new).expect(200).json();
    assert_ne!(begun["upload"], others["upload"]);
    for method in ["GET", "PATCH", "DELETE"] {
        let refused = call(method, &upload, &other, "bytes").expect(404).text();
        assert_eq!(
            refused,
            call(method, &format!("/{}", "0".repeat(32)), &other, "bytes")
                .text()
                .replace(&"0".repeat(32), begun["upload"].as_str().unwrap())
        );
    }
    call("PATCH", &upload, &own, "bytes").expect(200);
    assert_eq!(call("GET", &upload, &own, "").expect(200).json()["offset"], 5);
    call("DELETE", &upload, &own, "").expect(204);
    call("GET", &upload, &own, "").expect(404);
}
