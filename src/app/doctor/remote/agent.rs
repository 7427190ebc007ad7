//! Requests as Nix makes them: with the authorities and the login of whoever fetches.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use data_encoding::BASE64;
use ureq::Agent;
use ureq::http::{Response, StatusCode};
use zeroize::Zeroizing;

use super::super::Finding;
use super::contact::asks_login;
use super::{Client, Step, Stopped};
use crate::client::credentials;
use crate::client::netrc::{self, Login};
use crate::client::nix_conf::view::{View, Who};
use crate::source::upstream::connect::{Address, Connector};

/// How long a small thing may take in all.
const SMALL_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a NAR may take in all, however slowly it comes.
const NAR_TIMEOUT: Duration = Duration::from_secs(3600);
/// How long nothing may come of it.
const STALL_TIMEOUT: Duration = Duration::from_secs(15);
/// No small thing is larger, in bytes.
const MAX_SMALL: u64 = 1 << 20;
/// As many as Nix follows.
const REDIRECTS: u32 = 10;
/// One thing is asked for after the other.
const CONNECTIONS: usize = 1;

/// The cache, as it is asked.
pub(super) struct Cache {
    base: String,
    agent: Agent,
    proxy: Option<ureq::Proxy>,
    authorization: Option<Zeroizing<String>>,
}

/// An answer that was read whole.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) is_html: bool,
    pub(super) body: Vec<u8>,
}

impl Cache {
    /// Finds out how to ask. `status` is what strangers get, where that is known.
    pub(super) fn new(
        client: &Client<'_>,
        proxy: Option<ureq::Proxy>,
        status: Option<u16>,
        findings: &mut Vec<Finding>,
    ) -> Result<Self, Stopped> {
        let address = &client.question.address;
        let asked = status.filter(|status| asks_login(*status));
        findings.extend(client.in_each_view(|view| judge_netrc(view, address, asked)));
        let authorization = client.views.iter().find_map(|view| authorization(view, address));
        if asked.is_some() && authorization.is_none() {
            return Err(Stopped(Step::Http));
        }
        // What stands for the server is what was looked at before, whatever names it.
        let authorities = &client.fetcher().authorities.path;
        let lookup = |name: &str| (name == "NIX_SSL_CERT_FILE").then(|| authorities.into());
        let agent =
            Connector::new(address, CONNECTIONS, REDIRECTS, &lookup).map(|it| it.agent(None));
        let agent = agent.map_err(|error| {
            findings.push(Finding::problem(error.to_string(), "name another file"));
            Stopped(Step::Http)
        })?;
        Ok(Self { base: address.url().to_owned(), agent, proxy, authorization })
    }

    /// Whether a login is shown.
    pub(super) const fn has_login(&self) -> bool {
        self.authorization.is_some()
    }

    /// Asks for something small.
    pub(super) fn get(&self, path: &str) -> Result<Answer, ureq::Error> {
        let answer = self.call(path, SMALL_TIMEOUT)?;
        let is_html = answer.headers().get("content-type").is_some_and(|value| {
            value.to_str().is_ok_and(|value| value.to_ascii_lowercase().starts_with("text/html"))
        });
        let status = answer.status();
        let body = answer.into_body().into_with_config().limit(MAX_SMALL).read_to_vec()?;
        Ok(Answer { status, is_html, body })
    }

    /// Asks for a NAR, by what the narinfo calls it. Reading is bounded in time too.
    pub(super) fn nar(
        &self,
        url: &str,
    ) -> Result<(StatusCode, impl io::Read + use<>), ureq::Error> {
        let answer = self.call(url, NAR_TIMEOUT)?;
        Ok((answer.status(), answer.into_body().into_reader()))
    }

    fn call(&self, path: &str, within: Duration) -> Result<Response<ureq::Body>, ureq::Error> {
        // A narinfo may name another place altogether: nothing secret goes there.
        let elsewhere = path.contains("://");
        let url = if elsewhere { path.to_owned() } else { format!("{}/{path}", self.base) };
        let mut request = self.agent.get(&url);
        if let Some(authorization) = self.authorization.as_ref().filter(|_| !elsewhere) {
            request = request.header("authorization", authorization.as_str());
        }
        // Else it would find one by itself, in other variables than curl does.
        let request = request.config().proxy(self.proxy.clone()).timeout_global(Some(within));
        request.timeout_per_read(Some(STALL_TIMEOUT.min(within))).build().call()
    }
}

