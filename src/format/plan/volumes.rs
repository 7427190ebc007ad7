//! The ext4 file systems that are mounted.

use super::super::facts::Directory;
use super::super::layout::Volume;
use super::super::step::Step;
use super::Planner;
use super::disk::{Target, find};
use crate::zfs::disk::make;

impl Planner<'_> {
    /// Plans the mounts. A volume on a disk that is left out is left out, too.
    pub(super) fn volumes(&mut self, targets: &[Target<'_>]) {
        let layout = self.layout;
        for volume in &layout.volumes {
            if let Some(target) = find(targets, &volume.partition) {
                self.volume(volume, target);
            }
        }
    }

    fn volume(&mut self, volume: &Volume, target: &Target<'_>) {
        let Some(point) = &volume.mountpoint else { return };
        let subject = format!("volume {}", volume.name);
        if let (Some(Directory::Mounted(what)), Some(there)) =
            (self.facts.directories.get(point), target.there)
            && *what == there.node
        {
            return;
        }
        if !self.is_free_to_mount(point, &subject) {
            return;
        }
        let what = format!("mount it at {}", point.display());
        let mount = make::mount_ext4(&target.path, point, &volume.options);
        let step = Step::new("mount-volume", subject, what, [make::directory(point), mount]);
        self.plan.steps.push(step);
    }
}
