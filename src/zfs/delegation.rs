//! What a user who is not root may do with a dataset: `zfs allow`.
//!
//! On Linux mounting takes root whatever is delegated. So root makes and mounts the datasets once,
//! and what the service does from then on, it does by these rights.

use super::command::Command;
use super::error::ZfsError;
use super::handle::Zfs;
use super::name::{DatasetName, UserName};
use super::text::shorten;

/// Rights that one user, or others, have on a dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegation {
    /// The dataset that it was said of; those above count too.
    pub dataset: DatasetName,
    /// Where it holds.
    pub scope: Scope,
    /// Who has the rights.
    pub who: Who,
    /// Names of subcommands and properties, and of sets of them (`@name`).
    pub permissions: Vec<String>,
}

/// Where rights hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// On the dataset alone.
    Local,
    /// On what is below it.
    Descendent,
    /// On both.
    Both,
    /// Not rights of somebody, but of whoever makes a dataset, or what a set means.
    Other,
}

/// Who has rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// A user by name, or by number where the name is not known here.
    User(String),
    /// A group.
    Group(String),
    /// All users.
    Everyone,
    /// Nobody: see [`Scope::Other`].
    Nobody,
}

impl Zfs {
    /// What is delegated on a dataset and on those above it.
    pub fn delegations(&self, dataset: &DatasetName) -> Result<Vec<Delegation>, ZfsError> {
        self.parse(&Command::zfs(["allow", dataset.as_str()]), parse)
    }

    /// Which of `permissions` a user lacks on a dataset and what is below it, as said of the user by
    /// name or number. What groups and everybody have is not looked at: rights that the service
    /// needs are to be its own.
    pub fn missing_permissions<'a>(
        &self,
        user: &UserName,
        permissions: &[&'a str],
        dataset: &DatasetName,
    ) -> Result<Vec<&'a str>, ZfsError> {
        let delegations = self.delegations(dataset)?;
        let is_theirs = |delegation: &&Delegation| {
            let above = delegation.dataset != *dataset && dataset.is_within(&delegation.dataset);
            let enough =
                delegation.scope == Scope::Both || (above && delegation.scope == Scope::Descendent);
            enough && delegation.who == Who::User(user.to_string())
        };
        let theirs = delegations.iter().filter(is_theirs);
        let had: Vec<&str> =
            theirs.flat_map(|delegation| &delegation.permissions).map(String::as_str).collect();
        Ok(permissions.iter().copied().filter(|permission| !had.contains(permission)).collect())
    }
}

/// Lets a user do things with a dataset and everything below it.
pub fn allow(user: &UserName, permissions: &[&str], dataset: &DatasetName) -> Command {
    let permissions = permissions.join(",");
    Command::zfs(["allow", "-u", user.as_str(), &permissions, dataset.as_str()]).change()
}

/// Takes all rights on a dataset back from a user.
pub fn unallow(user: &UserName, dataset: &DatasetName) -> Command {
    Command::zfs(["unallow", "-u", user.as_str(), dataset.as_str()]).change()
}

/// Reads the report: for each dataset a line of dashes with its name, sections, and in them lines
/// that begin with a tab.
fn parse(text: &str) -> Result<Vec<Delegation>, String> {
    let mut dataset = None;
    let mut scope = Scope::Other;
    let mut delegations = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        if let Some(rest) = line.strip_prefix("---- Permissions on ") {
            let name = rest.trim_end_matches(['-', ' ']);
            dataset = Some(DatasetName::parse(name).map_err(|error| error.to_string())?);
            scope = Scope::Other;
        } else if let Some(entry) = line.strip_prefix('\t') {
            let dataset = dataset.clone().ok_or("rights come before their dataset")?;
            delegations.push(delegation(dataset, scope, entry)?);
        } else {
            scope = match line.trim() {
                "Local permissions:" => Scope::Local,
                "Descendent permissions:" => Scope::Descendent,
                "Local+Descendent permissions:" => Scope::Both,
                "Permission sets:" | "Create time permissions:" => Scope::Other,
                other => return Err(format!("{:?} is not a kind of rights", shorten(other))),
            };
        }
    }
    Ok(delegations)
}

