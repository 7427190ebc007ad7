//! TLS: the handshake, and the certificate that is shown in it.

use std::io;
use std::net::SocketAddr;

use super::super::{Finding, Verdict};
use super::contact::{self, server_name};
use super::reach::{ANSWER_TIMEOUT, Bounded, is_timeout};
use super::text::{length, shown, time};
use super::{Client, Step, Stopped};
use crate::client::nix_conf::view::View;
use crate::source::upstream::connect::Address;
use crate::tls::PROTOCOLS;
use crate::tls::certificate::CertificateError;
use crate::tls::probe::{self, Shown};
use crate::tls::trust::{Authorities, Described, Distrust, is_for};

/// Shakes hands, offering HTTP/2 and HTTP/1.1 as Nix does.
pub(super) fn shake_hands(
    address: &Address,
    place: SocketAddr,
    findings: &mut Vec<Finding>,
) -> Result<Shown, Stopped> {
    let shake = || -> io::Result<Shown> {
        let name = server_name(address)?;
        Ok(probe::shake_hands(Bounded::open(place)?, &name, &PROTOCOLS)?.0)
    };
    match shake() {
        Ok(shown) => {
            findings.push(agreed(&shown));
            Ok(shown)
        }
        Err(error) => {
            findings.push(failed(address, place, &error));
            Err(Stopped(Step::Tls))
        }
    }
}

fn agreed(shown: &Shown) -> Finding {
    let what = match shown.protocol.as_deref() {
        Some(b"h2") => "HTTP/2 (h2): many requests share a connection",
        Some(b"http/1.1") => "HTTP/1.1 and not HTTP/2: each request takes a connection of its own",
        _ => "HTTP/1.1, for the server names no protocol (no ALPN)",
    };
    Finding::ok(format!("TLS {}, {what}", shown.version))
}

fn failed(address: &Address, place: SocketAddr, error: &io::Error) -> Finding {
    if is_timeout(error) {
        return Finding::problem(
            format!(
                "TLS: {place} took the connection, and said nothing in {} s",
                ANSWER_TIMEOUT.as_secs()
            ),
            "look whether the server hangs, and whether it speaks TLS on that port",
        );
    }
    if contact::plain(address, place).is_ok() {
        return Finding::problem(
            format!("TLS: {place} speaks plain HTTP, and was spoken to with TLS"),
            format!(
                "write http:// in the URL ({}), or have the server listen with https:// there",
                address.url().replacen("https:", "http:", 1)
            ),
        );
    }
    Finding::problem(
        format!("TLS: no handshake with {place}: {error}"),
        "look at the log of the server: TLS 1.2 or 1.3 is spoken here, and no client certificate shown",
    )
}

/// Judges the certificate: its names, its time, and, in each view, who stands for it. Whether whoever fetches
/// believes it. `offset` is by how much the clock of the server is ahead.
pub(super) fn judge(
    client: &Client<'_>,
    shown: &Shown,
    offset: Option<i64>,
    findings: &mut Vec<Finding>,
) -> bool {
    let address = &client.question.address;
    let described = match shown.chain.first().map(Described::of) {
        Some(Ok(described)) => described,
        Some(Err(why)) => {
            findings.push(Finding::problem(
                format!("certificate: it cannot be read ({})", self::shown(&why)),
                "have the server show another one",
            ));
            return false;
        }
        None => {
            findings.push(Finding::problem("certificate: the server shows none", "give it one"));
            return false;
        }
    };
    let name = server_name(address);
    let named = name.is_ok_and(|name| is_for(&shown.chain[0], &name));
    let mut judged = vec![names(address.host(), &described, named)];
    judged.push(age(&described, client.now, offset));
    judged.extend(client.in_each_view(|view| authority(view, shown, &described, client.now)));
    // One of a view that does not fetch is a warning already.
    let trusts = judged.iter().all(|finding| finding.verdict != Verdict::Problem);
    findings.extend(judged);
    trusts
}

fn names(host: &str, described: &Described, named: bool) -> Finding {
    if named {
        return Finding::ok(format!("certificate: it is for {host}"));
    }
    let names = match described.names.as_slice() {
        [] => "no name at all (what stands in its subject does not count)".to_owned(),
        names => shown(&names.join(", ")),
    };
    Finding::problem(
        format!("certificate: wrong name: it is not for {host}, but for {names}"),
        format!("use one of its names in the URL, or have the server show one for {host}"),
    )
}

