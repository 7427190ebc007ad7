use std::time::Instant;

use proptest::prelude::*;

use super::super::error::BrokenStream;
use super::super::ssh::SshTarget;
use super::super::testing::Fake;
use super::*;

fn snapshot(text: &str) -> Snapshot {
    Snapshot::parse(text).unwrap()
}

fn send() -> Send {
    Send::new(None, snapshot("tank/a@s"))
}

fn receive() -> Receive {
    Receive::into(DatasetName::parse("tank/b").unwrap())
}

/// A `zfs` that sends by one script and receives by another.
fn fake(sender: &str, receiver: &str) -> Fake {
    Fake::new(&format!("case $1 in send) {sender};; receive) {receiver};; esac"))
}

fn run(fake: &Fake) -> Result<u64, ZfsError> {
    fake.zfs.transfer(&send(), &fake.zfs, &receive(), |_| ControlFlow::Continue(()))
}

fn broken(result: Result<u64, ZfsError>) -> BrokenStream {
    match result.unwrap_err() {
        ZfsError::Stream(broken) => *broken,
        other => panic!("{other:?}"),
    }
}

#[test]
fn commands_say_what_is_sent_and_how_it_is_received() {
    let base = Base::Snapshot(snapshot("tank/a@r"));
    let incremental = Send::new(Some(base), snapshot("tank/a@s"));
    let bookmark = Base::Bookmark(Bookmark::parse("tank/a#b").unwrap());
    let to = snapshot("tank/a@s");
    let raw = Send::Snapshot { from: Some(bookmark), to, properties: true, raw: true };
    let resume = Send::Resume(ResumeToken::parse("1-f4-110-78").unwrap());
    for (send, shown) in [
        (send(), "zfs send -cLe tank/a@s"),
        (incremental, "zfs send -cLe -i tank/a@r tank/a@s"),
        (raw, "zfs send -cLe -p -w -i 'tank/a#b' tank/a@s"),
        (resume, "zfs send -t 1-f4-110-78"),
    ] {
        assert_eq!(send.command().to_string(), shown);
    }
    assert_eq!(receive().command().to_string(), "zfs receive -s -u tank/b");
    let full = Receive {
        set: vec![("readonly".into(), "on".into())],
        exclude: vec!["quota".into(), "mountpoint".into()],
        rollback: true,
        ..receive()
    };
    assert_eq!(
        full.command().to_string(),
        "zfs receive -s -u -F -o readonly=on -x quota -x mountpoint tank/b"
    );
    assert_eq!(abort(&full.target).to_string(), "zfs receive -A tank/b");
}

#[test]
fn all_bytes_arrive_as_they_were_sent_and_are_counted() {
    let fake =
        fake("head -c 20000000 /dev/urandom | tee \"${0%/*}/sent\"", "cat > \"${0%/*}/got\"");
    let mut told = Vec::new();
    let progress = |bytes| {
        told.push(bytes);
        ControlFlow::Continue(())
    };
    let bytes = fake.zfs.transfer(&send(), &fake.zfs, &receive(), progress).unwrap();
    assert_eq!(bytes, 20_000_000);
    assert!(told.is_sorted() && told.last() == Some(&bytes), "{told:?}");
    let directory = fake.install("answer", "");
    let file = |name: &str| std::fs::read(directory.with_file_name(name)).unwrap();
    assert!(file("sent") == file("got"));
}

#[test]
fn a_sender_that_fails_after_all_its_bytes_is_a_broken_stream() {
    let fake = fake("echo bytes; echo gone >&2; exit 7", "cat >/dev/null");
    let broken = broken(run(&fake));
    assert_eq!((broken.send_end.code, broken.send_end.stderr.as_str()), (Some(7), "gone"));
    assert_eq!((broken.receive_end.code, broken.bytes), (Some(0), 6));
    assert_eq!(
        broken.to_string(),
        "the stream broke after 6 bytes: `zfs send -cLe tank/a@s` failed with exit code 7: gone; \
         `zfs receive -s -u tank/b` ended well"
    );
}

#[test]
fn a_receiver_that_refuses_ends_the_sender_and_its_words_are_told() {
    for receiver in ["echo full >&2; exit 1", "head -c 100000 >/dev/null; echo full >&2; exit 1"] {
        let start = Instant::now();
        let broken = broken(run(&fake("exec cat /dev/zero", receiver)));
        assert_eq!(broken.receive_end.code, Some(1), "{broken}");
        assert_eq!(broken.receive_end.stderr, "full");
        assert_eq!(broken.send_end.code, None, "{broken}");
        assert!(start.elapsed() < Duration::from_secs(60));
    }
}

#[test]
fn a_receiver_that_ends_well_before_the_stream_does_is_no_success() {
    let broken = broken(run(&fake("exec cat /dev/zero", "head -c 10 >/dev/null")));
    assert_eq!((broken.receive_end.code, broken.send_end.code), (Some(0), None));
}

