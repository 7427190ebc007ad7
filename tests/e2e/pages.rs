//! The pages for people, byte by byte: what they show, to whom, and what they must never show.

use crate::support::{
    PATIENCE, command,
    fixtures::{fixtures, path},
    host::{Home, Host},
    http::Response,
    made::{Form, Made, closure},
    nix::run,
    pushed::{Pushed, Pusher},
    server::{Server, Setup},
    snowbank, wait_until,
};

/// What only those see who may.
const STATUS: &str = "The last twelve hours";

fn token(pushed: &Pushed, scopes: &str, cache: &str) -> String {
    let mut order = command(snowbank());
    order.args(["token", "create", "--name", "ci-of-the-test", "--expires", "1d"]);
    order.args(["--cache", cache, "--scope", scopes]);
    order.arg("--config").arg(pushed.file("config.toml")).arg("--data-dir").arg(pushed.data());
    run(&mut order, 30).expect_success().text().trim().to_owned()
}

fn get(server: &Server, path: &str, headers: &[(&str, &str)]) -> Response {
    server.connect().request("GET", path, headers)
}

fn basic(token: &str) -> String {
    let credential = data_encoding::BASE64.encode(format!("anybody:{token}").as_bytes());
    format!("Basic {credential}")
}

/// A server to which a small closure was pushed.
fn pushed_to(pushed: &Pushed) -> (Server, Vec<Made>) {
    let server = pushed.start();
    let made = closure(7);
    let mut pusher = Pusher::to(server.address()).unwrap();
    made.iter().for_each(|made| pusher.stock(made, Form::Zstd).unwrap());
    (server, made)
}

#[test]
fn how_the_server_is_is_shown_to_those_whom_the_setting_names() {
    for (setting, stranger, by_proxy, known) in [
        ("", false, false, true),
        ("status_for = 'authenticated'", false, false, true),
        ("status_for = 'loopback'", true, false, true),
        ("status_for = 'everybody'", true, true, true),
        ("status_for = 'nobody'", false, false, false),
    ] {
        let pushed = Pushed::with(setting, "");
        let (server, made) = pushed_to(&pushed);
        let (pull, push) = (token(&pushed, "pull", "default"), token(&pushed, "push", "default"));
        let wrong = format!("Bearer {pull}x");
        for (headers, sees) in [
            (&[][..], stranger),
            (&[("authorization", wrong.as_str())], stranger),
            (&[("x-forwarded-for", "192.0.2.1")], by_proxy),
            (&[("x-real-ip", "127.0.0.1")], by_proxy),
            (&[("authorization", &basic(&pull)), ("x-forwarded-for", "192.0.2.1")], known),
            (&[("authorization", &basic(&push))], known),
            (&[("authorization", &format!("Bearer {pull}"))], known),
        ] {
            let what = format!("{setting:?} {headers:?}");
            let page = get(&server, "/", headers).expect(200).text();
            assert_eq!(page.contains(STATUS), sees, "{what}");
            assert_eq!(page.contains(&made[0].hash()), sees, "what was pushed: {what}");
            assert!(page.contains(&server.key()), "how to use it is everybody's: {what}");
            let path = get(&server, &format!("/path/{}", made[0].hash()), headers).expect(200);
            assert_eq!(path.text().contains("Pushed by"), sees, "{what}");
            let found = get(&server, "/search?q=first", headers).expect(200).text();
            assert_eq!(found.contains(&made[0].hash()), sees, "{what}");
        }
    }
}

#[test]
fn a_browser_is_asked_for_a_token_where_everybody_may_read_once_somebody_wants_to_sign_in() {
    let pushed = Pushed::new("");
    let server = pushed.start();
    let page = get(&server, "/", &[]).expect(200).text();
    assert!(page.contains("href=\"?sign-in\""), "{page}");
    let asked = get(&server, "/?sign-in", &[]).expect(401);
    assert!(asked.must("www-authenticate").starts_with("Basic "), "{:?}", asked.headers);
    let token = token(&pushed, "pull", "default");
    let page = get(&server, "/?sign-in", &[("authorization", &basic(&token))]).expect(200).text();
    assert!(page.contains(STATUS) && !page.contains("?sign-in"));
}

