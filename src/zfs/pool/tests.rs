use proptest::prelude::*;

use super::super::testing::Fake;
use super::*;

const VERSION: &str = "[ \"$1\" = version ] && { printf 'zfs-%s\\nzfs-kmod-%s\\n' V V; exit; }\n";

fn fake(version: &str, script: &str) -> Fake {
    Fake::new(&format!("{}{script}", VERSION.replace('V', version)))
}

fn tank() -> PoolName {
    PoolName::parse("tank").unwrap()
}

#[test]
fn a_pool_of_2_1_has_no_clones() {
    let fake = fake(
        "2.1.11",
        "printf 'tank\t2952790016\t589824\t2952200192\t-\t0\t1.87\tDEGRADED\t17110714527718625116\toff\n'",
    );
    let pool = fake.zfs.pool(&tank()).unwrap().unwrap();
    assert_eq!((pool.size, pool.allocated, pool.free), (2_952_790_016, 589_824, 2_952_200_192));
    assert_eq!((pool.fragmentation_percent, pool.capacity_percent), (None, 0));
    assert_eq!((pool.dedup_ratio.to_string().as_str(), pool.health), ("1.87", Health::Degraded));
    assert_eq!((pool.guid, pool.readonly, pool.clones), (17_110_714_527_718_625_116, false, None));
    assert_eq!(fake.zfs.pool(&PoolName::parse("other").unwrap()).unwrap(), None);
}

#[test]
fn a_pool_of_2_3_tells_what_its_clones_save() {
    let script = "case \"$*\" in *bclonesaved) printf 'tank\t3\t1\t2\t7\t33\t1.00\tONLINE\t18446744073709551615\ton\t11\t22\n';; *) exit 1;; esac";
    let pool = fake("2.3.9", script).zfs.pools().unwrap().remove(0);
    assert_eq!((pool.guid, pool.readonly), (u64::MAX, true));
    assert_eq!(pool.clones, Some(Clones { used: 11, saved: 22 }));
    assert_eq!(pool.fragmentation_percent, Some(7));
}

#[test]
fn status_is_asked_for_in_the_way_that_the_version_knows() {
    let json = include_str!("../samples/2.3.9/data_err_j.out");
    let new = fake(
        "2.3.9",
        "case \"$*\" in *-j*--json-int*-v*) exec cat \"${0%/*}/answer\";; esac; exit 2",
    );
    new.install("answer", json);
    let solo = PoolName::parse("solo").unwrap();
    assert_eq!(new.zfs.status(&solo).unwrap().damaged_files, ["/solo/victim"]);
    let text = include_str!("../samples/2.1.11/data_err_scrub.out");
    let old = fake(
        "2.1.11",
        "case \"$*\" in *-j*) exit 2;; *-v*) exec cat \"${0%/*}/answer\";; esac; exit 2",
    );
    old.install("answer", text);
    assert_eq!(old.zfs.status(&solo).unwrap().damaged_files, ["/solo/victim"]);
}

#[test]
fn errors_are_counted_where_their_list_may_not_be_seen() {
    let fake = fake(
        "2.1.11",
        "printf '  pool: tank\n state: ONLINE\nconfig:\n\n'; \
         case \"$*\" in *-v*) ;; *) echo \"errors: 5 data errors, use '-v' for a list\";; esac",
    );
    assert_eq!(fake.zfs.status(&tank()).unwrap().error_count, Some(5));
}

#[test]
fn features_and_reports_are_read() {
    let fake = Fake::that_prints("size\t1\nfeature@lz4_compress\tactive\nfeature@draid\tenabled\n");
    let features = fake.zfs.features(&tank()).unwrap();
    assert_eq!((features[0].name.as_str(), features[0].state.as_str()), ("lz4_compress", "active"));
    assert_eq!(features.len(), 2);
    let long = "line\n".repeat(1000);
    assert_eq!(Fake::that_prints(&long).zfs.report(&tank()).unwrap().lines().count(), REPORT_LINES);
    let events: String = (0..100).map(|number| format!("{number}\tevent\n")).collect();
    let events = Fake::that_prints(&events).zfs.events(&tank()).unwrap();
    assert_eq!((events.len(), events[MAX_EVENTS - 1].as_str()), (MAX_EVENTS, "99\tevent"));
}

#[test]
fn what_is_not_a_pool_is_an_error() {
    for line in [
        "tank",
        "tank\tx\t1\t2\t7\t33\t1.00\tONLINE\t1\ton",
        "a;b\t3\t1\t2\t7\t33\t1.00\tONLINE\t1\ton",
    ] {
        let error = fake("2.1.11", &format!("printf '%s\n' '{line}'")).zfs.pools().unwrap_err();
        assert!(matches!(error, ZfsError::Unreadable { .. }), "{line:?}: {error:?}");
    }
}

#[test]
fn a_pool_that_is_not_here_has_no_state_in_the_kernel() {
    let name = PoolName::parse("no-such-pool-anywhere").unwrap();
    assert_eq!(kernel_state(&name).unwrap(), None);
}

#[test]
fn changes_are_commands() {
    assert_eq!(scrub(&tank()).to_string(), "zpool scrub tank");
    assert_eq!(sync(&tank()).to_string(), "zpool sync tank");
}

proptest! {
    #[test]
    fn no_output_makes_a_panic(line in prop_oneof![".{0,80}", "([a-z0-9.-]{0,6}\t){9,12}.{0,9}"]) {
        let _ = Pool::parse(&line);
    }
}
