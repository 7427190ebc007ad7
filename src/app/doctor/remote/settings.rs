//! What nix.conf says of the cache, for the user and for the daemon.

use super::super::Finding;
use super::Client;
use crate::client::nix_conf::daemon::Origin;
use crate::client::nix_conf::view::View;
use crate::source::upstream::connect::Address;

/// The settings that decide about a cache.
const SETTINGS: [&str; 4] =
    ["substituters", "trusted-substituters", "trusted-public-keys", "require-sigs"];

pub(super) fn examine(client: &Client<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for view in client.views {
        findings.extend(view.conf.complaints().iter().map(|complaint| {
            Finding::warning(
                format!("nix.conf of {}: {complaint}", view.who),
                "correct it; Nix may refuse to start with it",
            )
        }));
    }
    if let [daemon, user] = client.views {
        findings.extend(environment(daemon));
        findings.extend(differences(daemon, user));
    }
    findings.extend(client.in_each_view(|view| in_use(view, &client.question.address)));
    findings
}

/// Whether all of the daemon's environment could be seen.
fn environment(daemon: &View) -> Option<Finding> {
    (daemon.origin != Some(Origin::Process)).then(|| {
        Finding::skipped(
            "the environment of the nix-daemon",
            "it does not run, or only root can see it (sudo); nix.conf and systemd's units are looked at",
        )
    })
}

/// One finding where both go by other values.
fn differences(daemon: &View, user: &View) -> Option<Finding> {
    let mut differing: Vec<&str> =
        SETTINGS.into_iter().filter(|name| daemon.conf.get(name) != user.conf.get(name)).collect();
    if daemon.authorities.path != user.authorities.path {
        differing.push("ssl-cert-file");
    }
    if daemon.netrc != user.netrc {
        differing.push("netrc-file");
    }
    (!differing.is_empty()).then(|| {
        Finding::warning(
            format!("the nix-daemon and this user go by different {}", differing.join(", ")),
            format!(
                "the daemon fetches, and does not get your environment: what it is to use stands in {}",
                daemon.file.display()
            ),
        )
    })
}

fn in_use(view: &View, address: &Address) -> Finding {
    let url = address.url();
    let has = |setting: &str| view.conf.list(setting).any(|other| is_same(other, url));
    if has("substituters") {
        return Finding::ok(format!("nix.conf: {url} is one of the substituters"));
    }
    if has("trusted-substituters") {
        return Finding::ok(format!(
            "nix.conf: {url} is one of the trusted-substituters: it is asked when somebody names it"
        ));
    }
    Finding::warning(
        format!("nix.conf: {url} is none of the substituters, so Nix does not ask it by itself"),
        format!("write `extra-substituters = {url}` into {}", view.file.display()),
    )
}

/// Whether a substituter is the cache at `url`: what follows a question mark says how, not where.
fn is_same(substituter: &str, url: &str) -> bool {
    let place = substituter.split('?').next().unwrap_or_default();
    place.trim_end_matches('/').eq_ignore_ascii_case(url)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::client::nix_conf::NixConf;
    use crate::client::nix_conf::view::{AuthoritiesFile, Who};

    fn view(who: Who, text: &str) -> View {
        let mut conf = NixConf::with_defaults();
        conf.apply_text(text, "x");
        let file = PathBuf::from("/etc/nix/nix.conf");
        let authorities = AuthoritiesFile { path: "/ca".into(), named_by: "x" };
        View {
            who,
            conf,
            file,
            authorities,
            netrc: "/etc/nix/netrc".into(),
            cache: None,
            origin: None,
        }
    }

    #[test]
    fn a_cache_is_in_use_whatever_its_slash_and_its_parameters() {
        let address = Address::parse("http://h:5000/c/a").unwrap();
        let said = |text: &str| in_use(&view(Who::User, text), &address).to_string();
        assert!(said("extra-substituters = http://h:5000/c/a/?priority=3").starts_with("ok"));
        assert!(said("trusted-substituters = http://h:5000/c/a").contains("when somebody names"));
        let absent = said("");
        assert!(absent.contains("write `extra-substituters = http://h:5000/c/a`"), "{absent}");
    }

    #[test]
    fn what_the_daemon_does_not_get_is_said() {
        let daemon = view(Who::Daemon, "");
        assert_eq!(differences(&daemon, &view(Who::User, "")), None);
        let mut user = view(Who::User, "extra-substituters = http://x");
        user.authorities.path = "/other".into();
        let said = differences(&daemon, &user).unwrap().to_string();
        assert!(said.contains("different substituters, ssl-cert-file"), "{said}");
    }
}