#[test]
fn a_receiver_that_knows_the_end_need_not_wait_for_the_sender_to_close() {
    let fake = fake("echo ten bytes; sleep 1", "head -c 10 >/dev/null");
    assert_eq!(run(&fake).unwrap(), 10);
}

#[test]
fn the_side_that_stands_still_is_killed_and_named() {
    for (sender, receiver, sender_stalls) in [
        ("echo x; exec sleep 1000", "exec cat >/dev/null", true),
        ("exec cat /dev/zero", "exec sleep 1000", false),
        ("echo x", "cat >/dev/null; exec sleep 1000", false),
    ] {
        let fake = fake(sender, receiver);
        let zfs = fake.zfs.within(Duration::from_secs(1));
        let result = zfs.transfer(&send(), &zfs, &receive(), |_| ControlFlow::Continue(()));
        let broken = broken(result);
        assert_eq!(broken.send_end.stalled.is_some(), sender_stalls, "{broken}");
        assert_eq!(broken.receive_end.stalled.is_some(), !sender_stalls, "{broken}");
        assert_eq!(zfs.hanging(), 0);
    }
}

#[test]
fn a_transfer_can_be_stopped_and_leaves_no_child() {
    let fake = fake("echo $$ > \"${0%/*}/pid\"; exec cat /dev/zero", "exec cat >/dev/null");
    let mut seen = 0;
    let result = fake.zfs.transfer(&send(), &fake.zfs, &receive(), |bytes| {
        seen = bytes;
        if bytes > 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    match result.unwrap_err() {
        ZfsError::Cancelled { bytes, .. } => assert_eq!(bytes, seen),
        other => panic!("{other:?}"),
    }
    let pid = std::fs::read_to_string(fake.install("answer", "").with_file_name("pid")).unwrap();
    assert!(!std::path::Path::new("/proc").join(pid.trim()).exists());
}

#[test]
fn a_sender_that_cannot_be_started_is_told_as_such() {
    let zfs = Zfs::with_programs("/nonexistent/zfs", "/nonexistent/zpool");
    let fake = fake("", "exec cat");
    let result = zfs.transfer(&send(), &fake.zfs, &receive(), |_| ControlFlow::Continue(()));
    assert!(matches!(result, Err(ZfsError::Missing { .. })), "{result:?}");
}

#[test]
fn the_other_side_may_be_another_machine() {
    let fake = fake("echo bytes", "cat > \"${0%/*}/got\"; echo \"$*\" > \"${0%/*}/how\"");
    let there = fake.zfs.on(SshTarget::parse("host").unwrap()).with_ssh(fake.ssh());
    let receive = Receive { set: vec![("snowbank:note".into(), "a 'b'".into())], ..receive() };
    let result = fake.zfs.transfer(&send(), &there, &receive, |_| ControlFlow::Continue(()));
    assert_eq!(result.unwrap(), 6);
    let file = |name| std::fs::read_to_string(fake.install("answer", "").with_file_name(name));
    assert_eq!(file("got").unwrap(), "bytes\n");
    assert_eq!(file("how").unwrap(), "receive -s -u -o snowbank:note=a 'b' tank/b\n");
}

#[test]
fn estimates_of_both_versions_are_read() {
    for text in [
        include_str!("../samples/2.1.11/send_nvP_L.out"),
        include_str!("../samples/2.3.9/send_nvP_L.out"),
        include_str!("../samples/2.1.11/send_incr_nP.out"),
        include_str!("../samples/2.3.9/send_incr_nP.out"),
        include_str!("../samples/2.1.11/resume_send.out"),
        include_str!("../samples/2.3.9/resume_send.out"),
    ] {
        let estimate = parse_estimate(text).unwrap();
        let size = text.trim_end().rsplit('\t').next().unwrap();
        assert_eq!(estimate.bytes.to_string(), size);
        assert_eq!(estimate.to, Some(snapshot("tank/store@s2")));
    }
    for text in ["", "full\ttank/a@s\t1\n", "size\tx\n"] {
        let fake = Fake::that_prints(text);
        assert!(matches!(fake.zfs.estimate(&send()), Err(ZfsError::Unreadable { .. })), "{text:?}");
    }
}

#[test]
fn tokens_of_both_versions_are_tokens() {
    for text in [
        include_str!("../samples/2.1.11/resume_token.out"),
        include_str!("../samples/2.3.9/resume_token.out"),
    ] {
        assert_eq!(ResumeToken::parse(text.trim()).unwrap().as_str(), text.trim());
    }
    for text in ["", "-", "-t", "1-f4;x", "1-G"] {
        assert_eq!(ResumeToken::parse(text), None, "{text:?}");
    }
}

proptest! {
    #[test]
    fn no_estimate_makes_a_panic(text in "(size|full|incremental|\t|\n|[0-9a-z@/]){0,12}") {
        let _ = parse_estimate(&text);
    }
}
