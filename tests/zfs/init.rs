//! `snowbank zfs init`: datasets, rights, and banks that were there before.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use crate::commands::{Place, SERVICE, SERVICE_ID, as_service, property};
use crate::e2e::made::closure;
use crate::e2e::pushed::{Pusher, check};
use crate::e2e::server::Setup;
use crate::support::{Disk, Pool, run};

const TWO: &str = "[cache.default]\nmax_size = \"1G\"\n[cache.team]\n";

/// Every dataset of a pool with all that was set on it.
fn everything(pool: &Pool) -> String {
    run("zfs", ["get", "-rHp", "-s", "local", "-o", "name,property,value", "all", pool.name()])
}

#[test]
fn everything_is_made_once_and_a_second_time_there_is_nothing_to_do() {
    let pool = Pool::on([Disk::take()]);
    let place = Place::new(TWO);
    let parent = format!("{}/snowbank", pool.name());
    let init = ["zfs", "init", pool.name(), "--user", SERVICE];

    let before = everything(&pool);
    let planned = place.root(&[&init[..], &["--dry-run"]].concat()).expect(0);
    assert_eq!(everything(&pool), before, "a dry run changes nothing");
    assert!(!place.data().exists());

    let done = place.root(&init).expect(0);
    assert_eq!(planned, done, "what is printed is what is run");
    assert!(done.contains(&format!("[zfs]\ndataset = \"{parent}\"")), "{done}");
    for (dataset, record) in [("default", "1048576"), ("team", "1048576"), ("state", "16384")] {
        let name = format!("{parent}/{dataset}");
        assert_eq!(property(&name, "recordsize"), record);
        assert_eq!(property(&name, "compression"), "zstd");
        assert_eq!(property(&name, "mounted"), "yes");
        let mounted = place.data().join(dataset);
        assert_eq!(property(&name, "mountpoint"), mounted.to_str().unwrap());
        assert_eq!(fs::metadata(&mounted).unwrap().uid(), SERVICE_ID);
    }
    assert_eq!(property(&format!("{parent}/default"), "quota"), (1 << 30).to_string());
    assert_eq!(property(&parent, "canmount"), "off");

    place.configure(&format!("[zfs]\ndataset = \"{parent}\"\n{TWO}"));
    let again = place.root(&init).expect(0);
    assert_eq!(
        again,
        format!("nothing to do: {parent} has all that 2 caches and the state need\n")
    );
    // Without root as well: there is nothing that would take it.
    assert_eq!(place.service(&["zfs", "init", "--user", SERVICE]).expect(0), again);
}

#[test]
fn what_drifted_is_set_and_a_new_cache_is_added() {
    let pool = Pool::on([Disk::take()]);
    let place = Place::new(TWO);
    place.init(&pool);
    let dataset = format!("{}/snowbank/default", pool.name());
    run("zfs", ["set", "recordsize=128K", "compression=off", "quota=2G", &dataset]);
    run("zfs", ["unmount", &format!("{}/snowbank/team", pool.name())]);
    run("zfs", ["unallow", "-u", SERVICE, "hold", &format!("{}/snowbank", pool.name())]);
    place.configure(&format!("{TWO}[cache.docs]\nmax_size = \"10M\"\n"));
    let done = place.root(&["zfs", "init", pool.name()]).expect(0);
    let steps: Vec<_> = done.lines().take_while(|line| !line.is_empty()).collect();
    let pool = pool.name();
    let data = place.data().display().to_string();
    assert_eq!(
        steps,
        [
            format!("zfs allow -u {SERVICE} hold {pool}/snowbank"),
            format!(
                "zfs set compression=zstd recordsize=1M quota=1073741824 {pool}/snowbank/default"
            ),
            format!(
                "zfs create -u -o recordsize=1M -o mountpoint={data}/docs -o quota=10485760 \
                 {pool}/snowbank/docs"
            ),
            format!("zfs mount {pool}/snowbank/docs"),
            format!("chown 1000:1000 {data}/docs"),
            format!("zfs mount {pool}/snowbank/team"),
            format!("chown 1000:1000 {data}/team"),
        ]
    );
    let quota = as_service("/bin/sh".as_ref())
        .args(["-c", &format!("head -c 20000000 /dev/urandom > {data}/docs/file")])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&quota.stderr).into_owned();
    assert!(said.contains("quota"), "the quota is that of ZFS: {said}");
}

