//! `nix-cache-info`: whether it is a cache at all, for this store, and when it is asked.

use super::super::Finding;
use super::agent::{Answer, Cache, why};
use super::text::shown;
use super::{Client, Step, Stopped};
use crate::nix::cache_info::{self, ReadInfo};
use crate::nix::store_path::StoreDir;

/// What cache.nixos.org says; lower is asked first.
const PRIORITY_OF_NIXOS: i32 = 40;

pub(super) fn examine(
    client: &Client<'_>,
    cache: &Cache,
    findings: &mut Vec<Finding>,
) -> Result<(), Stopped> {
    let judged = match cache.get(cache_info::NAME) {
        Ok(answer) => understand(&answer, cache.has_login()),
        Err(error) => Err(Finding::problem(
            format!("nix-cache-info: {}", why(&error)),
            "look whether the server hangs, and at its log",
        )),
    };
    match judged {
        Ok(info) => {
            findings.push(store_dir(&info, &client.question.store_dir));
            findings.push(mass_query(&info));
            findings.push(priority(&info));
            Ok(())
        }
        Err(finding) => {
            findings.push(finding);
            Err(Stopped(Step::CacheInfo))
        }
    }
}

fn understand(answer: &Answer, has_login: bool) -> Result<ReadInfo, Finding> {
    let status = answer.status.as_u16();
    if status != 200 {
        return Err(refused("nix-cache-info", status, has_login));
    }
    let text = String::from_utf8_lossy(&answer.body);
    if answer.is_html || text.trim_start().starts_with('<') {
        return Err(Finding::problem(
            "nix-cache-info: a web page comes instead (HTML)",
            "a proxy, a login page of the network or another server answers: look at the URL and its path, \
             and open it in a browser",
        ));
    }
    ReadInfo::parse(&text).map_err(|error| {
        Finding::problem(
            format!("nix-cache-info: it is none: {}", shown(&error.to_string())),
            "is it the address of a cache?",
        )
    })
}

/// What a status means that is no success.
pub(super) fn refused(what: &str, status: u16, has_login: bool) -> Finding {
    let remedy = match status {
        401 | 403 if has_login => {
            "the login of the netrc is refused: is it of this cache, not expired and not revoked, and may \
             it pull? `snowbank token ls` on the server says so"
        }
        401 | 403 => "a login is asked for, and the netrc has none",
        404 | 410 => "nothing is there: is the path of the URL right (/c/NAME on a Snowbank)?",
        407 => {
            "the proxy asks for a login: put it into the URL of the variable that names the proxy"
        }
        500..=599 => "the server, or a proxy before it, cannot answer now: look at its log",
        _ => "is it the address of a cache?",
    };
    Finding::problem(format!("{what}: HTTP {status}"), remedy)
}

fn store_dir(info: &ReadInfo, ours: &StoreDir) -> Finding {
    match &info.store_dir {
        Some(theirs) if theirs == ours.as_str() => {
            Finding::ok(format!("nix-cache-info: for the store directory {ours}, as here"))
        }
        Some(theirs) => Finding::problem(
            format!(
                "nix-cache-info: for the store directory {}, and here it is {ours}",
                shown(theirs)
            ),
            "a Nix with another store directory cannot use it: use a cache that was made for this one",
        ),
        None => Finding::warning(
            "nix-cache-info: it does not say for which store directory it is",
            format!("have it say `StoreDir: {ours}`"),
        ),
    }
}

fn mass_query(info: &ReadInfo) -> Finding {
    if info.want_mass_query == Some(true) {
        return Finding::ok("nix-cache-info: WantMassQuery: 1, it may be asked for all paths");
    }
    Finding::warning(
        "nix-cache-info: no WantMassQuery: Nix does not ask it which of many paths it has",
        "have it say `WantMassQuery: 1`, unless it is slow on purpose",
    )
}

fn priority(info: &ReadInfo) -> Finding {
    let (priority, said) = match info.priority {
        Some(priority) => (priority, format!("priority {priority}")),
        None => (0, "no priority, which counts as 0".to_owned()),
    };
    let order = match priority.cmp(&PRIORITY_OF_NIXOS) {
        std::cmp::Ordering::Less => "before",
        std::cmp::Ordering::Equal => "beside",
        std::cmp::Ordering::Greater => "after",
    };
    Finding::ok(format!(
        "nix-cache-info: {said}: it is asked {order} cache.nixos.org ({PRIORITY_OF_NIXOS})"
    ))
}

#[cfg(test)]
mod tests {
    use ureq::http::StatusCode;

    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        let status = StatusCode::from_u16(status).unwrap();
        Answer { status, is_html: false, body: body.into() }
    }

    #[test]
    fn what_is_no_cache_is_named_for_what_it_is() {
        let said = |status, body, login| {
            understand(&answer(status, body), login).map_err(|finding| finding.to_string())
        };
        assert!(said(200, "StoreDir: /nix/store\n", false).is_ok());
        assert!(said(200, "<html>", false).unwrap_err().contains("a web page"));
        assert!(said(200, "hello\n", false).unwrap_err().contains("it is none"));
        assert!(said(401, "", true).unwrap_err().contains("login of the netrc is refused"));
        assert!(said(404, "", false).unwrap_err().contains("path of the URL"));
    }

    #[test]
    fn store_directory_and_order_are_held_against_those_here() {
        let info = |text: &str| ReadInfo::parse(text).unwrap();
        let here = StoreDir::default();
        let other = store_dir(&info("StoreDir: /gnu/store\n"), &here).to_string();
        assert!(other.starts_with("problem") && other.contains("/gnu/store"), "{other}");
        assert!(priority(&info("Priority: 30")).what.contains("asked before cache.nixos.org (40)"));
        assert!(priority(&info("Priority: 41")).what.contains("asked after"));
        assert!(priority(&info("StoreDir: /x")).what.contains("counts as 0"));
        assert!(mass_query(&info("WantMassQuery: 0")).to_string().starts_with("warning"));
    }
}
