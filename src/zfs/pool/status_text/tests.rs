use proptest::prelude::*;

use super::*;

fn read(text: &str, pool: &str) -> PoolStatus {
    parse(text, &PoolName::parse(pool).unwrap()).unwrap()
}

#[test]
fn a_healthy_pool_has_its_devices_and_no_errors() {
    for text in [
        include_str!("../../samples/2.1.11/zpool_status_p.out"),
        include_str!("../../samples/2.3.9/zpool_status_p.out"),
    ] {
        let status = read(text, "tank");
        assert_eq!((status.health, status.scan.is_none()), (Health::Online, true));
        assert_eq!((status.error_count, status.message_id), (Some(0), None));
        let names: Vec<_> =
            status.vdevs.iter().map(|vdev| (vdev.depth, vdev.name.as_str())).collect();
        assert_eq!(names, [(0, "tank"), (1, "mirror-0"), (2, "/dev/vdb1"), (2, "/dev/vdc1")]);
    }
}

#[test]
fn repaired_blocks_are_told_though_the_pool_is_online() {
    let status = read(include_str!("../../samples/2.1.11/status_x_after_corrupt.out"), "tank");
    assert_eq!((status.health, status.errors()), (Health::Online, (0, 0, 410)));
    assert_eq!(status.message_id.as_deref(), Some("ZFS-8000-9P"));
    assert_eq!(
        status.message.as_deref(),
        Some(
            "One or more devices has experienced an unrecoverable error. An attempt was made to \
             correct the error. Applications are unaffected."
        )
    );
    let scan = status.scan.unwrap();
    assert_eq!((scan.kind, scan.state, scan.errors), (ScanKind::Scrub, ScanState::Finished, 0));
    // Sat Nov 21 08:28:16 2026
    assert_eq!((scan.start, scan.end), (None, Some(1_795_249_696)));
}

#[test]
fn lost_files_are_named() {
    for (text, checksums) in [
        (include_str!("../../samples/2.1.11/data_err_scrub.out"), 4),
        (include_str!("../../samples/2.3.9/data_err_scrub.out"), 6),
    ] {
        let status = read(text, "solo");
        assert_eq!((status.health, status.error_count), (Health::Online, Some(1)));
        assert_eq!(status.damaged_files, ["/solo/victim"]);
        assert_eq!(status.errors(), (0, 0, checksums));
        assert_eq!(status.scan.unwrap().errors, 1);
    }
}

#[test]
fn a_degraded_pool_says_which_device_is_away() {
    let status = read(include_str!("../../samples/2.1.11/degraded_x.out"), "tank");
    assert_eq!(status.health, Health::Degraded);
    assert_eq!(status.message_id, None);
    let away = status.vdevs.iter().find(|vdev| vdev.health == Health::Offline).unwrap();
    assert_eq!((away.depth, away.name.as_str()), (2, "vdc"));
    let text = include_str!("../../samples/2.1.11/offline_f.out");
    let first = text.split("  pool: ").nth(1).unwrap();
    let status = read(&format!("  pool: {first}"), "tank");
    assert!(status.vdevs.iter().any(|vdev| vdev.health == Health::Faulted && vdev.name == "vdd"));
    assert_eq!(status.scan.unwrap().kind, ScanKind::Resilver);
}

fn with(scan: &str, config: &str, errors: &str) -> String {
    format!("  pool: tank\n state: ONLINE\n  scan: {scan}\nconfig:\n\n{config}\n{errors}")
}

