//! `netrc`: who one is to which server, as curl reads it for Nix.

/// An entry that is a host's. Not `Debug`: it holds a secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Login<'a> {
    /// The user's name, empty where there is none.
    pub user: &'a str,
    /// The secret.
    pub password: &'a str,
}

/// The first entry for `host`, or `default`, that has a password.
pub fn login_for<'a>(host: &str, netrc: &'a str) -> Option<Login<'a>> {
    let mut words = words(netrc);
    let mut ours = false;
    let mut user = "";
    // A password may stand before its login.
    let mut found = None;
    while let Some(word) = words.next() {
        match word {
            "machine" | "default" => {
                if found.is_some() {
                    break;
                }
                ours = word == "default" || words.next() == Some(host);
                user = "";
            }
            "password" => {
                let Some(password) = words.next() else { break };
                if ours && found.is_none() {
                    found = Some(password);
                }
            }
            "login" => user = words.next().unwrap_or_default(),
            "account" => {
                words.next();
            }
            _ => {}
        }
    }
    found.map(|password| Login { user, password })
}

/// The words of a netrc, without comments and macros.
fn words(netrc: &str) -> impl Iterator<Item = &str> {
    // Macros run from their name to an empty line, and may hold any words.
    let mut in_macro = false;
    netrc.lines().flat_map(move |line| {
        in_macro &= !line.trim().is_empty();
        let (before, begins) = match line.find("macdef") {
            Some(position) => (&line[..position], true),
            None => (line, false),
        };
        let kept = if in_macro || line.trim_start().starts_with('#') { "" } else { before };
        in_macro |= begins;
        kept.split_whitespace()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETRC: &str = "\
# machine commented password no
machine one.example login a password first
machine two.example
  password second login b

macdef init
machine three.example password inside

machine three.example password third
default login x password other
";

    fn pair(host: &str, netrc: &str) -> Option<(String, String)> {
        login_for(host, netrc).map(|login| (login.user.to_owned(), login.password.to_owned()))
    }

    #[test]
    fn a_netrc_gives_the_password_of_the_host_and_else_the_default() {
        for (host, user, password) in [
            ("one.example", "a", "first"),
            ("two.example", "b", "second"),
            ("three.example", "", "third"),
            ("commented", "x", "other"),
            ("four.example", "x", "other"),
        ] {
            assert_eq!(pair(host, NETRC), Some((user.into(), password.into())), "{host}");
        }
        let without_default = NETRC.split("default").next().unwrap();
        assert_eq!(pair("four.example", without_default), None);
        assert_eq!(pair("one.example", "machine one.example password"), None);
    }

    #[test]
    fn a_password_is_no_keyword_even_if_it_is_spelt_like_one() {
        let netrc = "machine a login machine password default machine b password machine";
        assert_eq!(pair("a", netrc), Some(("machine".into(), "default".into())));
        assert_eq!(pair("b", netrc), Some((String::new(), "machine".into())));
    }
}
