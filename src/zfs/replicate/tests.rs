//! What is sent and what may go, made of what both sides have.

use super::plan::{Copy, Needless, Next, Sides};
use super::*;
use crate::zfs::Ratio;
use crate::zfs::dataset::{Dataset, Kind, Mountpoint, ResumeToken};
use crate::zfs::name::Bookmark;
use crate::zfs::snapshot::{BookmarkInfo, SnapshotInfo};

const HERE: &str = "tank/a";
const THERE: &str = "far/a";
const TOKEN: &str = "1-f4e2257c7-110-78";

fn maker() -> Maker {
    Maker::Replication(THERE.into())
}

/// The snapshot `number` of the replication.
fn name(number: u64) -> SnapshotName {
    maker()
        .name_at(jiff::Timestamp::from_second(1_764_000_000 + number.cast_signed()).unwrap())
        .unwrap()
}

fn snapshot(dataset: &str, name: &str, guid: u64, made_by: Option<&Maker>) -> SnapshotInfo {
    SnapshotInfo {
        snapshot: format!("{dataset}@{name}").parse().unwrap(),
        guid,
        createtxg: guid,
        creation: guid,
        used: 0,
        referenced: 0,
        written: 1,
        holds: 0,
        properties: vec![made_by.map(ToString::to_string)],
    }
}

/// Snapshots of ours by their numbers, which are their guids too.
fn ours(dataset: &str, numbers: &[u64]) -> Vec<SnapshotInfo> {
    let made = |number: &u64| snapshot(dataset, name(*number).as_str(), *number, Some(&maker()));
    numbers.iter().map(made).collect()
}

fn bookmarks(numbers: &[u64]) -> Vec<BookmarkInfo> {
    let made = |number: &u64| BookmarkInfo {
        bookmark: Bookmark::new(HERE.parse().unwrap(), name(*number)).unwrap(),
        guid: *number,
        createtxg: *number,
        creation: *number,
    };
    numbers.iter().map(made).collect()
}

fn copy(numbers: &[u64]) -> Copy {
    let dataset = Dataset {
        name: THERE.parse().unwrap(),
        kind: Kind::Filesystem,
        guid: 1,
        used: 0,
        available: 0,
        referenced: 0,
        logical_used: 0,
        quota: None,
        refquota: None,
        compress_ratio: Ratio::parse("1.00").unwrap(),
        used_by_snapshots: 0,
        mounted: true,
        readonly: true,
        origin: None,
        mountpoint: Mountpoint::Path("/far/a".into()),
        receive_resume_token: None,
    };
    Copy { dataset, snapshots: ours(THERE, numbers), written: 0 }
}

/// Snapshots and bookmarks here, and snapshots of the copy.
fn sides(here: &[u64], marks: &[u64], there: Option<&[u64]>) -> Sides {
    Sides {
        dataset: HERE.parse().unwrap(),
        to: THERE.parse().unwrap(),
        maker: maker(),
        snapshots: ours(HERE, here),
        bookmarks: bookmarks(marks),
        copy: there.map(copy),
    }
}

fn with_token(mut sides: Sides) -> Sides {
    sides.copy.as_mut().unwrap().dataset.receive_resume_token = ResumeToken::parse(TOKEN);
    sides
}

/// What the next stream begins from.
fn base(sides: &Sides) -> Option<String> {
    match sides.next(false).unwrap() {
        Next::Send(Some(Base::Snapshot(snapshot))) => Some(format!("@{}", snapshot.name())),
        Next::Send(Some(Base::Bookmark(bookmark))) => Some(format!("#{}", bookmark.name())),
        Next::Send(None) => None,
        other => panic!("{other:?}"),
    }
}

fn names(numbers: &[u64]) -> Vec<SnapshotName> {
    numbers.iter().map(|number| name(*number)).collect()
}

#[test]
fn without_a_copy_everything_is_sent_and_nothing_goes() {
    let sides = sides(&[1, 2], &[], None);
    assert_eq!(base(&sides), None);
    assert_eq!(sides.needless(1), Needless::default());
    assert_eq!((sides.at(), sides.unmarked()), (None, Vec::new()));
    assert_eq!(sides.left_over(), names(&[1, 2]), "runs that failed left them");
}

#[test]
fn what_changed_since_the_newest_that_both_have_is_sent() {
    assert_eq!(base(&sides(&[1, 2], &[1, 2], Some(&[1, 2]))), Some(format!("@{}", name(2))));
    // Ours is newer here: a run that failed left it.
    let late = sides(&[1, 2, 3], &[1, 2], Some(&[1, 2]));
    assert_eq!(base(&late), Some(format!("@{}", name(2))));
    assert_eq!(late.left_over(), names(&[3]));
    assert_eq!(late.at(), Some(name(2)));
}

#[test]
fn a_node_that_was_away_catches_up_from_a_bookmark() {
    let away = sides(&[7, 8], &[2], Some(&[1, 2]));
    assert_eq!(base(&away), Some(format!("#{}", name(2))));
    // What is newer than the base and never arrived is of no use to anybody.
    assert_eq!(away.left_over(), names(&[7, 8]));
    // The bookmark stays for as long as it is the base.
    assert_eq!(away.needless(1).bookmarks, []);
}