#[test]
fn a_scan_that_runs_tells_how_far_it_is() {
    let scan = |text: &str| read(&with(text, "", ""), "tank").scan;
    let running = "scrub in progress since Sat Nov 21 08:19:09 2026\n\
                   \t343M scanned at 114M/s, 6.79M issued at 2.26M/s, 243M total\n\
                   \t0B repaired, 2.79% done, 00:01:44 to go";
    let found = scan(running).unwrap();
    assert_eq!((found.kind, found.state), (ScanKind::Scrub, ScanState::Running));
    assert_eq!((found.start, found.end), (Some(1_795_249_149), None));
    assert_eq!((found.examined, found.to_examine), (size("6.79M"), size("243M")));
    let newer = "resilver in progress since Sat Nov 21 08:19:09 2026\n\
                 \t343M / 400M scanned at 114M/s, 6.79M / 243M issued at 2.26M/s";
    let found = scan(newer).unwrap();
    assert_eq!((found.kind, found.examined), (ScanKind::Resilver, size("6.79M")));
    assert_eq!(found.to_examine, size("243M"));
    let paused = "scrub paused since Sat Nov  7 08:19:09 2026\n\tscrub started on Fri Nov 6";
    assert_eq!(scan(paused).unwrap().state, ScanState::Paused);
    let cancelled = scan("scrub canceled on Sat Nov  7 08:19:09 2026").unwrap();
    assert_eq!((cancelled.state, cancelled.end), (ScanState::Cancelled, Some(1_794_039_549)));
    let long =
        scan("scrub repaired 0B in 1 days 02:00:00 with 7 errors on Sat Nov 21 08:28:16 2026");
    assert_eq!(long.unwrap().errors, 7);
    assert_eq!((scan("none requested"), scan("")), (None, None));
}

#[test]
fn spares_logs_and_names_with_blanks_are_read() {
    let table = "\tNAME             STATE     READ WRITE CKSUM\n\
                 \ttank             ONLINE       0     0     0\n\
                 \t  /a file 1      DEGRADED     1     2 18446744073709551615  was /dev/x 1 2 3\n\
                 \tlogs\t\n\
                 \t  /dev/l         ONLINE       0     0     0\n\
                 \tspares\n\
                 \t  /dev/s         AVAIL   \n\
                 \t  /dev/t         INUSE     currently in use\n";
    let status = read(&with("none requested", table, "errors: No known data errors\n"), "tank");
    let seen: Vec<_> = status.vdevs.iter().map(|vdev| (vdev.name.as_str(), vdev.health)).collect();
    assert_eq!(
        seen,
        [
            ("tank", Health::Online),
            ("/a file 1", Health::Degraded),
            ("/dev/l", Health::Online),
            ("/dev/s", Health::Spare),
            ("/dev/t", Health::SpareInUse),
        ]
    );
    assert_eq!(status.errors(), (1, 2, u64::MAX));
}

#[test]
fn how_many_errors_there_are_may_be_all_that_is_told() {
    let count = |errors: &str| read(&with("none requested", "", errors), "tank").error_count;
    assert_eq!(count("errors: 12 data errors, use '-v' for a list\n"), Some(12));
    assert_eq!(count("errors: List of errors unavailable: permission denied\n"), None);
    assert_eq!(count(""), None);
    let listed = "errors: Permanent errors have been detected in the following files:\n\n\
                  \x20       /tank/see: a file\n        tank/x:<0x80>\n";
    let status = read(&with("", "", listed), "tank");
    assert_eq!(status.damaged_files, ["/tank/see: a file", "tank/x:<0x80>"]);
    assert_eq!(status.error_count, Some(2));
}

#[test]
fn what_is_not_a_status_is_an_error() {
    let tank = PoolName::parse("tank").unwrap();
    let odd = with("", "\tNAME STATE READ WRITE CKSUM\n\ttank ONLINE x y z\n", "");
    let stray = with("", "\tnothing\n", "");
    for text in ["", "all pools are healthy", "  pool: other\n state: ONLINE\n", &odd, &stray] {
        assert!(parse(text, &tank).is_err(), "{text:?}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_a_panic(text in prop_oneof![".{0,80}", "( pool: tank\n)(config|scan|errors|see): [\ta-zA-Z0-9 ./\n]{0,80}"]) {
        let _ = parse(&text, &PoolName::parse("tank").unwrap());
    }
}
