//! Pins by the API: who may, what is refused, and that it is the same as on the command line.

use serde_json::{Value, json};

use crate::support::{
    command,
    http::Response,
    made::{Form, Made},
    nix::run,
    pushed::{Pushed, Pusher},
    server::Server,
    snowbank,
};

const PINS: &str = "/_snowbank/v1/pins";

struct Api<'a> {
    server: &'a Server,
    token: String,
}

impl Api<'_> {
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Response {
        let authorization = format!("Bearer {}", self.token);
        let headers = [("Authorization", authorization.as_str())];
        let headers = if self.token.is_empty() { &[][..] } else { &headers };
        let body = body.map(ToString::to_string).unwrap_or_default();
        self.server.connect().send_with_body(method, path, headers, body.as_bytes())
    }

    fn pin(&self, request: &Value) -> Response {
        self.ask("POST", PINS, Some(request))
    }
}

fn snowbank_says(pushed: &Pushed, words: &[&str]) -> String {
    let mut order = command(snowbank());
    order.args(words).arg("--config").arg(pushed.file("config.toml"));
    run(order.arg("--data-dir").arg(pushed.data()), 30).expect_success().text()
}

fn token(pushed: &Pushed, scopes: &str) -> String {
    let words = ["token", "create", "--cache", "default", "--expires", "1d", "--scope", scopes];
    snowbank_says(pushed, &words).trim().to_owned()
}

#[test]
fn whoever_may_pin_pins_and_nobody_else_does() {
    let pushed = Pushed::new("");
    let server = pushed.start();
    let made = Made::new("pinned", b"pinned", &[]);
    Pusher::to(server.address()).unwrap().stock(&made, Form::Zstd).unwrap();
    let request = json!({"name": "main", "paths": [made.hash()]});
    // Anybody may push here, and that is not enough.
    for (token, status) in [
        (String::new(), 401),
        (token(&pushed, "push,pull"), 403),
        (format!("sb_{}", "x".repeat(9)), 401),
    ] {
        let stranger = Api { server: &server, token };
        for answer in [
            stranger.pin(&request),
            stranger.ask("GET", PINS, None),
            stranger.ask("GET", &format!("{PINS}/main"), None),
            stranger.ask("DELETE", &format!("{PINS}/main"), None),
        ] {
            answer.expect(status);
        }
    }
    assert_eq!(snowbank_says(&pushed, &["pin", "ls"]).lines().count(), 1);
    // Whoever may pin may not push.
    let ci = Api { server: &server, token: token(&pushed, "pin") };
    assert_eq!(ci.pin(&request).expect(200).json(), json!({"name": "main", "revision": 1}));
    let listed = snowbank_says(&pushed, &["pin", "ls"]);
    assert!(listed.contains("main") && listed.contains("forever"), "{listed}");
}

#[test]
fn revisions_come_and_go_and_what_is_wrong_is_told() {
    let pushed = Pushed::new("");
    let server = pushed.start();
    let paths = ["a", "b", "c"].map(|name| Made::new(name, name.as_bytes(), &[]));
    let mut pusher = Pusher::to(server.address()).unwrap();
    for made in &paths {
        pusher.stock(made, Form::Zstd).unwrap();
    }
    let ci = Api { server: &server, token: token(&pushed, "pin") };
    let branch = "feature/x+1";
    for (index, made) in paths.iter().enumerate() {
        let request = json!({"name": branch, "paths": [made.hash()], "keep_revisions": 2});
        assert_eq!(ci.pin(&request).expect(200).json()["revision"], index + 1);
    }
    let history = ci.ask("GET", &format!("{PINS}/{branch}"), None).expect(200).json();
    let revisions = history["revisions"].as_array().unwrap();
    assert_eq!(revisions.len(), 2);
    assert_eq!(
        (&revisions[0]["number"], &revisions[0]["paths"][0]),
        (&json!(3), &json!(paths[2].hash()))
    );
    assert!(revisions[0]["by"].as_str().is_some_and(|by| !by.is_empty()));
    let listed = ci.ask("GET", PINS, None).expect(200).json();
    assert_eq!(
        (&listed["pins"][0]["paths"], &listed["pins"][0]["keep_revisions"]),
        (&json!(2), &json!(2))
    );

    let here = json!([paths[0].hash()]);
    for (request, status) in [
        (json!({"name": "x", "paths": ["7".repeat(32)]}), 404),
        (json!({"name": "x", "paths": []}), 400),
        (json!({"name": "", "paths": here}), 400),
        (json!({"name": "a b", "paths": here}), 400),
        (json!({"name": "x".repeat(201), "paths": here}), 400),
        (json!({"name": "x", "paths": ["no hash"]}), 400),
        (json!({"name": "x", "paths": here, "keep_revisions": 0}), 400),
        (json!({"name": "x", "paths": here, "keep_revisions": 1, "forever": true}), 400),
        (json!({"name": "x", "paths": here, "keep": 1}), 400),
    ] {
        let answer = ci.pin(&request).expect(status).json();
        assert!(
            answer["errors"][0]["reason"].as_str().is_some_and(|why| why.len() > 10),
            "{answer}"
        );
    }
    ci.ask("GET", &format!("{PINS}/nothing"), None).expect(404);
    ci.ask("DELETE", &format!("{PINS}/nothing"), None).expect(404);
    ci.ask("DELETE", &format!("{PINS}/{branch}"), None).expect(204);
    assert_eq!(ci.ask("GET", PINS, None).expect(200).json(), json!({"pins": []}));
}
