//! `nixos/tests/README.md`: each system has its row, and what it names is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::nix::project;

/// How many there are of each letter.
const ROWS: [(char, usize); 5] = [('N', 29), ('V', 18), ('K', 15), ('G', 7), ('P', 10)];

fn sources(directory: &Path, found: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            *found += &fs::read_to_string(&path).unwrap();
        }
    }
}

#[test]
fn each_system_has_a_row_and_each_check_that_it_names_exists() {
    let mut tests = String::new();
    sources(&project().join("tests"), &mut tests);
    let exists = |check: &str| {
        check == "real"
            || tests.contains(&format!("fn {check}()"))
            || ["", "nixos/tests/bad/", "nixos/tests/good/"]
                .iter()
                .any(|place| project().join(format!("{place}{check}")).is_file())
    };
    let table = fs::read_to_string(project().join("nixos/tests/README.md")).unwrap();
    let mut found = BTreeSet::new();
    for line in table.lines().skip_while(|line| !line.starts_with("|---")).skip(1) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [row, what, checks] = cells[..] else { panic!("{line}") };
        assert!(!what.is_empty() && found.insert(row.to_owned()), "{line}");
        if checks.starts_with("not here") {
            continue;
        }
        let named: Vec<_> = checks.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "{line}");
        for check in named {
            assert!(exists(check), "{row} names {check}, which is not there");
        }
    }
    let all: BTreeSet<_> = ROWS
        .iter()
        .flat_map(|(letter, count)| (1..=*count).map(move |number| format!("{letter}{number}")))
        .collect();
    assert_eq!(found, all);
}
