//! The order of the system calls of a push, seen from outside by strace: row R2 of the reliability matrix. What is
//! answered is durable, and nothing has a name before it has its bytes.

use std::{fs, path::Path};

use crate::support::{
    PATIENCE, command,
    made::{Form, Made},
    pushed::{Pushed, Pusher},
    wait_for,
};

/// One system call: the lines of the trace at which it began and ended.
#[derive(Debug)]
struct Call {
    text: String,
    begin: usize,
    end: usize,
}

/// The calls of a server while `push` pushes to it, with the paths of descriptors in them.
fn traced(push: impl FnOnce(&mut Pusher)) -> (Pushed, Vec<Call>) {
    let probe = command("strace").args(["-f", "-o", "/dev/null", "true"]).output();
    let probe = probe.expect("strace is missing: tests/run packages installs it");
    assert!(
        probe.status.success(),
        "strace may not trace here, so the order of calls cannot be seen; it needs ptrace: {}",
        String::from_utf8_lossy(&probe.stderr)
    );
    let pushed = Pushed::new("");
    let trace = pushed.file("trace");
    let calls = "fsync,fdatasync,syncfs,rename,renameat,renameat2,link,linkat,write,writev,sendto,\
                 sendmsg";
    // The tracer stands aside (-D), so that the process that was started is the server.
    let script = format!(
        "exec strace -D -f -y -s 24 -e signal=none -e trace={calls} -o '{}' \"$0\" \"$@\"",
        trace.display()
    );
    let mut server = pushed.setup("").after_shell(&script).start();
    let mut pusher = Pusher::to(server.address()).unwrap();
    push(&mut pusher);
    server.signal(rustix::process::Signal::TERM);
    server.wait(PATIENCE);
    // The tracer writes on for a moment after the process that it traced.
    let text = wait_for("the end of the trace", PATIENCE, || {
        let text = fs::read_to_string(&trace).unwrap();
        let end = format!("{} +++ exited", server.pid());
        text.lines().any(|line| line.split_whitespace().eq_words(&end)).then_some(text)
    });
    (pushed, read(&text))
}

trait Words {
    fn eq_words(self, start: &str) -> bool;
}

impl<'a, I: Iterator<Item = &'a str>> Words for I {
    /// Whether these words begin with those of `start`.
    fn eq_words(mut self, start: &str) -> bool {
        start.split_whitespace().all(|word| self.next() == Some(word))
    }
}

fn read(trace: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut open: Vec<(String, usize)> = Vec::new();
    for (number, line) in trace.lines().enumerate() {
        let (process, rest) = line.split_once(' ').unwrap();
        let rest = rest.trim_start();
        if rest.starts_with("<... ") {
            let at = open.iter().position(|(owner, _)| owner == process).unwrap();
            let (_, index) = open.remove(at);
            calls[index].end = number;
        } else if let Some(text) = rest.strip_suffix("<unfinished ...>") {
            open.push((process.to_owned(), calls.len()));
            calls.push(Call { text: text.to_owned(), begin: number, end: usize::MAX });
        } else {
            calls.push(Call { text: rest.to_owned(), begin: number, end: number });
        }
    }
    calls
}

/// Finds the first call after `after` of which `is_it` holds.
#[track_caller]
fn next<'a>(
    calls: &'a [Call],
    what: &str,
    after: Option<&Call>,
    is_it: impl Fn(&str) -> bool,
) -> &'a Call {
    let begin = after.map_or(0, |call| call.end);
    let found = calls.iter().find(|call| {
        call.begin >= begin && after.is_none_or(|after| call.begin > after.end) && is_it(&call.text)
    });
    found.unwrap_or_else(|| {
        let texts: Vec<_> = calls.iter().map(|call| format!("{call:?}")).collect();
        panic!("no {what} after {after:?} in\n{}", texts.join("\n"))
    })
}

/// A rename to this name, and what was renamed.
#[track_caller]
fn rename<'a>(calls: &'a [Call], after: Option<&Call>, to: &Path) -> (&'a Call, String) {
    let quoted = format!("\"{}\"", to.display());
    let short = quoted.clone();
    let call = next(calls, &format!("rename to {short}"), after, |text| {
        text.starts_with("rename") && text.trim_end().contains(&format!(", {quoted}"))
            || text.starts_with("renameat") && text.contains(&quoted)
    });
    let from = call.text.split('"').nth(1).unwrap().to_owned();
    (call, from)
}