#[test]
fn a_bank_that_was_a_directory_is_refused_and_moves_when_it_is_asked_to() {
    let pool = Pool::on([Disk::take()]);
    let place = Place::new("[cache.default]\npush = \"open\"\n");
    let setup = || Setup::on(&place.data()).argument("--config").argument(place.config());
    let server = setup().start();
    let paths = closure(1);
    let mut pusher = Pusher::to(server.address()).unwrap();
    pusher.stock_closure(&paths).unwrap();
    server.stop();

    let refused = place.root(&["zfs", "init", pool.name(), "--user", "root"]).refusal();
    assert!(refused.contains("--adopt") && refused.contains("holds files"), "{refused}");
    assert_eq!(
        run("zfs", ["list", "-H", "-o", "name", "-r", pool.name()]),
        format!("{}\n", pool.name())
    );

    let adopt = ["zfs", "init", pool.name(), "--user", "root", "--adopt"];
    place.root(&adopt).expect(0);
    let parent = format!("{}/snowbank", pool.name());
    assert_eq!(
        property(&format!("{parent}/default"), "mountpoint"),
        place.bank("default").to_str().unwrap()
    );
    assert_eq!(property(&format!("{parent}/default"), "snowbank:adopting"), "-");
    assert!(place.data().join("default.before-zfs/nix-cache-info").exists());
    assert!(!place.data().join("default.adopting").exists());
    place.configure(&format!("[zfs]\ndataset = \"{parent}\"\n[cache.default]\npush = \"open\"\n"));
    assert!(place.root(&adopt).expect(0).starts_with("nothing to do"));

    let server = setup().start();
    check(&server, &place.bank("default"), &pusher.acknowledged);
}

#[test]
fn an_adoption_goes_on_wherever_it_was_killed() {
    let pool = Pool::on([Disk::take()]);
    let parent = format!("{}/snowbank", pool.name());
    let dataset = format!("{parent}/default");
    let place = Place::new("[cache.default]\n");
    let bank = place.bank("default");
    let names = ["nix-cache-info", "nar/a.nar.zst", "nar/b.nar.zst"];
    fs::create_dir_all(bank.join("nar")).unwrap();
    for name in names {
        fs::write(bank.join(name), name.repeat(100_000)).unwrap();
    }
    let adopt = ["zfs", "init", pool.name(), "--user", "root", "--adopt"];
    let planned = place.root(&[&adopt[..], &["--dry-run"]].concat()).expect(0);
    let planned: Vec<_> = planned.lines().take_while(|line| !line.is_empty()).collect();
    let steps: Vec<_> = planned.iter().map(ToString::to_string).collect();
    let first = steps.iter().position(|step| step.contains("snowbank:adopting")).unwrap();

    // Whoever does by hand what was planned, to some point, is where a kill would have left it. That a plan is made at
    // every point is shown without a pool (`src/zfs/layout/tests.rs`).
    let after = |words: &str| steps.iter().position(|step| step.starts_with(words)).unwrap() + 1;
    for end in [first + 1, after("mv "), after("zfs set mountpoint"), steps.len()] {
        let _ = crate::support::command("zfs").args(["destroy", "-r", &parent]).output();
        for directory in ["default", "default.before-zfs", "default.adopting", "state"] {
            let _ = fs::remove_dir_all(place.data().join(directory));
        }
        fs::create_dir_all(bank.join("nar")).unwrap();
        for name in names {
            fs::write(bank.join(name), name.repeat(100_000)).unwrap();
        }
        for step in &steps[..end] {
            run("/bin/sh", ["-c", step]);
        }
        let done = place.root(&adopt).expect(0);
        assert!(done.lines().count() <= steps.len() + 8, "after {end}: {done}");
        assert_eq!(property(&dataset, "mounted"), "yes", "after {end}");
        assert_eq!(property(&dataset, "mountpoint"), bank.to_str().unwrap());
        for name in names {
            assert_eq!(
                fs::read_to_string(bank.join(name)).unwrap(),
                name.repeat(100_000),
                "after {end}"
            );
        }
        let again = place.root(&adopt).expect(0);
        assert!(again.starts_with("nothing to do"), "after {end}: {again}");
    }
}

#[test]
fn files_under_a_mount_that_is_away_are_never_hidden() {
    let pool = Pool::on([Disk::take()]);
    let place = Place::new(TWO);
    place.init(&pool);
    run("zfs", ["unmount", &format!("{}/snowbank/team", pool.name())]);
    fs::write(place.bank("team").join("stray"), "").unwrap();
    let refused = place.root(&["zfs", "init", pool.name()]).refusal();
    assert!(refused.contains("nothing is merged"), "{refused}");
    assert!(place.bank("team").join("stray").exists());
}

