use proptest::prelude::*;

use super::*;

fn entry(name: &str) -> Entry {
    Entry { time: 7, drv: None, outs: vec![format!("/nix/store/{name}")] }
}

fn spool() -> (tempfile::TempDir, Spool) {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::new(directory.path().join("spool"));
    (directory, spool)
}

/// Puts bytes where an entry of that id would be.
fn plant(spool: &Spool, name: &str, bytes: &[u8]) {
    spool.prepare().unwrap();
    std::fs::write(spool.directory().join(name), bytes).unwrap();
}

fn states(spool: &Spool) -> Vec<EntryState> {
    spool.list().unwrap().into_iter().map(|listed| listed.state).collect()
}

#[test]
fn entries_come_out_in_the_order_in_which_they_went_in() {
    let (_directory, spool) = spool();
    assert!(spool.take(10, |_| false).unwrap().is_empty());
    for name in ["a", "b", "c"] {
        spool.append(&Spool::new_id(), &entry(name)).unwrap();
    }
    let claims = spool.take(2, |_| false).unwrap();
    let outs: Vec<_> = claims.iter().map(|claim| claim.entry.clone().unwrap()).collect();
    assert_eq!(outs, [entry("a"), entry("b")]);
    assert_eq!(states(&spool), [EntryState::Taken, EntryState::Taken, EntryState::Waiting]);
    for claim in claims {
        spool.acknowledge(claim).unwrap();
    }
    assert_eq!(spool.depth().unwrap().0, 1);
}

#[test]
fn two_agents_never_have_one_entry_and_what_a_dead_one_had_is_free() {
    let (_directory, spool) = spool();
    spool.append("1", &entry("a")).unwrap();
    spool.append("2", &entry("b")).unwrap();
    let other = spool.clone();
    let first = spool.take(1, |_| false).unwrap();
    let second = other.take(10, |_| false).unwrap();
    assert_eq!((first[0].id.as_str(), second[0].id.as_str(), second.len()), ("1", "2", 1));
    assert!(other.claim("1").unwrap().is_none());
    drop(first);
    assert!(other.claim("1").unwrap().is_some());
}

#[test]
fn many_agents_at_once_push_every_entry_exactly_once() {
    let (_directory, spool) = spool();
    for number in 0..60 {
        spool.append(&format!("{number:03}"), &entry(&number.to_string())).unwrap();
    }
    let agents: Vec<_> = (0..4)
        .map(|_| {
            let spool = spool.clone();
            std::thread::spawn(move || {
                let mut done = Vec::new();
                while spool.depth().unwrap().0 > 0 {
                    for claim in spool.take(3, |_| false).unwrap() {
                        done.push(claim.id.clone());
                        spool.acknowledge(claim).unwrap();
                    }
                }
                done
            })
        })
        .collect();
    let mut done: Vec<_> = agents.into_iter().flat_map(|agent| agent.join().unwrap()).collect();
    done.sort();
    assert_eq!(done, (0..60).map(|number| format!("{number:03}")).collect::<Vec<_>>());
}

#[test]
fn a_torn_entry_is_parked_and_the_others_go_on() {
    let (_directory, spool) = spool();
    let whole = entry("a").to_text();
    plant(&spool, "1.entry", &whole.as_bytes()[..whole.len() - 3]);
    plant(&spool, "2.entry", b"");
    plant(&spool, "3.entry", &[0; 100]);
    spool.append("4", &entry("b")).unwrap();
    let mut good = Vec::new();
    for claim in spool.take(10, |_| false).unwrap() {
        match claim.entry.clone() {
            Ok(entry) => good.push(entry),
            Err(reason) => spool.park(claim, &reason).unwrap(),
        }
    }
    assert_eq!(good, [entry("b")]);
    let parked = spool.list().unwrap();
    let parked: Vec<_> = parked.iter().filter(|one| one.state != EntryState::Waiting).collect();
    assert_eq!(parked.len(), 3);
    for listed in parked {
        assert!(matches!(&listed.state, EntryState::Parked(reason) if reason.starts_with("it ")));
    }
    // Nothing was dropped: their bytes are where the listing says.
    let kept = std::fs::read(spool.directory().join("parked/3.entry")).unwrap();
    assert_eq!(kept, [0; 100]);
}

