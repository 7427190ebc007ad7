//! The pages as people have them: in a real Chromium, in light and dark, on a phone, by keyboard, without JavaScript.
//! Pictures of them are kept among what CI keeps.

use std::{collections::BTreeSet, net::SocketAddr};

use serde_json::json;

use crate::support::{
    PATIENCE,
    browser::Browser,
    host::{Home, Host},
    made::{Form, Made, closure},
    pushed::{Pushed, Pusher},
    server::Server,
    wait_until,
};

/// WebDriver's names of keys.
const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";

/// What a text must stand out from its ground at least: level AA of WCAG 2.2, 1.4.3.
const CONTRAST: f64 = 4.5;

/// Every text of the page that does not stand out from its ground so much, by the luminance of both.
const FAINT: &str = r#"
const light = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
const luminance = ([red, green, blue]) => 0.2126 * light(red) + 0.7152 * light(green) + 0.0722 * light(blue);
const parts = (color) => color.match(/[\d.]+/g).map(Number);
const ground = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const color = parts(getComputedStyle(at).backgroundColor);
    if (color.length === 3 || color[3] > 0) return color;
  }
  return matchMedia("(prefers-color-scheme: dark)").matches ? [18, 18, 18] : [255, 255, 255];
};
const faint = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!own || ["SCRIPT", "STYLE", "TITLE"].includes(element.tagName)) continue;
  const style = getComputedStyle(element);
  const color = parts(element.closest("svg") ? style.fill : style.color);
  const [one, other] = [luminance(color), luminance(ground(element))];
  const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  if (contrast < arguments_least) faint.push(`${element.tagName} ${element.textContent.slice(0, 40)}: ${contrast}`);
}
return faint;
"#;

struct Shown {
    server: Server,
    made: Vec<Made>,
    // The server lies on it, so it stays as long.
    _pushed: Pushed,
}

/// A server with a past: paths that were pushed, asked for, and pinned.
fn shown() -> Shown {
    let general = "status_for = 'loopback'";
    let pushed =
        Pushed::with(general, "peers = ['http://127.0.0.1:9']\n[cache.team]\npush = 'open'");
    let server = pushed.start();
    let mut pusher = Pusher::to(server.address()).unwrap();
    let mut made = Vec::new();
    for number in 0..4 {
        made.extend(closure(number));
    }
    let library = Made::new("glibc-2.40-66", &vec![7; 400_000], &[]);
    let tool = Made::new("coreutils-9.5", &vec![8; 200_000], &[&library]);
    let shell = Made::new("bash-interactive-5.2p37", &vec![9; 100_000], &[&library]);
    let program = Made::new("hello-2.12.1", b"hello", &[&library, &tool, &shell]);
    made.extend([library, tool, shell, program]);
    made.iter().for_each(|made| pusher.stock(made, Form::Zstd).unwrap());
    let absent = ["0".repeat(32), "1".repeat(32)];
    for hash in made.iter().map(Made::hash).chain(absent) {
        server.get(&format!("/{hash}.narinfo"));
    }
    Shown { server, made, _pushed: pushed }
}

/// The pages that were shown must have asked for nothing but from their own server, and the console must be quiet, but
/// for what the browser itself says of a page that is not there.
#[track_caller]
fn assert_keeps_to(browser: &Browser, address: SocketAddr) {
    let (asked, said) = browser.asked_for_and_said();
    let own = format!("http://{address}/");
    assert!(asked.iter().any(|url| url.starts_with(&own)), "{asked:?}");
    // Chromium's own first page and the empty picture are no requests.
    let elsewhere = |url: &&String| {
        !url.starts_with(&own) && !url.starts_with("data:") && !url.starts_with("chrome:")
    };
    assert_eq!(asked.iter().find(elsewhere), None, "all: {asked:?}");
    assert_eq!(said.iter().find(|line| !line.contains("404 (Not Found)")), None);
}

#[track_caller]
fn assert_readable(browser: &Browser, what: &str) {
    let faint = browser.run(&FAINT.replace("arguments_least", &CONTRAST.to_string()));
    assert_eq!(faint, json!([]), "{what}");
    let wider =
        "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
    assert_eq!(browser.run(wider), json!(0), "{what} is wider than its window");
}

#[test]
fn the_pages_are_readable_in_light_and_dark_on_a_desk_and_on_a_phone_and_load_nothing_from_elsewhere()
 {
    let shown = shown();
    let (server, made) = (&shown.server, &shown.made);
    let browser = Browser::start();
    let program = made.last().unwrap();
    let pages = [
        ("status", "/".to_owned()),
        ("path", format!("/path/{}", program.hash())),
        ("search", "/search?q=i".into()),
        ("browse", format!("/serve/{}/", program.hash())),
        ("missing", format!("/path/{}", "0".repeat(32))),
    ];
    for (name, path) in &pages {
        for scheme in ["light", "dark"] {
            browser.prefer(scheme);
            for (device, width, height) in [("desk", 1200, 900), ("phone", 360, 740)] {
                browser.resize(width, height);
                browser.open(&format!("{}{path}", server.url()));
                let what = format!("{name}-{scheme}-{device}");
                assert_readable(&browser, &what);
                browser.screenshot(&what);
            }
        }
    }
    assert_keeps_to(&browser, server.address());
}

