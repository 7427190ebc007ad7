//! SIGKILL, and run again.

use std::{fs, os::unix::process::ExitStatusExt as _, process::Child, thread, time::Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::*;

/// The commands, by how they begin, before each of which it is killed: all that change something.
const POINTS: [&str; 11] = [
    "sfdisk --quiet --no-reread --wipe never",
    "partx",
    "dd if=/dev/zero",
    "mkfs.ext4",
    "sfdisk --quiet --no-reread --part-label",
    "zpool create",
    "zfs create",
    "zfs mount",
    "chown",
    "zfs inherit",
    "mount -t ext4",
];

/// Runs it again after `killed`, and looks at what there is then.
fn completed(setup: &Setup, disk: &Disk, killed: &str, whole: &str) {
    let ended = setup.format(&[]);
    assert!(ended.status.success(), "killed {killed}, then: {}{}", ended.stdout, ended.stderr);
    assert_eq!(setup.state(disk), whole, "killed {killed}");
}

/// The disk as it was before.
fn blank(setup: &Setup, disk: &Disk) {
    setup.undo();
    run("blkdiscard", ["--force", disk.path().to_str().unwrap()]);
    settle();
}

/// Defects 4 and 6: what was half done stayed so, or was done for ever.
#[test]
fn killed_before_any_command_it_is_completed_by_the_next_run() {
    let disk = Disk::take();
    let setup = Setup::new("killed", &both("killed", &disk));
    let steps = setup.steps(&[]);
    let commands: Vec<&str> = steps
        .iter()
        .flat_map(|step| step["commands"].as_array().unwrap())
        .map(|command| command.as_str().unwrap())
        .collect();
    setup.format(&[]).succeeded();
    let whole = setup.state(&disk);
    for point in POINTS {
        blank(&setup, &disk);
        let number = commands.iter().position(|command| command.starts_with(point)).unwrap() + 1;
        let killed = setup.killed_at(number);
        assert_eq!(killed.status.signal(), Some(9), "{point}: {}{}", killed.stdout, killed.stderr);
        completed(&setup, &disk, &format!("before {point}"), &whole);
    }
    setup.is_done();
}

fn kill_all(child: &mut Child) {
    let group = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    // It may have ended by itself.
    let _ = kill_process_group(group, Signal::KILL);
    child.wait().unwrap();
}

/// Whether a program of this name runs in the process group.
fn runs(program: &str, group: u32) -> bool {
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let stats = entries.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    stats.into_iter().any(|stat| {
        let Some((name, rest)) = stat.rsplit_once(") ") else { return false };
        let name = name.split_once('(').map(|(_, name)| name);
        name == Some(program) && rest.split(' ').nth(2) == Some(&group.to_string())
    })
}

#[test]
fn killed_in_the_midst_of_a_program_it_is_completed_by_the_next_run() {
    let disk = Disk::take();
    let setup = Setup::new("midst", &both("midst", &disk));
    let start = Instant::now();
    setup.format(&[]).succeeded();
    let length = start.elapsed();
    let whole = setup.state(&disk);
    for program in ["sfdisk", "mkfs.ext4", "zpool"] {
        blank(&setup, &disk);
        let mut child = setup.started();
        // `zpool` is asked before it makes anything: the last one counts.
        let wanted = if program == "zpool" { 3 } else { 1 };
        let mut seen = 0;
        let mut was_there = false;
        while seen < wanted && child.try_wait().unwrap().is_none() {
            let is_there = runs(program, child.id());
            seen += usize::from(is_there && !was_there);
            was_there = is_there;
        }
        kill_all(&mut child);
        completed(&setup, &disk, &format!("in {program}"), &whole);
    }
    for part in 1..4 {
        blank(&setup, &disk);
        let mut child = setup.started();
        let moment = length * part / 4;
        thread::sleep(moment);
        kill_all(&mut child);
        completed(&setup, &disk, &format!("after {moment:?}"), &whole);
    }
}

/// Everything that `sfdisk` can leave behind, made by hand: what is on the disk, in sectors.
#[test]
fn half_a_partition_table_is_made_whole_only_under_our_mark() {
    let disk = Disk::take();
    let device = disk.path().to_str().unwrap();
    let setup = Setup::new("table", &whole("table", &disk));
    let sectors: u64 = run("blockdev", ["--getsz", device]).trim().parse().unwrap();
    let zero = |from: u64, count: u64| {
        let (seek, count) = (format!("seek={from}"), format!("count={count}"));
        let of = format!("of={device}");
        run("dd", ["if=/dev/zero", &of, "bs=512", &seek, &count, "conv=notrunc", "status=none"]);
    };
    let script = setup.steps(&[])[0]["commands"].as_array().unwrap().clone();
    let command = |number: usize| script[number].as_str().unwrap();
    for (what, zeroed) in [
        ("the copy at the end", vec![(0, 1), (1, 33)]),
        ("all but the header at the beginning", vec![(1, 1)]),
        ("the table at the beginning", vec![(sectors - 33, 33)]),
        ("the protective table alone", vec![(1, 33), (sectors - 33, 33)]),
        ("half of the entries at the end", vec![(0, 1), (1, 33), (sectors - 20, 20)]),
        ("nothing", vec![(0, 34), (sectors - 33, 33)]),
    ] {
        for marked in [true, false] {
            run("blkdiscard", ["--force", device]);
            settle();
            if marked {
                run("sh", ["-ec", command(0)]);
            }
            run("sh", ["-ec", command(2)]);
            zeroed.iter().for_each(|(from, count)| zero(*from, *count));
            settle();
            if marked {
                setup.format(&[]).succeeded();
                run("zpool", ["destroy", "table"]);
            } else if what != "nothing"
                && what != "the table at the beginning"
                && !what.starts_with("all but")
            {
                setup.format(&["--dry-run"]).refused(&["nothing was changed"]);
            }
        }
    }
}
