//! What the log says of requests: who asked, how it ended and why, and no secret.

use std::fs;

use serde_json::Value;

use crate::support::{
    PATIENCE,
    bank::data_directory,
    fixtures::{fixtures, path},
    host::{Home, Host},
    http::Response,
    server::{Server, Setup},
    wait_for,
};

/// The line that the log, which is JSON, has of the request that was answered so.
fn line_of(server: &Server, response: &Response) -> Value {
    let id = response.must("x-request-id");
    wait_for(&format!("a line of {id}"), PATIENCE, || {
        let log = server.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.into_iter().find(|line| line["id"] == id)
    })
}

#[test]
fn each_request_is_a_line_of_json_with_the_name_of_who_asked_and_not_their_secret() {
    let host = Host::new();
    let settings = "push = 'token'\npull = 'token'\n[log]\nrequests = true\nformat = 'json'";
    let home = Home::new(&host, settings);
    let token = home.token("pull");
    let server = home.start();
    let ask = |path: &str, headers: &[(&str, &str)]| server.connect().request("GET", path, headers);
    let bearer = format!("Bearer {token}");
    let wanted = "/00000000000000000000000000000000.narinfo";
    let missed = ask(
        &format!("{wanted}?secret=of-a-client"),
        &[("authorization", &bearer), ("x-request-id", "of-the-proxy.1")],
    )
    .expect(404);
    assert_eq!(missed.must("x-request-id"), "of-the-proxy.1");
    let line = line_of(&server, &missed);
    for (field, value) in [
        ("message", "request".into()),
        ("method", "GET".into()),
        ("path", wanted.into()),
        ("status", 404.into()),
        ("address", "127.0.0.1".into()),
        ("whole", true.into()),
        ("level", Value::from("INFO")),
    ] {
        assert_eq!(line[field], value, "{field} in {line}");
    }
    let listed = home.snowbank(&["token", "ls"]).expect_success().text();
    let name = line["client"].as_str().unwrap();
    assert!(listed.contains(name) && name != "127.0.0.1", "{name} in {listed}");
    let denied = ask(wanted, &[("authorization", "Bearer sb_wrong_wrong")]);
    assert_eq!(denied.status, 401);
    let line = line_of(&server, &denied);
    assert!(line["reason"].as_str().unwrap().contains("token"), "{line}");
    assert_eq!(line["client"], "127.0.0.1", "{line}");
    let log = server.log();
    for secret in [token.as_str(), "sb_wrong_wrong", "of-a-client"] {
        assert!(!log.contains(secret), "{secret} is in\n{log}");
    }
}

#[test]
fn what_failed_is_a_line_with_the_reason_though_no_other_request_is() {
    let directory = data_directory(&fixtures().bank("zstd"));
    let config = directory.data.parent().unwrap().join("snowbank.toml");
    fs::write(&config, "[log]\nformat = 'json'\n").unwrap();
    let setup = Setup::on(&directory.data).bank_only(&fixtures().store);
    let server = setup.argument("--config").argument(&config).start();
    let narinfo = format!("/{}.narinfo", path("leaf").hash());
    let well = server.get(&narinfo).expect(200);
    assert_eq!(well.header("x-request-id"), None);
    let away = directory.data.join("away");
    fs::rename(directory.bank(), &away).unwrap();
    let failed = wait_for("the bank to be missed", PATIENCE, || {
        let answer = server.get(&narinfo);
        (answer.status == 503).then_some(answer)
    });
    fs::rename(&away, directory.bank()).unwrap();
    let line = line_of(&server, &failed);
    assert_eq!((&line["status"], &line["level"]), (&503.into(), &"WARN".into()), "{line}");
    assert!(line["reason"].as_str().unwrap().contains("cannot be read"), "{line}");
    let log = server.log();
    assert!(!log.lines().any(|line| line.contains("\"message\":\"request\"")), "{log}");
}