/// Reads `user svc create,destroy`, `everyone mount`, or `@set create`.
fn delegation(dataset: DatasetName, scope: Scope, entry: &str) -> Result<Delegation, String> {
    let fault = || format!("{:?} says of nobody what is allowed", shorten(entry));
    let (whom, permissions) = entry.rsplit_once(' ').unwrap_or(("", entry));
    let who = if scope == Scope::Other {
        Who::Nobody
    } else {
        match whom.split_once(' ') {
            Some(("user", name)) => Who::User(plain_user(name).into()),
            Some(("group", name)) => Who::Group(plain_user(name).into()),
            None if whom == "everyone" => Who::Everyone,
            _ => return Err(fault()),
        }
    };
    let permissions: Vec<String> = permissions.split(',').map(String::from).collect();
    if permissions.iter().any(String::is_empty) {
        return Err(fault());
    }
    Ok(Delegation { dataset, scope, who, permissions })
}

/// A user whose name is not known here is printed as `(unknown: 4242)`.
fn plain_user(text: &str) -> &str {
    let number = text.strip_prefix("(unknown: ").and_then(|rest| rest.strip_suffix(')'));
    number.unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::Fake;
    use super::*;

    const REPORT: &str = "---- Permissions on tank/svc -----------------------------------------\n\
        Permission sets:\n\
        \t@some create,mount\n\
        Create time permissions:\n\
        \tdestroy\n\
        Local permissions:\n\
        \tuser svc quota\n\
        Local+Descendent permissions:\n\
        \tuser svc bookmark,create,send\n\
        \tuser (unknown: 4242) hold\n\
        \tgroup staff send\n\
        \teveryone diff\n\
        ---- Permissions on tank ---------------------------------------------\n\
        Descendent permissions:\n\
        \tuser svc release\n\
        Local permissions:\n\
        \tuser svc rename\n";

    #[test]
    fn each_kind_of_delegation_is_read() {
        let fake = Fake::that_prints(REPORT);
        let dataset = DatasetName::parse("tank/svc").unwrap();
        let all = fake.zfs.delegations(&dataset).unwrap();
        let who: Vec<_> = all.iter().map(|delegation| delegation.who.clone()).collect();
        let user = |name: &str| Who::User(name.into());
        assert_eq!(
            who,
            [
                Who::Nobody,
                Who::Nobody,
                user("svc"),
                user("svc"),
                user("4242"),
                Who::Group("staff".into()),
                Who::Everyone,
                user("svc"),
                user("svc"),
            ]
        );
        assert_eq!(all[3].permissions, ["bookmark", "create", "send"]);
        assert_eq!((all[3].scope, all[7].scope), (Scope::Both, Scope::Descendent));
        assert_eq!(all[7].dataset.as_str(), "tank");

        let user = UserName::parse("svc").unwrap();
        let wanted = ["create", "release", "quota", "rename", "hold"];
        let missing = fake.zfs.missing_permissions(&user, &wanted, &dataset).unwrap();
        assert_eq!(missing, ["quota", "rename", "hold"]);
    }

    #[test]
    fn nothing_delegated_is_nothing_printed() {
        let dataset = DatasetName::parse("tank").unwrap();
        assert_eq!(Fake::that_prints("").zfs.delegations(&dataset).unwrap(), []);
    }

    #[test]
    fn what_is_no_report_is_an_error() {
        for text in [
            "\tuser svc quota\n",
            "---- Permissions on -r ----\n",
            "---- Permissions on tank ---\nOther things:\n",
            "---- Permissions on tank ---\nLocal permissions:\n\tnobody quota\n",
            "---- Permissions on tank ---\nLocal permissions:\n\tuser svc a,,b\n",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn changes_are_commands() {
        let (user, dataset) =
            (UserName::parse("svc").unwrap(), DatasetName::parse("tank").unwrap());
        let command = allow(&user, &["create", "mount"], &dataset);
        assert_eq!(command.to_string(), "zfs allow -u svc create,mount tank");
        assert_eq!(unallow(&user, &dataset).to_string(), "zfs unallow -u svc tank");
    }

    proptest! {
        #[test]
        fn no_report_makes_a_panic(
            text in "(---- Permissions on tank -\n|Local permissions:\n|\tuser |\t|[a-z(), ]{0,6}|\n){0,9}",
        ) {
            let _ = parse(&text);
        }
    }
}