#[test]
fn what_is_to_be_copied_is_copied_by_its_button() {
    let shown = shown();
    let server = &shown.server;
    let browser = Browser::start();
    let granted = json!({"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]});
    browser.devtools("Browser.grantPermissions", &granted);
    browser.open(&server.url());
    let settings = browser.text("pre.copy");
    assert!(settings.contains(&server.key()), "{settings}");
    browser.click(".copied button");
    wait_until("it is said to be copied", PATIENCE, || {
        browser.run("return document.getElementById('said').textContent")
            == "Copied the lines for nix.conf"
    });
    let copied = browser.run("return navigator.clipboard.readText()");
    assert_eq!(copied.as_str().unwrap().trim(), settings);
    assert_keeps_to(&browser, server.address());
}

#[test]
fn all_can_be_read_and_searched_without_javascript() {
    let shown = shown();
    let (server, made) = (&shown.server, &shown.made);
    let browser = Browser::start();
    browser.without_scripts(true);
    browser.open(&server.url());
    assert!(browser.text("main").contains("The last twelve hours"));
    assert!(browser.text("main").contains("hello-2.12.1"));
    assert!(browser.text("pre.copy").contains("extra-substituters"));
    browser.click("details summary");
    assert!(browser.text("details table").contains("Hit rate"), "a table opens by itself");
    browser.click("input[name=q]");
    browser.press("hello-2");
    browser.press(ENTER);
    wait_until("the search is there", PATIENCE, || browser.url().contains("/search?q=hello-2"));
    browser.click("main td a");
    let program = made.last().unwrap();
    wait_until("the path is there", PATIENCE, || {
        browser.url().ends_with(&format!("/path/{}", program.hash()))
    });
    browser.click("svg a");
    wait_until("what it refers to is there", PATIENCE, || {
        !browser.url().contains(&program.hash()) && browser.url().contains("/path/")
    });
    // A file is not shown but saved, so the page stays.
    let file =
        browser.run("return new URL(document.querySelector('#files ~ div a').href).pathname");
    server.get(file.as_str().unwrap()).expect(200);
}

#[test]
fn all_is_reached_by_keyboard_and_has_a_name_for_who_cannot_see_it() {
    let shown = shown();
    let (server, made) = (&shown.server, &shown.made);
    let browser = Browser::start();
    let pages = ["/".to_owned(), format!("/path/{}", made.last().unwrap().hash())];
    for path in pages {
        browser.open(&format!("{}{path}", server.url()));
        let focused = || browser.run("return document.activeElement.textContent");
        browser.press(TAB);
        assert_eq!(focused(), "Skip to the content", "{path}");
        browser.press(ENTER);
        assert_eq!(browser.run("return document.activeElement.id"), "content", "{path}");
        // From there on each thing that can be used has the focus once, and shows it.
        let usable = "return document.querySelectorAll('main a[href]:not([tabindex=\"-1\"]), \
                      main button, main summary, main input').length";
        let all = browser.run(usable).as_u64().unwrap();
        assert!(all > 5, "{path} has {all} things to use");
        for number in 0..all {
            browser.press(TAB);
            let shown = browser.run(
                "const element = document.activeElement;\
                 return element.closest('main') && getComputedStyle(element).outlineStyle === 'solid'",
            );
            assert_eq!(shown, json!(true), "thing {number} of {path}: {}", focused());
        }
        assert_named(&browser, &path);
    }
}

/// By the tree that the browser gives to screen readers.
#[track_caller]
fn assert_named(browser: &Browser, path: &str) {
    let tree = browser.devtools("Accessibility.getFullAXTree", &json!({}));
    let mut roles = BTreeSet::new();
    for node in tree["nodes"].as_array().unwrap() {
        if node["ignored"] == true {
            continue;
        }
        let role = node["role"]["value"].as_str().unwrap_or_default();
        let name = node["name"]["value"].as_str().unwrap_or_default();
        if ["link", "button", "searchbox", "image", "heading", "region", "columnheader"]
            .contains(&role)
        {
            assert!(!name.trim().is_empty(), "{role} without a name on {path}: {node}");
        }
        roles.insert(role.to_owned());
    }
    for wanted in ["main", "banner", "search", "heading", "table", "status", "image"] {
        let is_there = roles.contains(wanted) || (wanted == "image" && path != "/");
        assert!(is_there, "{path} has no {wanted}: {roles:?}");
    }
    let levels = browser.run(
        "return [...document.querySelectorAll('h1, h2, h3')].map((heading) => Number(heading.tagName[1]))",
    );
    let levels: Vec<i64> =
        levels.as_array().unwrap().iter().map(|level| level.as_i64().unwrap()).collect();
    assert_eq!(levels.iter().filter(|level| **level == 1).count(), 1, "{path}");
    assert!(levels.windows(2).all(|pair| pair[1] <= pair[0] + 1), "{path}: {levels:?}");
}

#[test]
fn whoever_signs_in_with_a_token_sees_how_the_server_is() {
    let host = Host::new();
    let home = Home::new(&host, "push = 'token'");
    let token = home.token("pull");
    let server = home.start();
    let browser = Browser::start();
    browser.open(&server.url());
    assert!(!browser.text("main").contains("The last twelve hours"));
    // As a browser does once somebody has filled in what it asks.
    browser.open(&format!("http://me:{token}@{}/?sign-in", server.address()));
    assert!(browser.text("main").contains("The last twelve hours"));
    // And from then on by itself.
    browser.open(&server.url());
    assert!(browser.text("main").contains("The last twelve hours"));
}