#[test]
fn a_cache_that_one_may_not_read_is_on_no_page() {
    let settings = "[cache.vault]\npush = 'open'\npull = 'token'\n";
    let pushed = Pushed::with("status_for = 'everybody'", settings);
    let (server, _) = pushed_to(&pushed);
    assert!(!get(&server, "/", &[]).expect(200).text().contains("vault"));
    get(&server, "/c/vault/", &[]).expect(401);
    get(&server, "/c/vault/search?q=x", &[]).expect(401);
    // A token of one cache tells nothing of another.
    let (ours, theirs) = (token(&pushed, "pull", "default"), token(&pushed, "pull", "vault"));
    let seen_with =
        |path: &str, token: &str| get(&server, path, &[("authorization", &basic(token))]);
    assert!(!seen_with("/", &ours).expect(200).text().contains("vault"));
    let page = seen_with("/c/vault/", &theirs).expect(200);
    assert!(page.text().contains("Cache vault"), "{}", page.text());
    assert!(page.must("cache-control").contains("no-store"));
}

#[test]
fn the_page_of_a_path_says_what_it_is_who_pushed_it_what_keeps_it_and_what_is_in_it() {
    let pushed = Pushed::with("status_for = 'everybody'", "");
    let (server, made) = pushed_to(&pushed);
    let [first, second, third, _] = &made[..] else { panic!() };
    let mut order = command(snowbank());
    order.args(["pin", "add", "nightly", &third.hash()]);
    order.arg("--config").arg(pushed.file("config.toml")).arg("--data-dir").arg(pushed.data());
    run(&mut order, 30).expect_success();
    let page = get(&server, &format!("/path/{}", third.hash()), &[]).expect(200).text();
    for part in [
        third.info.path.to_string(),
        format!("NarHash: {}", third.info.nar_hash),
        format!("href=\"{}\"", first.hash()),
        format!("href=\"{}\"", second.hash()),
        "<svg".into(),
        "127.0.0.1".into(),
        "<code>nightly</code>".into(),
        format!("href=\"../serve/{}/file\"", third.hash()),
        // Where the contents begin: after 24 bytes of "nix-archive-1", 80 of a directory and its entry, 48 of the
        // entry's name, and 80 of what a file is.
        ">232<".into(),
    ] {
        assert!(page.contains(&part), "{part} is not in {page}");
    }
    // It is kept by what it is needed for, and asked for as often as its narinfo was.
    let page = || get(&server, &format!("/path/{}", first.hash()), &[]).expect(200).text();
    assert!(page().contains("<code>nightly</code>"));
    server.get(&format!("/{}.narinfo", first.hash())).expect(200);
    server.get(&format!("/{}.narinfo", first.hash())).expect(200);
    assert!(page().contains("2 times"), "{}", page());
    let absent = "0".repeat(32);
    let missing = get(&server, &format!("/path/{absent}"), &[]).expect(404);
    assert!(missing.must("content-type").starts_with("text/html"));
    get(&server, "/path/nonsense", &[]).expect(400);
}

#[test]
fn a_path_that_was_collected_says_when_and_why() {
    let settings = "collect_every = 'never'\nkeep_unused = '0s'\nkeep_at_least = '0s'";
    let pushed = Pushed::with("status_for = 'everybody'", settings);
    let (server, made) = pushed_to(&pushed);
    let page = || get(&server, &format!("/path/{}", made[0].hash()), &[]);
    wait_until("it is collected", PATIENCE, || {
        let mut order = command(snowbank());
        order.arg("gc").arg("--config").arg(pushed.file("config.toml"));
        run(order.arg("--data-dir").arg(pushed.data()), 60).expect_success();
        page().status == 404
    });
    let page = page().text();
    assert!(page.contains("not here") && page.contains("Collected"), "{page}");
    // Who pushed it is known yet.
    assert!(page.contains("127.0.0.1"), "{page}");
}

