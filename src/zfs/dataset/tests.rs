use proptest::prelude::*;

use super::super::testing::Fake;
use super::*;

const LINE: &str = "tank/a\tfilesystem\t13206706146866910822\t98304\t1258192896\t98304\t43008\t\
                    1572864000\t0\t1.00\t0\tyes\toff\t-\t-\t/store";

fn name(text: &str) -> DatasetName {
    DatasetName::parse(text).unwrap()
}

#[test]
fn a_dataset_is_read_with_all_its_numbers() {
    let dataset = Dataset::parse(LINE).unwrap();
    assert_eq!((dataset.name.as_str(), dataset.kind), ("tank/a", Kind::Filesystem));
    assert_eq!(dataset.guid, 13_206_706_146_866_910_822);
    assert_eq!((dataset.quota, dataset.refquota), (Some(1_572_864_000), None));
    assert_eq!(dataset.mountpoint.path(), Some(Path::new("/store")));
    assert!(dataset.mounted && !dataset.readonly);
    assert_eq!((dataset.origin, dataset.receive_resume_token), (None, None));
}

#[test]
fn a_volume_a_clone_and_an_interrupted_receive_are_read() {
    let line = "tank/v\tvolume\t1\t2\t3\t4\t5\t-\t-\t1.00\t0\t-\toff\ttank/a@s\t1-f4-11\t-";
    let dataset = Dataset::parse(line).unwrap();
    assert_eq!((dataset.kind, dataset.mountpoint), (Kind::Volume, Mountpoint::None));
    assert_eq!(dataset.origin.unwrap(), "tank/a@s");
    assert_eq!(dataset.receive_resume_token.unwrap().as_str(), "1-f4-11");
}

#[test]
fn the_largest_sizes_and_odd_mount_points_are_read() {
    let line = LINE.replace("98304", "18446744073709551615").replace("/store", "/a b\tc");
    let dataset = Dataset::parse(&line).unwrap();
    assert_eq!((dataset.used, dataset.referenced), (u64::MAX, u64::MAX));
    assert_eq!(dataset.mountpoint, Mountpoint::Path("/a b\tc".into()));
    let legacy = Dataset::parse(&LINE.replace("/store", "legacy")).unwrap();
    assert_eq!(legacy.mountpoint, Mountpoint::Legacy);
}

#[test]
fn what_is_not_a_dataset_is_an_error_that_names_the_column() {
    for (from, to, column) in [
        ("filesystem", "snapshot", "type"),
        ("98304\t1258192896", "9.8K\t1258192896", "used"),
        ("1258192896", "-1", "available"),
        ("tank/a", "tank/a;", "not the name"),
        ("/store", "relative", "mountpoint"),
        ("\t-\t-\t", "\t-\t\t", "receive_resume_token"),
        ("1.00", "1", "ratio"),
        ("\tyes", "", "15 columns"),
        ("/store", "/a\n", "mountpoint"),
    ] {
        let fake = Fake::that_prints(&format!("{}\n", LINE.replacen(from, to, 1)));
        let result = fake.zfs.list(&name("tank/a"), false);
        if to == "/a\n" {
            // A line break in a mount point leaves an empty line behind.
            assert!(matches!(result, Err(ZfsError::Unreadable { .. })));
            continue;
        }
        let error = result.unwrap_err().to_string();
        assert!(error.contains(column) && error.contains("zfs list"), "{column}: {error}");
    }
}

#[test]
fn a_dataset_of_somebody_else_does_not_spoil_the_list() {
    let other = LINE.replacen("tank/a", "tank/a b", 1);
    let fake = Fake::that_prints(&format!("{LINE}\n{other}\n"));
    assert_eq!(fake.zfs.list(&name("tank"), true).unwrap().len(), 1);
}

#[test]
fn a_dataset_is_absent_when_the_list_of_all_names_says_so() {
    let script = "case \"$*\" in *'-o name') echo tank; echo tank/b; echo 'not ours %';; \
                  *) echo 'some message' >&2; exit 1;; esac";
    let fake = Fake::new(script);
    assert_eq!(fake.zfs.find_dataset(&name("tank/a")).unwrap(), None);
    // It is there, so the refusal meant something else.
    let error = fake.zfs.find_dataset(&name("tank/b")).unwrap_err();
    assert!(matches!(error, ZfsError::Failed { .. }), "{error:?}");
    let found = Fake::that_prints(LINE).zfs.find_dataset(&name("tank/a")).unwrap();
    assert_eq!(found.unwrap().name, name("tank/a"));
}

#[test]
fn a_dataset_of_a_suspended_pool_is_not_taken_for_absent() {
    let line = "tank\\t9\\t1\\t8\\t2\\t0\\t1.00\\tSUSPENDED\\t77\\toff\\t0\\t0\\n";
    let fake = Fake::new(&format!(
        "case \"${{0##*/}} $*\" in *'-o name') ;; *version) echo zfs-2.3.9-1; echo zfs-kmod-2.3.9-1;; \
         zpool*) printf '{line}';; *) echo suspended >&2; exit 1;; esac"
    ));
    let zfs = &fake.zfs;
    let error = zfs.find_dataset(&name("tank/a")).unwrap_err();
    assert!(error.to_string().contains("suspended"), "{error}");
    assert_eq!(zfs.find_dataset(&name("other/a")).unwrap(), None);
}

#[test]
fn changes_are_commands() {
    let dataset = name("tank/a");
    let command = create(&dataset, &[("recordsize", "1M"), ("quota", "10G")]);
    assert_eq!(command.to_string(), "zfs create -u -o recordsize=1M -o quota=10G tank/a");
    assert_eq!(destroy(&dataset, false).to_string(), "zfs destroy tank/a");
    assert_eq!(destroy(&dataset, true).to_string(), "zfs destroy -r tank/a");
    assert_eq!(mount(&dataset).to_string(), "zfs mount tank/a");
    assert_eq!(unmount(&dataset).to_string(), "zfs unmount tank/a");
    assert_eq!(rename(&dataset, &name("tank/b")).to_string(), "zfs rename tank/a tank/b");
}

proptest! {
    #[test]
    fn no_output_makes_a_panic(line in prop_oneof![".{0,80}", "([a-z0-9./@-]{0,6}\t){15}.{0,9}"]) {
        let _ = Dataset::parse(&line);
    }

    #[test]
    fn every_size_is_read_as_it_was_printed(used in any::<u64>(), quota in 1..u64::MAX) {
        let line = LINE.replacen("98304", &used.to_string(), 1);
        let line = line.replacen("1572864000", &quota.to_string(), 1);
        let dataset = Dataset::parse(&line).unwrap();
        prop_assert_eq!((dataset.used, dataset.quota), (used, Some(quota)));
    }
}
