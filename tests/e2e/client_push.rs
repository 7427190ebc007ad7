//! `snowbank push` of what a real Nix built to a real server, from which another Nix substitutes it.

use std::fs;

use crate::support::{
    bank::replace,
    host::{Home, Host, narinfo},
    nix::{StorePath, run},
    pushed::{names, narinfos},
};

/// References, one to itself, and two paths with one NAR.
const SMALL: &str = r#"rec {
  leaf = builtins.toFile "leaf" "a leaf\n";
  low = run "low" "mkdir $out; echo ${leaf} >$out/uses; echo $out >$out/self";
  one = run "one" "echo the same >$out";
  two = run "two" "echo the same >$out";
  top = run "top" "mkdir $out; echo ${low} ${one} ${two} >$out/uses";
}.top"#;

/// The same with 40 MB that do not compress, which go in three parts.
fn with_a_large_one() -> String {
    SMALL.replace("${two}", "${two} ${run \"large\" \"head -c 40000000 /dev/urandom >$out\"}")
}

fn top(host: &Host, expression: &str) -> StorePath {
    host.build(expression).remove(0)
}

#[test]
fn a_closure_that_was_pushed_is_substituted_elsewhere_and_is_not_sent_again() {
    let host = Host::new();
    let top = top(&host, &with_a_large_one());
    let home = Home::new(&host, "push = 'token'");
    let (server, token) = (home.start(), home.token("push"));
    let url = server.url();
    let planned = host.push(&url, &token, &[top.as_str(), "--dry-run"]).expect_success().text();
    assert_eq!(planned.lines().count(), 6, "{planned}");
    assert!(narinfos(&home.bank()).is_empty());
    let said = host.pushed(&url, &token, &[top.as_str()]);
    assert_eq!(said["pushed"].as_array().unwrap().len(), 6);
    assert_eq!((&said["present"], &said["dry_run"]), (&0.into(), &false.into()));
    let nars = names(&home.bank().join("nar"));
    assert_eq!(nars.len(), 5, "two of six paths have one NAR: {nars:?}");
    let stored: u64 = nars
        .iter()
        .map(|name| fs::metadata(home.bank().join("nar").join(name)).unwrap().len())
        .sum();
    assert_eq!(said["sent_bytes"], stored, "what was sent lies there as it came");
    let again = host.pushed(&url, &token, &[top.as_str()]);
    assert_eq!((&again["present"], &again["sent_bytes"]), (&6.into(), &0.into()));
    host.assert_substituted(&server, &[top]);
}

#[test]
fn without_a_token_that_may_push_it_is_told_in_one_line_and_the_token_is_not() {
    let host = Host::new();
    let top = top(&host, SMALL);
    let home = Home::new(&host, "push = 'token'");
    let (server, puller) = (home.start(), home.token("pull"));
    let wrong = home.token("push");
    let wrong = format!("{}{}", &wrong[..wrong.len() - 4], "AAAA");
    for token in ["", "nonsense", &wrong, &puller] {
        let outcome = host.push(&server.url(), token, &[top.as_str()]).expect_failure();
        let said = outcome.stderr;
        assert_eq!((outcome.code, said.lines().count()), (Some(1), 1), "{said}");
        assert!(said.contains(&server.url()) && said.contains("token"), "{said}");
        assert!(token.is_empty() || !said.contains(token), "{said}");
    }
    assert!(narinfos(&home.bank()).is_empty());
}

#[test]
fn what_was_damaged_on_the_server_is_repaired() {
    let host = Host::new();
    let top = top(&host, SMALL);
    let home = Home::new(&host, "push = 'open'");
    let server = home.start();
    host.pushed(&server.url(), "", &[top.as_str()]);
    let damaged = home.nar(&host.named(&top, "low"));
    let mut bytes = fs::read(&damaged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    replace(&damaged, &bytes);
    let trusting = host.pushed(&server.url(), "", &[top.as_str()]);
    assert_eq!(trusting["present"], 5, "nobody has looked yet");
    let repaired = host.pushed(&server.url(), "", &[top.as_str(), "--repair"]);
    let pushed = repaired["pushed"].as_array().unwrap();
    assert!(pushed.len() == 1 && pushed[0].as_str().unwrap().ends_with("-low"), "{repaired}");
    host.assert_substituted(&server, &[top]);
}

#[test]
fn what_an_upstream_signed_is_left_there_and_what_refers_to_it_arrives() {
    let host = Host::new();
    let top = top(&host, SMALL);
    let (secret, public) = (host.file("secret"), host.file("public"));
    let words = ["--generate-binary-cache-key", "upstream-1"];
    let words = [words[0], words[1], secret.to_str().unwrap(), public.to_str().unwrap()];
    host.store.run("nix-store", &words);
    let low = host.named(&top, "low");
    let words = ["store", "sign", "--key-file", secret.to_str().unwrap(), low.as_str()];
    host.store.run("nix", &words);
    let public = fs::read_to_string(public).unwrap();
    let settings = format!("push = 'open'\nupstream_keys = ['{}']", public.trim());
    let home = Home::new(&host, &settings);
    let server = home.start();
    let said = host.pushed(&server.url(), "", &[top.as_str()]);
    assert_eq!((said["pushed"].as_array().unwrap().len(), &said["upstream"]), (4, &1.into()));
    narinfo(&server, &low).expect(404);
    narinfo(&server, &top).expect(200);
    let said = host.pushed(&server.url(), "", &[top.as_str(), "--all"]);
    assert_eq!((said["pushed"].as_array().unwrap().len(), &said["upstream"]), (1, &0.into()));
    host.assert_substituted(&server, &[top]);
}

#[test]
fn a_path_that_was_changed_on_disk_is_named_and_nothing_that_needs_it_is_visible() {
    let host = Host::new();
    let expression =
        with_a_large_one().replace("${one}", "${one} ${run \"small\" \"echo right >$out\"}");
    let top = top(&host, &expression);
    // A small one, and one whose end is wrong after the beginning has arrived.
    let mut end = fs::read(host.named(&top, "large").as_path()).unwrap();
    *end.last_mut().unwrap() ^= 1;
    for (name, bytes) in [("small", &b"wrong\n"[..]), ("large", &end)] {
        let home = Home::new(&host, "push = 'open'");
        let server = home.start();
        let path = host.named(&top, name);
        let right = fs::read(path.as_path()).unwrap();
        Host::overwrite(&path, bytes);
        let outcome = host.push(&server.url(), "", &[top.as_str()]).expect_failure();
        assert_eq!(outcome.code, Some(1));
        assert!(outcome.stderr.contains(path.base_name()), "{}", outcome.stderr);
        assert!(narinfos(&home.bank()).is_empty());
        Host::overwrite(&path, &right);
        host.pushed(&server.url(), "", &[top.as_str()]);
        host.assert_substituted(&server, std::slice::from_ref(&top));
    }
}

#[test]
fn many_pushes_of_one_closure_at_once_all_succeed() {
    let host = Host::new();
    let top = top(&host, &with_a_large_one());
    let home = Home::new(&host, "push = 'token'");
    let (server, token) = (home.start(), home.token("push"));
    std::thread::scope(|scope| {
        let pushes: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    run(&mut host.order_to_push(&server.url(), &token, &[top.as_str()]), 120)
                })
            })
            .collect();
        for push in pushes {
            push.join().unwrap().expect_success();
        }
    });
    host.assert_substituted(&server, &[top]);
}
