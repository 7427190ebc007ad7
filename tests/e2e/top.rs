//! `snowbank top` beside a server that is at work.

use std::{
    fs,
    io::Write as _,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use crate::support::{
    PATIENCE, command,
    made::{Form, closure},
    nix::{run, tempdir},
    pushed::{Pushed, Pusher},
    server::Server,
    snowbank, wait_until,
};

/// Runs `work` while the server answers requests for narinfo.
fn under_load<T>(server: &Server, work: impl FnOnce() -> T) -> T {
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = server.connect();
            while !enough.load(Ordering::Relaxed) {
                connection.request("GET", "/00000000000000000000000000000000.narinfo", &[]);
            }
        });
        let done = work();
        enough.store(true, Ordering::Relaxed);
        done
    })
}

#[test]
fn one_look_says_what_came_in_between_and_what_the_caches_hold() {
    let pushed = Pushed::new("[cache.team]\npush = 'open'");
    let server = pushed.start();
    let mut pusher = Pusher::to(server.address()).unwrap();
    closure(1).iter().for_each(|made| pusher.stock(made, Form::Zstd).unwrap());
    let mut order = command(snowbank());
    order.args(["top", &server.url(), "--once"]);
    wait_until("the scan has seen what was pushed", PATIENCE, || {
        let text = run(&mut order, 60).expect_success().text();
        text.lines().any(|line| line.contains("default") && line.contains(" 4 paths"))
    });
    let text = under_load(&server, || run(&mut order, 60).expect_success().text());
    let line = |begin: &str| text.lines().find(|line| line.trim().starts_with(begin)).unwrap();
    assert!(line("http://").contains(&format!("snowbank {}", env!("CARGO_PKG_VERSION"))), "{text}");
    assert!(line("requests").contains("hit rate 0.0 %"), "all of them missed: {text}");
    assert!(!line("requests").starts_with("requests   0/s"), "{text}");
    assert!(line("narinfo").contains("µs") || line("narinfo").contains("ms"), "{text}");
    assert!(line("default").contains("last"), "{text}");
    assert!(line("team").contains("0 paths"), "{text}");
}

#[test]
fn what_is_wrong_is_shown_and_a_server_that_is_not_there_is_an_error() {
    let pushed = Pushed::new("");
    let server = pushed.start();
    let mut order = command(snowbank());
    order.args(["top", &server.url(), "--once"]);
    fs::rename(pushed.bank(), pushed.file("away")).unwrap();
    wait_until("it is shown that the bank is away", PATIENCE, || {
        let text = run(&mut order, 60).expect_success().text();
        text.contains("something is wrong") && text.contains("! unavailable: cache default")
    });
    server.stop();
    let outcome = run(&mut order, 60);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("/metrics"), "{}", outcome.stderr);
}

#[test]
fn on_a_terminal_it_goes_on_until_a_key_ends_it_and_leaves_the_terminal_as_it_was() {
    let pushed = Pushed::new("");
    let server = pushed.start();
    let own = tempdir();
    let seen = own.path().join("seen");
    // A terminal of its own, and what comes out of it in a file.
    let inside =
        format!("stty rows 20 cols 80; {} top {}; stty -a", snowbank().display(), server.url());
    let mut order = command("timeout");
    order.args(["60", "script", "--quiet", "--flush", "--return", "--command", &inside]);
    order.arg(&seen).env("SHELL", "/bin/sh").env("TERM", "xterm");
    let mut child = order.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let text = || String::from_utf8_lossy(&fs::read(&seen).unwrap_or_default()).into_owned();
    // The second look is the first that has something to say.
    wait_until("it shows how the server is", PATIENCE, || text().contains("hit rate"));
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"q").unwrap();
    input.flush().unwrap();
    wait_until("it has ended", PATIENCE, || child.try_wait().unwrap().is_some());
    assert!(child.wait().unwrap().success(), "{}", text());
    let text = text();
    assert!(text.contains("\u{1b}[?25l") && text.contains("\u{1b}[?25h"), "the cursor is back");
    let settings = text.rsplit("\u{1b}[?25h").next().unwrap();
    for setting in ["icanon", "echo", "isig", "opost"] {
        assert!(settings.split_whitespace().any(|word| word == setting), "{setting}: {settings}");
    }
    for line in text.lines().filter(|line| line.contains("hit rate") || line.contains("transfers"))
    {
        let shown = console_text(line);
        assert!(shown.chars().count() <= 80, "{shown:?}");
    }
}

/// A line without what moves the cursor.
fn console_text(line: &str) -> String {
    let line = line.trim_end_matches('\r');
    let mut shown = String::new();
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\u{1b}' => {
                // Up to the letter that ends the sequence.
                letters.by_ref().skip(1).find(char::is_ascii_alphabetic);
            }
            '\r' => shown.clear(),
            letter => shown.push(letter),
        }
    }
    shown
}
