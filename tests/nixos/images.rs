//! The programs that bring images to clouds, with stand-ins for the clouds' own: each failure at each step leaves
//! nothing behind, and what was done is not done again.

use std::fs;
use std::process::Output;

use crate::bench::{Bench, said};

/// An EC2: images by name and uploads are files. FAIL is the first words of what fails, STATES what an import says of
/// itself, one after the other.
const AWS: &str = r#"#!/usr/bin/env bash
set -eu
printf 'aws %s\n' "$*" >>"$LOG"
[ -z "${FAIL:-}" ] || [[ "$*" != "$FAIL"* ]] || { echo "aws: denied" >&2; exit 254; }
case "$1 $2" in
  "ec2 describe-images") cat "$CLOUD/image" 2>/dev/null || echo None ;;
  "s3 cp") : >"$CLOUD/upload" ;;
  "s3 rm") rm "$CLOUD/upload" ;;
  "ec2 import-snapshot") echo import-snap-1 ;;
  "ec2 describe-import-snapshot-tasks")
    state=$(head -1 "$CLOUD/states"); sed -i '1{$!d}' "$CLOUD/states"
    printf '{"ImportSnapshotTasks":[{"SnapshotTaskDetail":{"Status":"%s","StatusMessage":"no disk","SnapshotId":"snap-1"}}]}' "$state" ;;
  "ec2 register-image") echo ami-1 | tee "$CLOUD/image" ;;
  "ec2 delete-snapshot") echo deleted >"$CLOUD/deleted" ;;
esac
"#;

struct Ec2(Bench);

impl Ec2 {
    fn new(states: &str) -> Self {
        let bench = Bench::new();
        bench.stand_in("aws", AWS);
        fs::write(bench.file("states"), states).unwrap();
        fs::write(bench.file("disk.vhd"), "a disk").unwrap();
        Self(bench)
    }

    fn register(&self, fail: &str, more: &[&str]) -> Output {
        let mut order = self.0.program("register-ami");
        let image = self.0.file("disk.vhd");
        order.args(["--image", image.to_str().unwrap(), "--bucket", "b", "--name", "nixos-1"]);
        order.args(more).env("CLOUD", self.0.own.path()).env("FAIL", fail);
        order.env("REGISTER_AMI_PAUSE", "0").output().unwrap()
    }
}

#[test]
fn an_ami_is_registered_once_and_its_upload_is_removed() {
    let ec2 = Ec2::new("active\nactive\ncompleted\n");
    let output = ec2.register("", &["--arch", "arm64"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "ami-1\n");
    assert!(!ec2.0.file("upload").exists());
    let log = ec2.0.log();
    assert!(log.contains("--architecture arm64") && log.contains("--boot-mode uefi "), "{log}");
    let lines = log.lines().count();
    let again = ec2.register("", &[]);
    assert_eq!(String::from_utf8_lossy(&again.stdout), "ami-1\n");
    assert_eq!(ec2.0.log().lines().count(), lines + 1, "it only looked: {}", ec2.0.log());
}

#[test]
fn wherever_it_fails_nothing_is_left_in_the_cloud() {
    for (fail, states, code) in [
        ("ec2 describe-images", "completed\n", 254),
        ("s3 cp", "completed\n", 254),
        ("ec2 import-snapshot", "completed\n", 254),
        ("ec2 describe-import", "completed\n", 254),
        ("", "active\nerror\n", 1),
        ("ec2 register-image", "completed\n", 1),
    ] {
        let ec2 = Ec2::new(states);
        let output = ec2.register(fail, &[]);
        assert_eq!(output.status.code(), Some(code), "{fail}: {}", said(&output));
        assert!(!ec2.0.file("upload").exists(), "{fail}: the upload is there yet");
        assert_eq!(ec2.0.file("deleted").exists(), fail == "ec2 register-image", "{fail}");
        assert!(output.stdout.is_empty(), "{fail}: {}", said(&output));
    }
    // One that never ends is waited for so long and no longer.
    let ec2 = Ec2::new("active\n");
    let output = ec2.register("", &["--timeout", "1"]);
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(!ec2.0.file("upload").exists());
}

#[test]
fn what_makes_no_sense_is_told_before_anything_is_uploaded() {
    let ec2 = Ec2::new("completed\n");
    for words in [
        &["--arch", "riscv"][..],
        &["--arch"],
        &["--timeout", "soon"],
        &["--name", "x"],
        &["--image", "/nonexistent.vhd"],
        &["--image", "/etc/hostname"],
        &["--frobnicate"],
    ] {
        let output = ec2.register("", words);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {}", said(&output));
    }
    let dry = ec2.register("", &["--dry-run"]);
    assert!(dry.status.success() && said(&dry).contains("import-snapshot"), "{}", said(&dry));
    assert_eq!(ec2.0.log(), "");
}

/// A GCE of the same kind.
const GCLOUD: &str = r#"#!/usr/bin/env bash
set -eu
printf 'gcloud %s\n' "$*" >>"$LOG"
[ -z "${FAIL:-}" ] || [[ "$*" != "$FAIL"* ]] || { echo "gcloud: denied" >&2; exit 1; }
case "$1 $2 $3" in
  "compute images describe") cat "$CLOUD/image" ;;
  "compute images create") echo "$4" >"$CLOUD/image" ;;
  "storage cp "*) : >"$CLOUD/upload" ;;
  "storage rm "*) rm "$CLOUD/upload" ;;
esac
"#;

#[test]
fn an_image_of_gce_is_made_once_under_a_name_that_gce_takes() {
    let bench = Bench::new();
    bench.stand_in("gcloud", GCLOUD);
    let image = bench.file("nixos.raw.tar.gz");
    fs::write(&image, "an image").unwrap();
    let upload = |fail: &str, words: &[&str]| {
        let mut order = bench.program("upload-gce-image");
        order.args(["--image", image.to_str().unwrap(), "--bucket", "b", "--family", "runner"]);
        order.args(words).env("CLOUD", bench.own.path()).env("FAIL", fail).output().unwrap()
    };
    for fail in ["storage cp", "compute images create"] {
        assert!(!upload(fail, &[]).status.success());
        assert!(!bench.file("upload").exists() && !bench.file("image").exists(), "{fail}");
    }
    let output = upload("", &["--project", "p"]);
    let name = String::from_utf8(output.stdout.clone()).unwrap().trim().to_owned();
    assert!(output.status.success(), "{}", said(&output));
    assert!(name.starts_with("runner-") && name.len() == "runner-".len() + 10, "{name}");
    assert!(
        bench.log().contains("GVNIC") && bench.log().contains("--project p"),
        "{}",
        bench.log()
    );
    let lines = bench.log().lines().count();
    assert_eq!(upload("", &[]).stdout, output.stdout);
    assert_eq!(bench.log().lines().count(), lines + 1, "it only looked");
    for family in ["Runner", "1x", &"a".repeat(60), "a_b", "a-"] {
        let refused = upload("", &["--family", family]);
        assert_eq!(refused.status.code(), Some(2), "{family}: {}", said(&refused));
    }
}
