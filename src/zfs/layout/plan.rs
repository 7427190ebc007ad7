//! From what is wanted and what there is to what is to be done. Looks at nothing itself.

use std::path::Path;

use super::{
    ADOPTING, Files, Found, FoundDataset, Layout, LayoutError, Member, Mounted, Place, Plan,
    Remark, Step, aside, beside, rights,
};
use crate::zfs::account::Account;
use crate::zfs::name::DatasetName;
use crate::zfs::properties::{Role, drift, is_same};
use crate::zfs::{dataset, delegation, property};

impl Layout {
    /// What is to be done. Nothing where all is as wanted.
    pub fn plan(&self, found: &Found, files: Files) -> Result<Plan, LayoutError> {
        let mut plan = Plan::default();
        self.plan_parent(found, &mut plan)?;
        self.plan_rights(found, &mut plan);
        match found.place(&self.directory) {
            Place::Missing => {
                plan.steps.push(Step::MakeDirectory(self.directory.clone()));
                plan.give(&self.directory, self.account.as_ref());
            }
            Place::NoDirectory => return Err(LayoutError::NoDirectory(self.directory.clone())),
            Place::Directory { .. } => {}
        }
        for member in &self.members {
            let planning = Planning { layout: self, found, member };
            match found.datasets.get(&member.dataset) {
                Some(there) if there.is_volume() => {
                    return Err(LayoutError::Volume(member.dataset.clone()));
                }
                None => planning.make(files, &mut plan)?,
                Some(there) => match there.adopting() {
                    Some(_) => planning.go_on_adopting(there, files, &mut plan)?,
                    None => planning.mend(there, &mut plan)?,
                },
            }
        }
        Ok(plan)
    }

    fn plan_parent(&self, found: &Found, plan: &mut Plan) -> Result<(), LayoutError> {
        let Some(there) = found.datasets.get(&self.parent) else {
            let Some(above) = self.parent.parent().filter(|_| !found.above) else {
                let options = Role::Parent.options();
                plan.run(dataset::create(&self.parent, &options));
                return Ok(());
            };
            return Err(LayoutError::NoPool { above, parent: self.parent.clone() });
        };
        if there.is_volume() {
            return Err(LayoutError::Volume(self.parent.clone()));
        }
        let mounted_at = there.dataset.mountpoint.path().filter(|_| there.dataset.mounted);
        // Switching `canmount` off unmounts it.
        if let Some(directory) = mounted_at
            && !matches!(found.place(directory), Place::Directory { empty: true, .. })
        {
            return Err(LayoutError::ParentInUse {
                dataset: self.parent.clone(),
                directory: directory.into(),
            });
        }
        plan.set(&self.parent, Role::Parent, there, Vec::new());
        Ok(())
    }

    fn plan_rights(&self, found: &Found, plan: &mut Plan) {
        let Some(account) = self.account.as_ref().filter(|account| account.uid != 0) else {
            return;
        };
        let wanted = rights::names().into_iter();
        let missing: Vec<_> = wanted.filter(|name| !found.rights.contains(name)).collect();
        if !missing.is_empty() {
            plan.run(delegation::allow(&account.name, &missing, &self.parent));
        }
    }
}

/// What is planned for one member.
struct Planning<'a> {
    layout: &'a Layout,
    found: &'a Found,
    member: &'a Member,
}

