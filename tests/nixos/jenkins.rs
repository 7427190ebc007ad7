//! `resolve-jenkins-plugins`, against a small update center that speaks HTTP.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::Output;
use std::thread;

use serde_json::{Value, json};

use crate::bench::{Bench, said};

fn plugin(version: &str, needs: &[(&str, bool)]) -> Value {
    let needs: Vec<_> =
        needs.iter().map(|(name, optional)| json!({"name": name, "optional": optional})).collect();
    json!({
        "version": version,
        "url": "https://updates.example.org/a.hpi",
        "sha256": "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        "dependencies": needs,
    })
}

/// Two that need each other, one that both need, and one that can be done without.
fn center() -> Value {
    json!({"plugins": {
        "git": plugin("5.2", &[("scm-api", false), ("credentials", false), ("matrix", true)]),
        "scm-api": plugin("7", &[("git", false), ("credentials", false)]),
        "credentials": plugin("1", &[]),
        "matrix": plugin("1", &[]),
        "lost": plugin("1", &[("never-published", false)]),
    }})
}

fn resolve(bench: &Bench, words: &[&str]) -> Output {
    let file = bench.file("center.json");
    if !file.exists() {
        fs::write(&file, center().to_string()).unwrap();
    }
    let mut order = bench.program("resolve-jenkins-plugins");
    order.arg("--update-center").arg(file).args(words).output().unwrap()
}

fn refused(output: &Output, code: i32, why: &str) {
    let text = said(output);
    assert_eq!((output.status.code(), text.contains(why)), (Some(code), true), "{text}");
    assert!(output.stdout.is_empty(), "{text}");
}

#[test]
fn plugins_come_with_all_that_they_need_and_nothing_that_they_can_do_without() {
    let bench = Bench::new();
    let output = resolve(&bench, &["git"]);
    assert!(output.status.success(), "{}", said(&output));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let one = |version: &str| {
        json!({
            "version": version,
            "url": "https://updates.example.org/a.hpi",
            "hash": "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        })
    };
    assert_eq!(found, json!({"credentials": one("1"), "git": one("5.2"), "scm-api": one("7")}));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.find("credentials") < text.find("\"git\""), "they are sorted: {text}");

    let without = resolve(&bench, &["--without", "scm-api", "git"]);
    let found: Value = serde_json::from_slice(&without.stdout).unwrap();
    assert!(found.get("scm-api").is_none() && found.get("git").is_some(), "{found}");
    assert!(said(&without).contains("scm-api is left out"), "{}", said(&without));
}

#[test]
fn an_update_center_is_asked_by_http_and_one_that_fails_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/update-center.actual.json", listener.local_addr().unwrap());
    let answers = thread::spawn(move || {
        let body = center().to_string();
        for status in ["200 OK", "404 Not Found"] {
            let (mut stream, _) = listener.accept().unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            lines.map(Result::unwrap).find(String::is_empty).unwrap();
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
            write!(stream, "{head}Connection: close\r\n\r\n{body}").unwrap();
        }
    });
    let bench = Bench::new();
    let ask = || {
        let mut order = bench.program("resolve-jenkins-plugins");
        order.args(["--update-center", &url, "credentials"]).output().unwrap()
    };
    let output = ask();
    assert!(output.status.success() && !output.stdout.is_empty(), "{}", said(&output));
    refused(&ask(), 1, "cannot be had");
    answers.join().unwrap();
}

#[test]
fn what_is_not_there_or_makes_no_sense_is_told_and_nothing_is_written() {
    let bench = Bench::new();
    refused(&resolve(&bench, &[]), 2, "which plugins?");
    refused(&resolve(&bench, &["--with"]), 2, "there is no option --with");
    refused(&resolve(&bench, &["a b"]), 2, "'a b' is no name of a plugin");
    refused(&resolve(&bench, &["lost"]), 3, "there is no plugin never-published");
    refused(&resolve(&bench, &["gti", "git"]), 3, "there is no plugin gti");

    let mut damaged = center();
    damaged["plugins"]["credentials"]["sha256"] = "short".into();
    fs::write(bench.file("center.json"), damaged.to_string()).unwrap();
    refused(&resolve(&bench, &["git"]), 1, "no hash or address of credentials");
    for text in ["{}", "[1]", "<html>", ""] {
        fs::write(bench.file("center.json"), text).unwrap();
        let output = resolve(&bench, &["git"]);
        assert!(!output.status.success() && output.stdout.is_empty(), "{}", said(&output));
        assert!(said(&output).starts_with("resolve-jenkins-plugins: "), "{}", said(&output));
    }
    fs::remove_file(bench.file("center.json")).unwrap();
    let mut order = bench.program("resolve-jenkins-plugins");
    let gone = order.arg("--update-center").arg(bench.file("center.json")).arg("git").output();
    refused(&gone.unwrap(), 1, "cannot be read");
}
