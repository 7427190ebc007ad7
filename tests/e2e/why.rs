//! `snowbank why` on the machine of a client: the queue, the memory of a real Nix, and what a cache says to it.

use std::process::Command;

use serde_json::Value;

use crate::support::{
    host::{Home, Host, Process},
    nix::{Client, Outcome, StorePath, Version, run},
};

/// `snowbank why` as this client's user; there is no server's data on the machine.
fn order(host: &Host, client: &Client<'_>, words: &[&str]) -> Command {
    let mut order = host.snowbank();
    // Where this client's Nix has its memory.
    let nix = client.program("nix");
    order.envs(nix.get_envs().filter_map(|(name, value)| Some((name, value?))));
    order.arg("why").args(words).env("XDG_DATA_HOME", host.file("no-server"));
    order
        .env("SNOWBANK_DATA_DIR", host.file("no-server"))
        .env("NIX_CONF_DIR", host.file("no-conf"));
    order
}

fn why(host: &Host, client: &Client<'_>, words: &[&str]) -> Outcome {
    run(&mut order(host, client, words), 60)
}

#[track_caller]
fn said(outcome: Outcome) -> Value {
    serde_json::from_slice(&outcome.stdout).unwrap()
}

#[test]
fn what_waits_to_be_pushed_and_what_is_parked_is_told_with_the_reason() {
    let host = Host::new();
    let built = host.build_and_queue("run \"queued\" \"echo queued > $out\"").remove(0);
    let client = Client::new(Version::Current, &host.store);
    let text = why(&host, &client, &[built.as_str()]).expect_failure();
    assert!(text.stderr.contains("in no bank here"), "{}", text.stderr);
    let text = text.text();
    assert!(text.contains("in the store here") && text.contains("waits since"), "{text}");
    // What is not what was built is parked.
    let home = Home::new(&host, "push = 'open'");
    let server = home.start();
    Host::overwrite(&built, b"venom!\n");
    let mut agent = host.snowbank();
    agent.args(["agent", "--to", &server.url()]);
    let _agent = Process::start(&mut agent, &host.file("agent.log"));
    host.queue(&["wait", "--timeout", "60s"]).expect_failure();
    let known = said(why(&host, &client, &[built.hash(), "--json"]));
    let entry = &known["client"]["queue"][0];
    assert_eq!(entry["state"], "parked", "{known}");
    let reason = entry["reason"].as_str().unwrap();
    let text = why(&host, &client, &[built.as_str()]).text();
    assert!(text.contains(reason) && text.contains("snowbank queue retry"), "{text}");
}

#[test]
fn a_miss_that_a_nix_here_remembers_is_told_and_so_is_for_how_long() {
    let host = Host::new();
    let built = host.build("run \"missed\" \"echo missed > $out\"").remove(0);
    let home = Home::new(&host, "push = 'open'");
    let server = home.start();
    let client = Client::new(Version::Current, &host.store);
    let copy = || client.copy_from(&server.url(), &server.key(), &[&built]);
    copy().expect_failure();
    host.push(&server.url(), "", &[built.as_str()]).expect_success();
    // It is there, and this Nix does not look.
    copy().expect_failure();
    let url = server.url();
    let words = [built.as_str(), "--json", "--at", &url];
    let known = said(why(&host, &client, &words).expect_success());
    let known = &known["client"];
    assert_eq!(known["at"]["here"]["path"], built.base_name(), "{known}");
    let memory = &known["remembered"][0];
    assert_eq!((&memory["cache"], &memory["is_there"]), (&url.as_str().into(), &false.into()));
    let text = why(&host, &client, &[built.as_str()]).text();
    let line = text.lines().find(|line| line.contains("has it not")).unwrap();
    let seconds = line.split(" for ").nth(1).unwrap().split(' ').next().unwrap();
    let seconds: i64 = seconds.parse().unwrap();
    assert!((3000..=3600).contains(&seconds), "{line}");
    // With what it says is to be done the Nix asks again; what it finds then is told, too.
    let mut words = client.copy_words(&url, &server.key(), &[&built]);
    words.extend(["--option", "narinfo-cache-negative-ttl", "0"].map(Into::into));
    client.run("nix", &words);
    let text = why(&host, &client, &[built.as_str()]).text();
    assert!(text.contains("has it,") && !text.contains("has it not"), "{text}");
    // A Nix that is told to forget at once remembers nothing.
    let mut order = order(&host, &client, &[built.as_str()]);
    let text = run(order.env("NIX_CONFIG", "narinfo-cache-positive-ttl = 0"), 60).text();
    assert!(!text.contains("remembered"), "{text}");
}