#[test]
fn what_cannot_be_is_told_with_what_to_do() {
    let pool = Pool::on([Disk::take()]);
    let place = Place::new(TWO);
    let refused = place.root(&["zfs", "init", "nopool"]).refusal();
    assert!(refused.contains("there is no dataset nopool"), "{refused}");
    let refused = place.service(&["zfs", "init", pool.name()]).refusal();
    assert!(refused.contains("takes root"), "{refused}");
    assert_eq!(place.root(&["zfs", "init", pool.name(), "--user", "nobody-here"]).code, Some(2));
    for name in ["-r", "a b", "$(x)", "@", "%", &"x".repeat(300), "tank/../x"] {
        let said = place.root(&["zfs", "init", name]);
        assert_eq!(said.code, Some(2), "{name}: {said:?}");
    }
    fs::write(format!("{}/file", pool.path().display()), "").unwrap();
    let refused = place.root(&["zfs", "init", &format!("{}/a/b", pool.name())]).refusal();
    assert!(refused.contains(&format!("zfs create {}/a", pool.name())), "{refused}");
}

#[test]
fn status_shows_each_cache_and_sets_what_drifted_when_asked() {
    let pool = Pool::on([Disk::take()]);
    let place = Place::new(TWO);
    place.init(&pool);
    let parent = format!("{}/snowbank", pool.name());
    place.configure(&format!("[zfs]\ndataset = \"{parent}\"\n{TWO}"));
    place.service(&["zfs", "snapshot", "default"]).expect(0);
    run("zfs", ["set", "recordsize=128K", "quota=2G", &format!("{parent}/default")]);
    run("zfs", ["set", "logbias=throughput", &format!("{parent}/state")]);

    let status = place.service(&["zfs", "status", "--json"]).json();
    let cache = &status["caches"][0];
    assert_eq!((&cache["cache"], &cache["snapshots"]), (&"default".into(), &1.into()), "{status}");
    assert_eq!(cache["quota_bytes"], 2_u64 << 30);
    assert_eq!(cache["pool"]["health"], "ONLINE");
    assert_eq!(cache["pool"]["scrub_age_seconds"], serde_json::Value::Null);
    let drifts = status["drifts"].as_array().unwrap();
    let drifted: Vec<_> = drifts.iter().map(|drift| drift["property"].as_str().unwrap()).collect();
    assert_eq!(drifted, ["recordsize", "quota", "logbias"]);
    let table = place.service(&["zfs", "status"]).expect(0);
    assert!(table.contains("recordsize=131072 and not 1M"), "{table}");

    let fixed = place.root(&["zfs", "status", "--fix"]).expect(0);
    assert!(!fixed.contains("and not"), "{fixed}");
    assert_eq!(property(&format!("{parent}/default"), "recordsize"), "1048576");
    assert_eq!(property(&format!("{parent}/default"), "quota"), (1 << 30).to_string());

    let elsewhere = Place::new(TWO);
    let refused = elsewhere.root(&["zfs", "status"]).refusal();
    assert!(refused.contains("snowbank zfs init"), "{refused}");
}

#[test]
fn the_doctor_finds_nothing_after_an_init_and_names_what_is_broken() {
    let pool = Pool::on([Disk::take()]);
    let place = Place::new(TWO);
    place.init(&pool);
    let parent = format!("{}/snowbank", pool.name());
    place.configure(&format!("[zfs]\ndataset = \"{parent}\"\n{TWO}"));
    place.serve().stop();
    let well = place.service(&["doctor"]).expect(0);
    assert!(!well.contains("problem"), "{well}");
    assert!(
        well.contains(&format!("ok      {SERVICE} may manage what is below {parent}")),
        "{well}"
    );
    assert!(well.contains("was never scrubbed"), "{well}");

    run("zfs", ["unmount", &format!("{parent}/team")]);
    run("zfs", ["set", "recordsize=128K", &format!("{parent}/default")]);
    run("zfs", ["unallow", "-u", SERVICE, "hold", &parent]);
    let said = place.service(&["doctor", "--json"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let found: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let is = |verdict: &str, words: &str| {
        let mut findings = found.as_array().unwrap().iter();
        findings.any(|finding| {
            finding["verdict"] == verdict && finding["what"].as_str().unwrap().contains(words)
        })
    };
    assert!(is("problem", &format!("{parent}/team is not mounted")), "{found}");
    assert!(is("warning", "recordsize=131072"), "{found}");
    assert!(is("warning", "may not hold"), "{found}");
}