#[test]
fn an_entry_whose_writer_died_is_queued_if_it_is_whole_and_parked_if_not() {
    let (_directory, spool) = spool();
    plant(&spool, ".1.new", entry("a").to_text().as_bytes());
    plant(&spool, ".2.new", b"snowbank-spool 1\nout /nix/st");
    let now = SystemTime::now();
    assert_eq!(spool.adopt(now).unwrap(), 0, "a writer may be at it");
    assert_eq!(spool.adopt(now + ABANDONED * 2).unwrap(), 2);
    let listed = spool.list().unwrap();
    assert_eq!(listed[0].entry, Ok(entry("a")));
    assert_eq!((listed[1].id.as_str(), listed.len()), ("2", 2));
    assert!(matches!(listed[1].state, EntryState::Parked(_)));
}

#[test]
fn a_parked_entry_is_tried_again_when_somebody_says_so() {
    let (_directory, spool) = spool();
    spool.append("1", &entry("a")).unwrap();
    let claim = spool.claim("1").unwrap().unwrap();
    spool.park(claim, "two\nlines").unwrap();
    assert_eq!(states(&spool), [EntryState::Parked("two lines".into())]);
    assert_eq!(spool.depth().unwrap(), (0, 1, None));
    assert!(spool.take(1, |_| false).unwrap().is_empty());
    assert!(spool.retry("1").unwrap() && !spool.retry("1").unwrap());
    assert_eq!(states(&spool), [EntryState::Waiting]);
    let left = std::fs::read_dir(spool.directory().join("parked")).unwrap();
    assert_eq!(left.count(), 0);
}

#[test]
fn a_spool_that_cannot_be_written_is_an_error_and_leaves_nothing() {
    let (directory, spool) = spool();
    std::fs::write(directory.path().join("spool"), "a file").unwrap();
    assert!(spool.append("1", &entry("a")).is_err());
    std::fs::remove_file(directory.path().join("spool")).unwrap();
    // The name is taken by something else, so that the rename fails.
    std::fs::create_dir_all(directory.path().join("spool/1.entry/x")).unwrap();
    assert!(spool.append("1", &entry("a")).is_err());
    assert!(!directory.path().join("spool/.1.new").exists());
}

#[test]
fn the_last_error_is_kept_until_a_try_goes_well() {
    let (_directory, spool) = spool();
    spool.prepare().unwrap();
    spool.set_last_error(Some("the server\nis away")).unwrap();
    assert_eq!(spool.last_error().unwrap(), "the server is away");
    spool.set_last_error(None).unwrap();
    spool.set_last_error(None).unwrap();
    assert_eq!(spool.last_error(), None);
}

#[test]
fn a_format_of_the_future_is_named() {
    let text = entry("a").to_text().replace("spool 1", "spool 2");
    assert!(Entry::parse(text.as_bytes()).unwrap_err().contains("spool 2"));
}

#[test]
fn the_oldest_is_known_by_its_id() {
    let id = Spool::new_id();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!(time_of(&id) <= now && time_of(&id) + 5 > now);
}

proptest! {
    #[test]
    fn an_entry_reads_back_what_it_prints_and_no_beginning_of_it_does(
        time: u64,
        drv in prop::option::of("/nix/store/[a-z0-9-]{1,40}"),
        outs in prop::collection::vec("/nix/store/[a-z0-9-]{1,40}", 1..5),
        cut: prop::sample::Index,
    ) {
        let entry = Entry { time, drv, outs };
        let text = entry.to_text();
        prop_assert_eq!(Entry::parse(text.as_bytes()), Ok(entry));
        prop_assert!(Entry::parse(&text.as_bytes()[..cut.index(text.len())]).is_err());
    }

    #[test]
    fn any_bytes_are_an_entry_or_a_reason(bytes: Vec<u8>) {
        if let Err(reason) = Entry::parse(&bytes) {
            prop_assert!(!reason.is_empty());
        }
    }
}
