//! The user of the system that a service runs as.

use super::command::{Command, Program};
use super::error::ZfsError;
use super::handle::Zfs;
use super::name::UserName;

/// A user, as far as files and delegated rights need one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// What `zfs allow` is told: a name, or a number where the system has no name for it.
    pub name: UserName,
    /// The number of the user.
    pub uid: u32,
    /// The number of the user's own group.
    pub gid: u32,
}

impl Account {
    /// Looks a user up by name, or takes a number as it is; `None` where there is no such user.
    ///
    /// `getent` is asked, as names may come from elsewhere than `/etc/passwd`; where that is not
    /// installed, the file is read.
    pub fn find(zfs: &Zfs, name: &UserName) -> Result<Option<Self>, ZfsError> {
        let command = Command::new(Program::Other("getent"), ["passwd", name.as_str()]);
        let entry = match zfs.read(&command) {
            Ok(text) => Self::of_entries(&text, name),
            // 2 is "not found"; a real failure to ask says the same of a name that is not in the file.
            Err(ZfsError::Failed { .. } | ZfsError::Missing { .. }) => {
                let file = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
                Self::of_entries(&file, name)
            }
            Err(error) => return Err(error),
        };
        Ok(entry.or_else(|| {
            let number = name.as_str().parse().ok()?;
            Some(Self { name: name.clone(), uid: number, gid: number })
        }))
    }

    /// Reads lines `name:password:uid:gid:…` as passwd(5) describes them.
    fn of_entries(text: &str, name: &UserName) -> Option<Self> {
        text.lines().find_map(|line| {
            let [login, _, uid, gid] = line.splitn(5, ':').take(4).collect::<Vec<_>>()[..] else {
                return None;
            };
            let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
            let meant = login == name.as_str() || name.as_str().parse() == Ok(uid);
            // A user that was given by number has rights by name.
            let name = UserName::parse(login).unwrap_or_else(|_| name.clone());
            meant.then_some(Self { name, uid, gid })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> UserName {
        UserName::parse(text).unwrap()
    }

    #[test]
    fn a_user_is_found_by_name_and_by_number() {
        let entries =
            "root:x:0:0:root:/root:/bin/sh\nsnowbank:x:990:985::/var/lib/snowbank:/bin/false\n";
        let found = Account::of_entries(entries, &name("snowbank")).unwrap();
        assert_eq!((found.uid, found.gid), (990, 985));
        let found = Account::of_entries(entries, &name("990")).unwrap();
        assert_eq!((found.name.as_str(), found.gid), ("snowbank", 985));
        for other in ["snow", "x", "99", "985"] {
            assert_eq!(Account::of_entries(entries, &name(other)), None, "{other}");
        }
        assert_eq!(Account::of_entries("snowbank:x:many:1::\nsnowbank:x", &name("snowbank")), None);
    }

    #[test]
    fn this_system_knows_root_and_no_strangers() {
        let zfs = Zfs::with_programs("/nonexistent/zfs", "/nonexistent/zpool");
        let root = Account::find(&zfs, &name("root")).unwrap().unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(Account::find(&zfs, &name("no-such-user-here")).unwrap(), None);
        // A number may be used before it has a name.
        let number = Account::find(&zfs, &name("4000123")).unwrap().unwrap();
        assert_eq!((number.uid, number.gid), (4_000_123, 4_000_123));
    }
}