fn fsync(path: &Path) -> impl Fn(&str) -> bool {
    let end = format!("<{}>", path.display());
    move |text| {
        (text.starts_with("fsync(") || text.starts_with("fdatasync(")) && text.contains(&end)
    }
}

fn answer(status: u16) -> impl Fn(&str) -> bool {
    let start = format!("\"HTTP/1.1 {status}");
    move |text| text.contains(&start)
}

/// fsync(temporary file) < rename < fsync(directory) < `status` on the wire; gives the answer.
#[track_caller]
fn expect_published<'a>(calls: &'a [Call], to: &Path, status: u16) -> &'a Call {
    let (renamed, from) = rename(calls, None, to);
    let synced = next(calls, &format!("fsync of {from}"), None, fsync(Path::new(&from)));
    assert!(synced.end < renamed.begin, "{to:?} has its name before it has its bytes");
    let directory = fsync(to.parent().unwrap());
    let synced = next(calls, "fsync of its directory", Some(renamed), directory);
    let first = next(calls, "answer", Some(renamed), answer(status));
    assert!(synced.end < first.begin, "{to:?} is acknowledged before its name is durable");
    first
}

#[test]
fn r2_a_stock_push_is_answered_when_it_is_durable() {
    let made = Made::new("order", b"some bytes", &[]);
    let (pushed, calls) = traced(|pusher| pusher.stock(&made, Form::Bare).unwrap());
    let hash = made.info.nar_hash.to_nix32();
    let waits = pushed.bank().join(format!("pending/{hash}.nar"));
    let taken = expect_published(&calls, &waits, 201);
    for ending in ["facts", "ls"] {
        expect_published(&calls, &waits.with_extension(format!("nar.{ending}")), 201);
    }
    // The NAR is in its place, durably, before the narinfo that names it.
    let narinfo = pushed.bank().join(format!("{}.narinfo", made.hash()));
    let (placed, _) =
        rename(&calls, Some(taken), &pushed.bank().join(format!("nar/{hash}.nar.zst")));
    let durable = next(&calls, "fsync of nar/", Some(placed), fsync(&pushed.bank().join("nar")));
    let (named, _) = rename(&calls, Some(taken), &narinfo);
    assert!(durable.end < named.begin, "the narinfo is there before its NAR is durable");
    assert!(taken.end < placed.begin);
    expect_published(
        &calls[calls.iter().position(|call| call.begin > taken.end).unwrap()..],
        &narinfo,
        201,
    );
}

#[test]
fn r2_a_commit_is_answered_when_all_of_it_is_durable() {
    let first = Made::new("first", b"one", &[]);
    let second = Made::new("second", b"two", &[&first]);
    let (pushed, calls) = traced(|pusher| {
        pusher.whole(&first, Form::Seekable).unwrap();
        pusher.whole(&second, Form::Seekable).unwrap();
        pusher.commit(&[&second, &first]).unwrap();
    });
    let bank = pushed.bank();
    let is_syncfs = |text: &str| text.starts_with("syncfs(");
    let is_journal = |text: &str| text.starts_with("rename") && text.contains(".journal\"");
    let journal = next(&calls, "journal", None, is_journal);
    let before = calls.iter().rev().find(|call| call.end < journal.begin && is_syncfs(&call.text));
    let before = before.expect("the NARs are made durable before the journal");
    for made in [&first, &second] {
        let name = format!("nar/{}.nar.zst", made.info.nar_hash.to_nix32());
        let (placed, _) = rename(&calls, None, &bank.join(name));
        assert!(placed.end < before.begin, "a journal may not need a NAR that is not in its place");
    }
    let decided = next(&calls, "fsync of pending/", Some(journal), fsync(&bank.join("pending")));
    let mut last = decided;
    for made in [&first, &second] {
        // References first.
        let (named, _) = rename(&calls, None, &bank.join(format!("{}.narinfo", made.hash())));
        assert!(last.end < named.begin, "{} is visible too early", made.hash());
        last = named;
    }
    let after = next(&calls, "syncfs", Some(last), is_syncfs);
    let told = next(&calls, "answer", Some(last), answer(200));
    assert!(after.end < told.begin, "it is acknowledged before it is durable");
}