impl Planning<'_> {
    /// The dataset is not there.
    fn make(&self, files: Files, plan: &mut Plan) -> Result<(), LayoutError> {
        let directory = &self.member.mountpoint;
        match self.found.place(directory) {
            Place::NoDirectory => return Err(LayoutError::NoDirectory(directory.clone())),
            Place::Directory { mounted: Some(what), .. } => return Err(self.taken(what)),
            Place::Directory { empty: false, .. } if files == Files::Refuse => {
                let (directory, dataset) = (directory.clone(), self.member.dataset.clone());
                return Err(LayoutError::HasFiles { directory, dataset });
            }
            Place::Directory { empty: false, .. } => return self.begin_to_adopt(plan),
            Place::Missing | Place::Directory { .. } => {}
        }
        self.create(directory, &[], plan)?;
        plan.run(dataset::mount(&self.member.dataset));
        plan.give(directory, self.layout.account.as_ref());
        Ok(())
    }

    /// The dataset is there, and not in the midst of an adoption.
    fn mend(&self, there: &FoundDataset, plan: &mut Plan) -> Result<(), LayoutError> {
        let wanted = &self.member.mountpoint;
        let name = &self.member.dataset;
        let mut more = self.mountpoint_of(there)?;
        if there.value("canmount").is_some_and(|value| value != "on") {
            more.push(("canmount".into(), "on".into()));
        }
        more.extend(self.quota_of(there));
        let place = self.found.place(wanted);
        let is_there = matches!(
            place,
            Place::Directory { mounted: Some(Mounted::Dataset(mounted)), .. } if mounted == name
        );
        if let (false, true, Some(at)) =
            (is_there, there.dataset.mounted, there.dataset.mountpoint.path())
        {
            let (dataset, at, wanted) = (name.clone(), at.into(), wanted.clone());
            return Err(LayoutError::Elsewhere { dataset, at, wanted });
        }
        match place {
            Place::Directory { .. } if is_there => {}
            Place::NoDirectory => return Err(LayoutError::NoDirectory(wanted.clone())),
            Place::Directory { mounted: Some(what), .. } => return Err(self.taken(what)),
            Place::Directory { empty: false, .. } => {
                let (directory, dataset) = (wanted.clone(), name.clone());
                return Err(LayoutError::BothHaveFiles { directory, dataset });
            }
            Place::Missing | Place::Directory { .. } => {}
        }
        plan.set(name, self.member.role, there, more);
        if !is_there {
            plan.run(dataset::mount(name));
        }
        match (place, &self.layout.account) {
            (Place::Directory { owner, .. }, Some(account))
                if is_there && *owner == (account.uid, account.gid) => {}
            // Who owns what is not mounted is not known; giving it once more does no harm.
            (_, account) if !is_there || account.is_some() => plan.give(wanted, account.as_ref()),
            _ => {}
        }
        Ok(())
    }

    /// Steps 1 to 7 of the module's header; the dataset is not there yet.
    fn begin_to_adopt(&self, plan: &mut Plan) -> Result<(), LayoutError> {
        let directory = &self.member.mountpoint;
        let mark = text(directory)?;
        self.create(&beside(directory), &[("canmount", "noauto"), (ADOPTING, mark)], plan)?;
        plan.run(dataset::mount(&self.member.dataset));
        self.copy_and_rename(plan);
        self.move_mount(plan)
    }

    /// The same, from where it was interrupted.
    fn go_on_adopting(
        &self,
        there: &FoundDataset,
        files: Files,
        plan: &mut Plan,
    ) -> Result<(), LayoutError> {
        let (directory, name) = (&self.member.mountpoint, &self.member.dataset);
        let from = there.adopting().unwrap_or(directory).to_owned();
        if files == Files::Refuse || from != *directory {
            return Err(LayoutError::Interrupted { directory: from, dataset: name.clone() });
        }
        let (beside, aside) = (beside(directory), aside(directory));
        let is_moved = there.dataset.mountpoint.path() == Some(directory);
        if !is_moved {
            let place = self.found.place(&beside);
            let is_mounted = matches!(
                place, Place::Directory { mounted: Some(Mounted::Dataset(mounted)), .. } if mounted == name
            );
            if !is_mounted {
                plan.run(dataset::mount(name));
            }
            match (self.found.place(directory), self.found.place(&aside)) {
                (Place::NoDirectory, _) => return Err(LayoutError::NoDirectory(directory.clone())),
                (Place::Directory { mounted: Some(what), .. }, _) => return Err(self.taken(what)),
                (Place::Directory { empty: false, .. }, Place::Missing) => {
                    self.copy_and_rename(plan)
                }
                (Place::Directory { empty: false, .. }, _) => {
                    let directory = directory.clone();
                    return Err(LayoutError::WrittenMeanwhile { directory, aside });
                }
                // Renamed, and perhaps made anew by somebody who found it missing.
                (Place::Missing | Place::Directory { .. }, Place::Directory { .. }) => {
                    plan.steps.push(self.copy(&aside));
                }
                // There is nothing to adopt any more.
                (Place::Missing | Place::Directory { .. }, _) => {}
            }
            return self.move_mount(plan);
        }
        // Only the last steps are missing; the mount may be at either place, or at none.
        let at = |path: &Path| {
            matches!(
                self.found.place(path),
                Place::Directory { mounted: Some(Mounted::Dataset(mounted)), .. } if mounted == name
            )
        };
        if !at(directory) {
            if at(&beside) {
                plan.run(dataset::unmount(name));
            }
            plan.run(dataset::mount(name));
        }
        self.end_adoption(plan, *self.found.place(&beside) != Place::Missing);
        Ok(())
    }

    /// Steps 3 to 5.
    fn copy_and_rename(&self, plan: &mut Plan) {
        let directory = &self.member.mountpoint;
        let aside = aside(directory);
        plan.steps.push(self.copy(directory));
        plan.steps.push(Step::Rename(directory.clone(), aside.clone()));
        plan.steps.push(self.copy(&aside));
    }

    fn copy(&self, from: &Path) -> Step {
        Step::Copy {
            from: from.into(),
            to: beside(&self.member.mountpoint),
            account: self.layout.account.clone(),
        }
    }

    /// Steps 6 and 7. What is mounted moves along when its mount point is set.
    fn move_mount(&self, plan: &mut Plan) -> Result<(), LayoutError> {
        let properties = [("mountpoint", text(&self.member.mountpoint)?), ("canmount", "on")];
        plan.run(property::set(&self.member.dataset, &properties));
        self.end_adoption(plan, true);
        Ok(())
    }

    fn end_adoption(&self, plan: &mut Plan, is_beside: bool) {
        let directory = &self.member.mountpoint;
        plan.give(directory, self.layout.account.as_ref());
        if is_beside {
            plan.steps.push(Step::RemoveDirectory(beside(directory)));
        }
        plan.run(property::inherit(&self.member.dataset, ADOPTING));
    }

    fn create(
        &self,
        mountpoint: &Path,
        more: &[(&str, &str)],
        plan: &mut Plan,
    ) -> Result<(), LayoutError> {
        let mut options = self.member.role.options();
        options.push(("mountpoint", text(mountpoint)?));
        let quota = self.member.quota.map(|quota| quota.to_string());
        options.extend(quota.as_deref().map(|quota| ("quota", quota)));
        options.extend(more);
        plan.run(dataset::create(&self.member.dataset, &options));
        Ok(())
    }

    fn mountpoint_of(&self, there: &FoundDataset) -> Result<Vec<(String, String)>, LayoutError> {
        let wanted = text(&self.member.mountpoint)?;
        let is = there.dataset.mountpoint.path() == Some(&self.member.mountpoint);
        Ok(if is { Vec::new() } else { vec![("mountpoint".into(), wanted.into())] })
    }

    /// A quota that nobody configured is the administrator's, and stays.
    fn quota_of(&self, there: &FoundDataset) -> Option<(String, String)> {
        let wanted = self.member.quota.filter(|_| there.dataset.quota != self.member.quota)?;
        Some(("quota".into(), wanted.to_string()))
    }

    fn taken(&self, what: &Mounted) -> LayoutError {
        let what = match what {
            Mounted::Dataset(dataset) => format!("the dataset {dataset}"),
            Mounted::Other(source) => source.clone(),
        };
        let (directory, dataset) = (self.member.mountpoint.clone(), self.member.dataset.clone());
        LayoutError::Taken { directory, what, dataset }
    }
}