#[test]
fn paths_are_found_by_hash_by_name_and_by_what_made_them_in_banks_and_in_the_store() {
    let pushed = Pushed::with("status_for = 'everybody'", "");
    let (server, made) = pushed_to(&pushed);
    let full = format!("%2Fnix%2Fstore%2F{}", made[1].info.path);
    for text in [made[1].hash(), made[1].info.path.to_string(), full] {
        let found = get(&server, &format!("/search?q={text}"), &[]).expect(303);
        assert_eq!(found.must("location"), format!("path/{}", made[1].hash()));
    }
    let find = |server: &Server, text: &str| {
        get(server, &format!("/search?q={text}"), &[]).expect(200).text()
    };
    // What has just come is found, and once all is looked through it is known to be the only one.
    assert!(find(&server, "win-7").contains(&made[3].hash()));
    wait_until("all is looked through", PATIENCE, || find(&server, "win-7").contains("One path."));
    assert!(find(&server, "no-such-name").contains("Nothing here"));
    assert!(find(&server, "%3Cscript%3E").contains("No store path has such a name"));
    get(&server, "/search?q=%ff", &[]).expect(400);
    // One that nobody is on record for, as after an import of files.
    let directory = crate::support::bank::data_directory(&fixtures().bank("zstd"));
    let config = directory.data.parent().unwrap().join("snowbank.toml");
    std::fs::write(&config, "status_for = 'everybody'\n").unwrap();
    let bank = Setup::on(&directory.data).bank_only(&fixtures().store);
    let bank = bank.argument("--config").argument(&config).start();
    let leaf = path("leaf");
    assert!(find(&bank, &leaf.base_name()[33..]).contains(leaf.hash()));
}

#[test]
fn what_a_derivation_made_is_found_in_banks_and_in_the_store() {
    let host = Host::new();
    let built = host.build("run \"made-of-it\" \"echo made > $out\"");
    let deriver = host.store.run("nix-store", &["-q", "--deriver", built[0].as_str()]);
    let deriver = deriver.trim();
    let home = Home::new(&host, "push = 'open'");
    let server = home.start();
    host.push(&server.url(), "", &[built[0].as_str()]).expect_success();
    let config = host.file("everybody.toml");
    std::fs::write(&config, "status_for = 'everybody'\n").unwrap();
    let local = Setup::bare().local_store(&host.store);
    let local = local.argument("--config").argument(&config).start();
    let token = home.token("pull");
    let shown = [("authorization", &*basic(&token))];
    for (server, headers) in [(&server, &shown[..]), (&local, &[])] {
        for text in [deriver, deriver.rsplit('/').next().unwrap(), "made-of"] {
            let found = get(server, &format!("/search?q={text}"), headers).expect(200).text();
            assert!(found.contains(built[0].hash()), "{text}: {found}");
        }
    }
}

#[test]
fn no_page_runs_what_a_name_says_or_is_larger_than_100_kb() {
    let pushed = Pushed::with("status_for = 'everybody'", "");
    let (server, _) = pushed_to(&pushed);
    let mut pusher = Pusher::to(server.address()).unwrap();
    // As many references as a list has, and more.
    let many: Vec<Made> = (0..250)
        .map(|number| Made::new(&format!("{}-{number}", "long".repeat(20)), b"x", &[]))
        .collect();
    many.iter().for_each(|made| pusher.stock(made, Form::Zstd).unwrap());
    let all = Made::new("all", b"all", &many.iter().collect::<Vec<_>>());
    pusher.stock(&all, Form::Zstd).unwrap();
    for path in ["/".to_owned(), format!("/path/{}", all.hash()), "/search?q=long".into()] {
        let page = get(&server, &path, &[]).expect(200);
        assert!(page.body.len() < 100_000, "{path}: {} bytes", page.body.len());
        let policy = page.must("content-security-policy");
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    }
    let probe = "/search?q=%22%3E%3Cscript%3Ealert(1)%3C/script%3E";
    let page = get(&server, probe, &[("host", "<script>alert(2)</script>")]).expect(200).text();
    assert!(!page.contains("<script>alert"), "{page}");
    let page = get(&server, "/", &[("host", "x\"><script>")]).text();
    assert!(!page.contains("<script>alert") && !page.contains("x\"><script"), "{page}");
}

#[test]
fn one_setting_turns_all_pages_off() {
    let pushed = Pushed::with("landing_page = false\nstatus_for = 'everybody'", "");
    let (server, made) = pushed_to(&pushed);
    for path in ["/".to_owned(), "/search?q=first".into(), format!("/path/{}", made[0].hash())] {
        get(&server, &path, &[]).expect(404);
    }
}