fn age(described: &Described, now: i64, offset: Option<i64>) -> Finding {
    let (from, until) = (described.not_before, described.not_after);
    if (from..=until).contains(&now) {
        return Finding::ok(format!("certificate: it is valid until {}", time(until)));
    }
    let what = if now > until {
        let ago = length(now.abs_diff(until));
        format!("certificate: it expired {ago} ago, at {}", time(until))
    } else {
        let ahead = length(from.abs_diff(now));
        format!("certificate: it is not valid before {}, in {ahead}", time(from))
    };
    // If the server's clock finds it valid it is ours that is likely wrong.
    let theirs = offset.map(|offset| now.saturating_add(offset));
    let remedy = match theirs {
        Some(theirs) if (from..=until).contains(&theirs) => format!(
            "this clock says {}, that of the server {}: set this one (`timedatectl set-ntp true`)",
            time(now),
            time(theirs)
        ),
        Some(theirs) => format!(
            "have the server show a valid one; its clock ({}) and this one ({}) agree on that",
            time(theirs),
            time(now)
        ),
        None => format!("have the server show a valid one; it is {} here", time(now)),
    };
    Finding::problem(what, remedy)
}

/// Whether somebody stands for it in whom this view believes.
fn authority(view: &View, chain: &Shown, described: &Described, now: i64) -> Finding {
    let file = format!("{} ({})", view.authorities.path.display(), view.authorities.named_by);
    let authorities = match Authorities::load(&view.authorities.path) {
        Ok(authorities) => authorities,
        Err(error) => return unreadable(view, &error),
    };
    let issuer = shown(&described.issuer);
    let how_to_trust = format!(
        "put the authority's certificate into a file with the others and name it in {} (`ssl-cert-file = \
         FILE`); on NixOS into security.pki.certificateFiles",
        view.file.display()
    );
    match authorities.stand_for(&chain.chain, described, now) {
        Ok(()) => Finding::ok(format!("certificate: issued by {issuer}, whom {file} trusts")),
        Err(Distrust::UnknownIssuer) if described.is_self_signed() => Finding::problem(
            format!("certificate: it is self-signed by {issuer}, and not in {file}"),
            how_to_trust,
        ),
        Err(Distrust::UnknownIssuer) => {
            let alone = chain.chain.len() == 1;
            let incomplete = "; or have the server send the chain, if the issuer is not a root: it sends \
                              its own certificate alone";
            Finding::problem(
                format!(
                    "certificate: unknown authority: {issuer} issued it, and none of the {} authorities in \
                     {file} stands for it",
                    authorities.len()
                ),
                how_to_trust + if alone { incomplete } else { "" },
            )
        }
        Err(Distrust::OtherKey) => Finding::problem(
            format!(
                "certificate: unknown authority: {issuer} issued it, and {file} has one of that name with \
                 another key"
            ),
            how_to_trust,
        ),
        Err(error @ Distrust::Authority) => Finding::problem(
            format!("certificate: {error} (self-signed by {issuer}?)"),
            "have the server show one that is not marked CA:TRUE; Nix may take it, `snowbank push` does not",
        ),
        Err(Distrust::Other(why)) => Finding::problem(
            format!("certificate: issued by {issuer}, and refused with {file}: {}", shown(&why)),
            how_to_trust,
        ),
    }
}

fn unreadable(view: &View, error: &CertificateError) -> Finding {
    let remedy = match view.authorities.named_by {
        "the usual place" => {
            "install ca-certificates, or name a file as `ssl-cert-file` in nix.conf"
        }
        _ => "name a file of certificates there that can be read, or take the setting away",
    };
    Finding::problem(
        format!("certificate: no authorities ({}): {error}", view.authorities.named_by),
        remedy,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    fn described() -> Described {
        Described {
            subject: "CN=server".into(),
            issuer: "CN=root".into(),
            names: vec!["a.example".into(), "10.0.0.1".into()],
            not_before: 100 * DAY,
            not_after: 200 * DAY,
        }
    }

    #[test]
    fn a_certificate_out_of_its_time_is_told_from_a_clock_that_is_wrong() {
        let age = |now: i64, offset: Option<i64>| age(&described(), now, offset).to_string();
        assert!(age(150 * DAY, None).starts_with("ok"), "{}", age(150 * DAY, None));
        let expired = age(203 * DAY, Some(0));
        assert!(
            expired.contains("it expired 3 days ago") && expired.contains("agree"),
            "{expired}"
        );
        let early = age(98 * DAY, Some(50 * DAY));
        assert!(early.contains("in 2 days") && early.contains("set this one"), "{early}");
    }

    #[test]
    fn the_names_of_a_certificate_for_another_host_are_listed() {
        let said = names("b.example", &described(), false).to_string();
        assert!(said.contains("wrong name") && said.contains("a.example, 10.0.0.1"), "{said}");
        let nameless = Described { names: Vec::new(), ..described() };
        assert!(names("b.example", &nameless, false).to_string().contains("no name at all"));
    }

    #[test]
    fn the_protocol_that_was_chosen_is_said() {
        let with = |protocol: Option<&[u8]>| {
            let protocol = protocol.map(<[u8]>::to_vec);
            agreed(&Shown { chain: Vec::new(), version: "1.3", protocol }).to_string()
        };
        assert!(with(Some(b"h2")).contains("TLS 1.3, HTTP/2"));
        assert!(with(Some(b"http/1.1")).contains("not HTTP/2"));
        assert!(with(None).contains("no ALPN"));
    }
}
