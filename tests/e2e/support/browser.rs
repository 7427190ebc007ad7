//! A real Chromium, driven by the protocol that browsers have for it (W3C WebDriver, and Chromium's own DevTools for
//! what that has no word for).

use std::{fs, net::SocketAddr, path::PathBuf};

use serde_json::{Value, json};
use ureq::Agent;

use super::{
    PATIENCE, command,
    front::{listens, on_free_port},
    host::Process,
    nix::{Scratch, tempdir},
    target,
};

/// The key of an element in WebDriver's JSON.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

pub(crate) struct Browser {
    session: String,
    address: SocketAddr,
    agent: Agent,
    // Ended before its directory goes.
    _driver: Process,
    _own: Scratch,
}

impl Browser {
    #[track_caller]
    pub(crate) fn start() -> Self {
        let own = tempdir();
        let (driver, address) = on_free_port("chromedriver", |port| {
            let log = own.path().join("log");
            let mut order = command("chromedriver");
            order.arg(format!("--port={port}")).env("HOME", own.path());
            let mut driver = Process::start(&mut order, &log);
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            listens(&mut driver.0, port, &log).then_some((driver, address))
        });
        let profile = own.path().join("profile");
        let arguments = [
            "--headless=new".to_owned(),
            // Tests run as root in CI, which Chromium's sandbox refuses.
            "--no-sandbox".into(),
            "--disable-gpu".into(),
            "--disable-dev-shm-usage".into(),
            "--force-device-scale-factor=1".into(),
            "--window-size=1200,900".into(),
            format!("--user-data-dir={}", profile.display()),
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments, "binary": "/usr/bin/chromium"},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }}});
        let limits = Agent::config_builder().timeout_global(Some(2 * PATIENCE));
        let agent = limits.http_status_as_error(false).build().new_agent();
        let session = String::new();
        let mut browser = Self { session, address, agent, _driver: driver, _own: own };
        let begun = browser.ask("POST", "/session", &wanted);
        browser.session = format!("/session/{}", begun["sessionId"].as_str().unwrap());
        browser
    }

    #[track_caller]
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let url = format!("http://{}{}{path}", self.address, self.session);
        let request = http::Request::builder().method(method).uri(&url);
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.agent.run(request.body(body).unwrap()).unwrap();
        let status = answer.status();
        let text = answer.into_body().read_to_string().unwrap();
        assert_eq!(status, 200, "{method} {path}: {text}");
        serde_json::from_str::<Value>(&text).unwrap()["value"].take()
    }

    /// Shows a page, once it is loaded.
    #[track_caller]
    pub(crate) fn open(&self, url: &str) {
        self.ask("POST", "/url", &json!({"url": url}));
    }

    #[track_caller]
    pub(crate) fn url(&self) -> String {
        self.ask("GET", "/url", &Value::Null).as_str().unwrap().to_owned()
    }

    /// What a body of JavaScript gives, run by the browser itself, whatever the page allows.
    #[track_caller]
    pub(crate) fn run(&self, script: &str) -> Value {
        self.ask("POST", "/execute/sync", &json!({"script": script, "args": []}))
    }

    /// A command of DevTools.
    #[track_caller]
    pub(crate) fn devtools(&self, name: &str, params: &Value) -> Value {
        self.ask("POST", "/goog/cdp/execute", &json!({"cmd": name, "params": params}))
    }

    /// The first element that a selector of CSS has.
    #[track_caller]
    pub(crate) fn element(&self, selector: &str) -> String {
        let asked = json!({"using": "css selector", "value": selector});
        let found = self.ask("POST", "/element", &asked);
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub(crate) fn click(&self, selector: &str) {
        let element = self.element(selector);
        self.ask("POST", &format!("/element/{element}/click"), &json!({}));
    }

    /// Types into what has the focus; keys without a letter are those of WebDriver.
    #[track_caller]
    pub(crate) fn press(&self, keys: &str) {
        let element = self.ask("GET", "/element/active", &Value::Null);
        let element = element[ELEMENT].as_str().unwrap();
        self.ask("POST", &format!("/element/{element}/value"), &json!({"text": keys}));
    }

    #[track_caller]
    pub(crate) fn text(&self, selector: &str) -> String {
        let element = self.element(selector);
        let text = self.ask("GET", &format!("/element/{element}/text"), &Value::Null);
        text.as_str().unwrap().to_owned()
    }

    /// A window of so many points.
    #[track_caller]
    pub(crate) fn resize(&self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
    }

    #[track_caller]
    pub(crate) fn prefer(&self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.devtools("Emulation.setEmulatedMedia", &json!({"features": features}));
    }

    /// Pages that are loaded from now on run no script of theirs.
    #[track_caller]
    pub(crate) fn without_scripts(&self, without: bool) {
        self.devtools("Emulation.setScriptExecutionDisabled", &json!({"value": without}));
    }

    /// Every URL that was asked for since the last time, and what the console says.
    #[track_caller]
    pub(crate) fn asked_for_and_said(&self) -> (Vec<String>, Vec<String>) {
        let log = |kind: &str| self.ask("POST", "/se/log", &json!({"type": kind}));
        let messages = log("performance");
        let messages = messages.as_array().unwrap().iter().filter_map(|entry| {
            let message: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
            let message = &message["message"];
            (message["method"] == "Network.requestWillBeSent")
                .then(|| message["params"]["request"]["url"].as_str().unwrap().to_owned())
        });
        let said = log("browser");
        let said = said.as_array().unwrap().iter().map(|entry| entry["message"].to_string());
        (messages.collect(), said.collect())
    }

    /// Keeps a picture of the whole page among what CI keeps.
    #[track_caller]
    pub(crate) fn screenshot(&self, name: &str) -> PathBuf {
        let whole = json!({"format": "webp", "quality": 80, "captureBeyondViewport": true});
        let taken = self.devtools("Page.captureScreenshot", &whole);
        let picture = data_encoding::BASE64.decode(taken["data"].as_str().unwrap().as_bytes());
        let directory = target().join("ci-logs/screenshots");
        fs::create_dir_all(&directory).unwrap();
        let file = directory.join(format!("{name}.webp"));
        fs::write(&file, picture.unwrap()).unwrap();
        file
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Has the browser itself end; the driver is ended after that.
        let url = format!("http://{}{}", self.address, self.session);
        let _ended = self.agent.delete(url).call();
    }
}
