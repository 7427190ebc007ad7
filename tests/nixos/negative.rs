//! Configurations that cannot work: each is refused, and the message says what to change.

use std::fs;

use crate::nix::{evaluate, project};

/// Each file of `nixos/tests/bad` is a module; its first lines, `# refused: …`, are what the message must contain.
#[test]
fn what_cannot_work_is_refused_with_what_to_change() {
    let directory = project().join("nixos/tests/bad");
    let mut count = 0;
    for entry in fs::read_dir(&directory).unwrap() {
        let file = entry.unwrap().path();
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&file).unwrap();
        let expected: Vec<&str> =
            text.lines().map_while(|line| line.strip_prefix("# refused: ")).collect();
        assert!(!expected.is_empty(), "{name} does not say what is expected of it");
        let output = evaluate(
            &["nixos/tests/one.nix", "--arg", "file", &format!("./nixos/tests/bad/{name}")],
            &project(),
        );
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{name} was taken");
        for part in expected {
            assert!(said.contains(part), "{name}: {part:?} is not in\n{said}");
        }
        count += 1;
    }
    assert!(count >= 20, "{count}");
}

/// Each file of `nixos/tests/good` is a module that can be built, and asserts itself what it must make.
#[test]
fn what_works_is_taken() {
    let mut count = 0;
    for entry in fs::read_dir(project().join("nixos/tests/good")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let file = format!("./nixos/tests/good/{name}");
        let output = evaluate(&["nixos/tests/one.nix", "--arg", "file", &file], &project());
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        count += 1;
    }
    assert!(count >= 8, "{count}");
}