#[test]
fn a_cache_that_is_asked_says_who_signed_and_it_is_told_whether_that_is_trusted_here() {
    let host = Host::new();
    let built = host.build("run \"signed\" \"echo signed > $out\"").remove(0);
    let home = Home::new(&host, "push = 'open'");
    let server = home.start();
    let client = Client::new(Version::Current, &host.store);
    let url = server.url();
    let ask = |conf: &str, path: &StorePath| {
        let mut order = order(&host, &client, &[path.as_str(), "--at", &url]);
        run(order.env("NIX_CONFIG", conf), 60)
    };
    let absent = ask("", &built);
    assert_eq!(absent.code, Some(1));
    assert!(absent.text().contains(&format!("{url}: not there")));
    host.push(&url, "", &[built.as_str()]).expect_success();
    let text = ask("", &built).expect_success().text();
    assert!(text.contains("for this user: problem") && text.contains("untrusted key"), "{text}");
    let conf = format!("extra-trusted-public-keys = {}", server.key());
    let text = ask(&conf, &built).expect_success().text();
    assert!(text.contains("for this user: ok"), "{text}");
    server.stop();
    let away = ask("", &built);
    assert_eq!(away.code, Some(1));
    assert!(away.text().contains("not known: "));
}

#[test]
fn what_an_upstream_signed_is_told_to_be_left_out_of_pushes() {
    let host = Host::new();
    let built = host.build("run \"upstream\" \"echo upstream > $out\"").remove(0);
    let secret = host.file("upstream.key");
    let generated = host.store.run(
        "nix-store",
        &[
            "--generate-binary-cache-key",
            "upstream-1",
            secret.to_str().unwrap(),
            host.file("upstream.pub").to_str().unwrap(),
        ],
    );
    assert_eq!(generated, "");
    let public = std::fs::read_to_string(host.file("upstream.pub")).unwrap();
    host.store
        .run("nix", &["store", "sign", "--key-file", secret.to_str().unwrap(), built.as_str()]);
    let home = Home::new(&host, &format!("push = 'open'\nupstream_keys = ['{}']", public.trim()));
    let server = home.start();
    let client = Client::new(Version::Current, &host.store);
    let url = server.url();
    let known = said(why(&host, &client, &[built.as_str(), "--at", &url, "--json"]));
    assert_eq!(known["client"]["at"]["left_to"], "upstream-1", "{known}");
    let planned = host.push(&url, "", &[built.as_str(), "--dry-run"]).expect_success().text();
    assert!(!planned.contains(built.as_str()), "as the push itself does: {planned}");
}

#[test]
fn of_a_derivation_each_output_is_told_here_and_on_the_server() {
    let host = Host::new();
    let two = "derivation { name = \"two\"; system = builtins.currentSystem; builder = \"/bin/sh\"; \
               args = [ \"-c\" \"echo a > $out; echo b > $dev\" ]; outputs = [ \"out\" \"dev\" ]; }";
    let built = host.build(two).remove(0);
    let derivation = host.store.run("nix-store", &["-q", "--deriver", built.as_str()]);
    let derivation = derivation.trim();
    let outputs = host.store.run("nix-store", &["-q", "--outputs", derivation]);
    let outputs: Vec<StorePath> = outputs.lines().map(StorePath::new).collect();
    assert_eq!(outputs.len(), 2);
    let home = Home::new(&host, "push = 'open'");
    let server = home.start();
    let client = Client::new(Version::Current, &host.store);
    let url = server.url();
    let words = [derivation, "--at", &url, "--json"];
    host.push(&url, "", &[outputs[0].as_str()]).expect_success();
    let known = said(why(&host, &client, &words).expect_failure());
    assert_eq!(known["outputs"].as_array().unwrap().len(), 2, "{known}");
    host.push(&url, "", &[outputs[1].as_str()]).expect_success();
    why(&host, &client, &words).expect_success();
    // The server has no such store, and knows it by what its narinfos say.
    let there = home.snowbank(&["why", derivation]).expect_success().text();
    for output in &outputs {
        assert!(there.contains(output.base_name()), "{there}");
    }
    let unknown = format!("{}-unknown.drv", "0".repeat(32));
    let unknown = home.snowbank(&["why", &unknown]).expect_failure();
    assert!(unknown.stderr.contains("no output of"), "{}", unknown.stderr);
}