#[test]
fn an_interrupted_stream_comes_first_and_keeps_what_it_needs() {
    let interrupted = with_token(sides(&[1, 2, 3], &[1, 2], Some(&[1, 2])));
    let token = ResumeToken::parse(TOKEN).unwrap();
    assert_eq!(interrupted.next(false).unwrap(), Next::Resume(token.clone()));
    assert_eq!(interrupted.left_over(), []);
    assert_eq!(interrupted.needless(1), Needless::default());
    // The first stream of all.
    let first = with_token(sides(&[1], &[], Some(&[])));
    assert_eq!(first.next(false).unwrap(), Next::Resume(token));
}

#[test]
fn what_is_no_copy_of_ours_is_left_alone_whatever_is_asked() {
    for there in [&[][..], &[8, 9]] {
        let strange = sides(&[1, 2], &[1, 2], Some(there));
        for rollback in [false, true] {
            let error = strange.next(rollback).unwrap_err();
            assert!(matches!(error, ReplicateError::NoCopy { .. }), "{error}");
            assert!(error.to_string().contains("zfs destroy -r far/a"), "{error}");
        }
        assert_eq!(strange.needless(1), Needless::default());
    }
}

#[test]
fn a_copy_that_others_changed_is_told_and_rolled_back_only_when_asked() {
    let mut changed = sides(&[1, 2], &[], Some(&[1, 2]));
    changed.copy.as_mut().unwrap().snapshots.push(snapshot(THERE, "theirs", 99, None));
    let error = changed.next(false).unwrap_err();
    assert!(
        error.to_string().contains("@theirs") && error.to_string().contains("--rollback"),
        "{error}"
    );
    let base = Base::Snapshot(format!("{HERE}@{}", name(2)).parse().unwrap());
    assert_eq!(changed.next(true).unwrap(), Next::Send(Some(base.clone())));

    let mut written = sides(&[1, 2], &[], Some(&[1, 2]));
    written.copy.as_mut().unwrap().written = 4096;
    let error = written.next(false).unwrap_err();
    assert!(error.to_string().contains("4096 bytes were written"), "{error}");
    assert_eq!(written.next(true).unwrap(), Next::Send(Some(base)));
}

#[test]
fn the_last_few_stay_on_both_sides_and_only_ours_go() {
    let mut sides = sides(&[1, 2, 3, 4], &[1, 2, 3, 4], Some(&[1, 2, 3, 4]));
    sides.snapshots.insert(2, snapshot(HERE, "auto-1", 50, Some(&Maker::Schedule)));
    let others = Maker::Replication("far/b".into());
    sides.snapshots.insert(
        0,
        snapshot(
            HERE,
            others.name_at(jiff::Timestamp::UNIX_EPOCH).unwrap().as_str(),
            51,
            Some(&others),
        ),
    );
    let foreign = Bookmark::parse(&format!("{HERE}#theirs")).unwrap();
    sides.bookmarks.push(BookmarkInfo { bookmark: foreign, guid: 60, createtxg: 60, creation: 60 });
    sides.snapshots[1].holds = 1;
    let needless = sides.needless(2);
    assert_eq!(needless.here, names(&[2]), "1 is held");
    assert_eq!(needless.there, names(&[2, 1]));
    let marks: Vec<_> = needless.bookmarks.iter().map(|mark| mark.name().clone()).collect();
    assert_eq!(marks, names(&[1, 2, 3]));
}

#[test]
fn the_base_of_the_next_run_stays_however_few_are_to_stay() {
    // Two that never arrived are newer than it.
    let sides = sides(&[1, 2, 3, 4], &[2], Some(&[1, 2]));
    for keep in [0, 1] {
        let needless = sides.needless(keep);
        assert!(!needless.here.contains(&name(2)), "{needless:?}");
        assert_eq!(needless.there, names(&[1]));
        assert_eq!(needless.bookmarks, []);
    }
}

#[test]
fn what_was_pruned_here_already_still_goes_there_once_it_is_noted_as_ours() {
    let mut sides = sides(&[3, 4], &[4], Some(&[1, 2, 3, 4]));
    for there in &mut sides.copy.as_mut().unwrap().snapshots[2..] {
        there.properties = vec![None];
    }
    assert_eq!(sides.unmarked(), names(&[3, 4]));
    assert_eq!(sides.needless(1).there, names(&[1]), "3 and 4 are not noted yet");
}

#[test]
fn two_runs_in_one_second_do_not_share_a_name() {
    let sides = sides(&[1, 2], &[], None);
    let now = jiff::Timestamp::from_second(1_764_000_001).unwrap();
    assert_eq!(sides.free_name(now).unwrap(), name(3));
}

#[test]
fn what_will_be_needless_is_known_before() {
    let sides = sides(&[1, 2], &[1, 2], Some(&[1, 2]));
    let made = format!("{HERE}@{}", name(3)).parse().unwrap();
    let needless = sides.once_sent(&made).needless(2);
    assert_eq!((needless.here, needless.there), (names(&[1]), names(&[1])));
    assert_eq!(needless.bookmarks.len(), 2);
}