impl Plan {
    fn run(&mut self, command: crate::zfs::Command) {
        self.steps.push(Step::Run(command));
    }

    fn give(&mut self, path: &Path, account: Option<&Account>) {
        if let Some(account) = account {
            self.steps.push(Step::Give(path.into(), account.clone()));
        }
    }

    /// Sets, in one command, what is not as the table wants it, and `more`.
    fn set(
        &mut self,
        name: &DatasetName,
        role: Role,
        there: &FoundDataset,
        more: Vec<(String, String)>,
    ) {
        let mut pairs = Vec::new();
        for drift in drift(role, &there.properties) {
            if drift.fixable {
                pairs.push((drift.wanted.name.to_owned(), drift.wanted.value.to_owned()));
            } else {
                self.remarks.push(Remark { dataset: name.clone(), drift });
            }
        }
        for (property, value) in more {
            let is_set =
                there.value(&property).is_some_and(|found| is_same(&property, &value, found));
            if !is_set && !pairs.iter().any(|(name, _)| *name == property) {
                pairs.push((property, value));
            }
        }
        if !pairs.is_empty() {
            let pairs: Vec<_> =
                pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            self.run(property::set(name, &pairs));
        }
    }
}

fn text(path: &Path) -> Result<&str, LayoutError> {
    let text = path.to_str().filter(|_| path.is_absolute());
    text.ok_or_else(|| LayoutError::NoMountpoint(path.into()))
}