/// Why nothing came, in words.
pub(super) fn why(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => "not all of the answer came in time".into(),
        other => super::text::shown(&other.to_string()),
    }
}

fn authorization(view: &View, address: &Address) -> Option<Zeroizing<String>> {
    let text = credentials::read(&view.netrc).ok()?;
    let Login { user, password } = netrc::login_for(address.host(), &text)?;
    let pair = Zeroizing::new(format!("{user}:{password}"));
    Some(Zeroizing::new(format!("Basic {}", BASE64.encode(pair.as_bytes()))))
}

/// `asked` is the status by which the server asks for a login, if it does.
fn judge_netrc(view: &View, address: &Address, asked: Option<u16>) -> Finding {
    let (file, host) = (view.netrc.display(), address.host());
    let line = format!(
        "write a line `machine {host} login snowbank password TOKEN` into {file} (mode 0600; another file \
         is named as `netrc-file` in {})",
        view.file.display()
    );
    let why = match credentials::read(&view.netrc) {
        Ok(text) if netrc::login_for(host, &text).is_some() => {
            return has_login(view, address, asked);
        }
        Ok(_) => format!("{file} has no entry for {host}"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => format!("{file} is not there"),
        Err(error) if asked.is_some() && view.who == Who::Daemon => {
            return Finding::warning(
                format!(
                    "netrc: the server asks for a login, and {file} cannot be looked at: {error}"
                ),
                "the nix-daemon, as root, may read it: run this with sudo to see what it sees",
            );
        }
        Err(error) => format!("{file} cannot be read: {error}"),
    };
    match asked {
        Some(status) => Finding::problem(
            format!("netrc: the server asks for a login (HTTP {status}), and {why}"),
            line,
        ),
        None => Finding::ok(format!("netrc: no login is asked for ({why})")),
    }
}

fn has_login(view: &View, address: &Address, asked: Option<u16>) -> Finding {
    let (file, host) = (view.netrc.display(), address.host());
    let is_here =
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if !address.is_secure() && !is_here {
        return Finding::warning(
            format!("netrc: {file} has a login for {host}, which goes there in the clear"),
            "use https://, or everybody on the way can read the password",
        );
    }
    let needed =
        if asked.is_some() { "which the server asks for" } else { "which is not asked for" };
    Finding::ok(format!("netrc: {file} has a login for {host}, {needed}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::nix_conf::NixConf;
    use crate::client::nix_conf::view::AuthoritiesFile;

    fn said(text: Option<&str>, url: &str, asked: Option<u16>) -> (String, Option<String>) {
        let directory = tempfile::tempdir().unwrap();
        let netrc = directory.path().join("netrc");
        text.into_iter().for_each(|text| std::fs::write(&netrc, text).unwrap());
        let authorities = AuthoritiesFile { path: "/ca".into(), named_by: "x" };
        let conf = NixConf::with_defaults();
        let file = "/etc/nix/nix.conf".into();
        let view =
            View { who: Who::User, conf, file, authorities, netrc, cache: None, origin: None };
        let address = Address::parse(url).unwrap();
        let shown = authorization(&view, &address).map(|text| text.to_string());
        (judge_netrc(&view, &address, asked).to_string(), shown)
    }

    #[test]
    fn a_login_that_is_asked_for_is_looked_for_and_never_printed() {
        let entry = Some("machine h login u password secret\n");
        let (line, shown) = said(entry, "https://h", Some(401));
        assert!(line.starts_with("ok") && !line.contains("secret"), "{line}");
        assert_eq!(shown.as_deref(), Some("Basic dTpzZWNyZXQ="));
        let (line, _) = said(entry, "http://h", None);
        assert!(line.contains("in the clear") && !line.contains("secret"), "{line}");
        let (line, shown) = said(entry, "https://other", Some(401));
        assert!(line.contains("(HTTP 401)") && line.contains("has no entry for other"), "{line}");
        assert!(line.contains("machine other login") && shown.is_none(), "{line}");
        let (line, _) = said(None, "https://h", Some(403));
        assert!(line.contains("netrc is not there"), "{line}");
        assert!(said(None, "https://h", None).0.starts_with("ok"));
    }
}
