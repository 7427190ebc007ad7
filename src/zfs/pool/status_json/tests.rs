use proptest::prelude::*;

use super::*;

fn read(text: &str, pool: &str) -> PoolStatus {
    parse(text, &PoolName::parse(pool).unwrap()).unwrap()
}

#[test]
fn a_healthy_pool_has_its_devices_and_no_errors() {
    let status = read(include_str!("../../samples/2.3.9/zpool_status_jp.out"), "tank");
    assert_eq!((status.health, status.scan.is_none()), (Health::Online, true));
    assert_eq!((status.error_count, status.message_id.as_deref()), (Some(0), None));
    assert!(
        status.vdevs.iter().any(|vdev| vdev.name == "/dev/vdb1" && vdev.health == Health::Online)
    );
}

#[test]
fn repaired_blocks_are_told_though_the_pool_is_online() {
    let status = read(include_str!("../../samples/2.3.9/status_after_corrupt_j.out"), "tank");
    assert_eq!(status.health, Health::Online);
    assert_eq!(status.message_id.as_deref(), Some("ZFS-8000-9P"));
    assert!(
        status.message.as_deref().unwrap().starts_with("One or more devices has experienced an")
    );
    let names: Vec<_> = status.vdevs.iter().map(|vdev| (vdev.depth, vdev.name.as_str())).collect();
    assert_eq!(names, [(0, "tank"), (1, "mirror-0"), (2, "vdb"), (2, "vdc")]);
    assert_eq!(status.vdevs[3].checksum_errors, 318);
    assert_eq!(status.errors(), (0, 0, 318));
    let scan = status.scan.unwrap();
    assert_eq!((scan.kind, scan.state), (ScanKind::Scrub, ScanState::Finished));
    assert_eq!((scan.start, scan.end), (Some(1_795_249_165), Some(1_795_249_168)));
    assert_eq!((scan.examined, scan.to_examine), (Some(253_865_984), Some(254_177_280)));
}

#[test]
fn lost_files_are_named() {
    let status = read(include_str!("../../samples/2.3.9/data_err_j.out"), "solo");
    assert_eq!((status.health, status.error_count), (Health::Online, Some(1)));
    assert_eq!(status.damaged_files, ["/solo/victim"]);
    assert_eq!(status.message_id.as_deref(), Some("ZFS-8000-8A"));
    assert_eq!(status.scan.unwrap().errors, 1);
}

#[test]
fn a_suspended_pool_has_a_reason_in_place_of_the_list_of_files() {
    let status = read(include_str!("../../samples/2.3.9/suspended_j.out"), "a");
    assert_eq!((status.health, status.error_count), (Health::Suspended, Some(11)));
    assert!(status.damaged_files.is_empty());
    assert_eq!(status.errors(), (0, 60_972, 0));
    assert!(status.vdevs.iter().all(|vdev| vdev.health == Health::Unavailable), "{status:?}");
}

#[test]
fn a_degraded_pool_says_which_device_is_away() {
    let status = read(include_str!("../../samples/2.3.9/degraded_j.out"), "tank");
    assert_eq!(status.health, Health::Degraded);
    let away = status.vdevs.iter().find(|vdev| vdev.health == Health::Offline).unwrap();
    assert_eq!(away.name, "vdc");
}

#[test]
fn numbers_written_for_people_are_passed_over() {
    let status = read(include_str!("../../samples/2.3.9/replace_j.out"), "tank");
    let scan = status.scan.unwrap();
    assert_eq!((scan.kind, scan.state, scan.errors), (ScanKind::Resilver, ScanState::Finished, 0));
    assert_eq!((scan.end, scan.examined), (None, None));
}

#[test]
fn the_largest_counters_are_read() {
    let text = r#"{"pools":{"tank":{"state":"SUSPENDED","error_count":18446744073709551615,"vdevs":
        {"tank":{"name":"tank","state":"FAULTED","read_errors":18446744073709551615,"vdevs":
        {"a":{"name":"a","state":"NEW","read_errors":2}}}},
        "spares":{"s":{"name":"s","state":"AVAIL"}}}}}"#;
    let status = read(text, "tank");
    assert_eq!((status.health, status.error_count), (Health::Suspended, Some(u64::MAX)));
    assert_eq!(status.errors().0, u64::MAX);
    let states: Vec<_> = status.vdevs.iter().map(|vdev| vdev.health).collect();
    assert_eq!(states, [Health::Faulted, Health::Unknown, Health::Spare]);
}

#[test]
fn what_is_not_a_status_is_an_error() {
    let tank = PoolName::parse("tank").unwrap();
    for text in
        ["", "{}", "[]", "{\"pools\":{}}", "{\"pools\":{\"tank\":{}}}", "{\"pools\":{\"tank\":"]
    {
        assert!(parse(text, &tank).is_err(), "{text:?}");
    }
    let deep = |levels: usize| {
        let open = r#"{"name":"a","state":"ONLINE","vdevs":{"a":"#.repeat(levels);
        let close = "}}".repeat(levels);
        let leaf = r#"{"name":"a","state":"ONLINE"}"#;
        format!(
            r#"{{"pools":{{"tank":{{"state":"ONLINE","vdevs":{{"a":{open}{leaf}{close}}}}}}}}}"#
        )
    };
    assert!(parse(&deep(5), &tank).is_ok());
    assert!(parse(&deep(20), &tank).is_err());
    assert!(parse(&deep(5000), &tank).is_err());
}

proptest! {
    #[test]
    fn no_text_makes_a_panic(text in prop_oneof![".{0,80}", "[{}\":,a-z0-9\\[\\]]{0,80}"]) {
        let _ = parse(&text, &PoolName::parse("tank").unwrap());
    }
}
