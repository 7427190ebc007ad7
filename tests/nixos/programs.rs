//! The programs of `nixos/programs`, each by itself, with stand-ins for what they call: a `gitlab-runner` that speaks to
//! a small GitLab, a `systemctl` and a `zfs` that write down what they were told.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use crate::bench::{Bench, said, wait_until};
use crate::nix::{command, project};

const TOKEN: &str = "glrt-a-token-of-the-tests";

/// What GitLab Runner does that matters here: it speaks the API of runners, keeps its configuration, and runs a job.
/// JOB is what the job is, LOG where its calls are written down.
const GITLAB_RUNNER: &str = r#"#!/usr/bin/env bash
set -eu
printf '%s\n' "$*" >>"$LOG"
api() { # METHOD PATH TOKEN
  curl --fail --silent --request "$1" --header 'Content-Type: application/json' --data "{\"token\":\"$3\"}" "$CI_SERVER_URL/api/v4/$2" >/dev/null
}
case $1 in
  register)
    token=${CI_SERVER_TOKEN:-${REGISTRATION_TOKEN:-}}
    [ "${REGISTER_NON_INTERACTIVE:-}" = true ]
    if [[ $token = glrt-* ]]; then api POST runners/verify "$token"; else api POST runners "$token"; fi
    printf '%s' "$token" >"$CONFIG_FILE" ;;
  run-single)
    [ -z "${CI_SERVER_TOKEN:-}" ]
    stopping=
    trap 'stopping=yes' QUIT
    eval "$JOB" ;;
  unregister) api DELETE runners/managers "$(cat "$CONFIG_FILE")" ;;
esac
"#;

/// The stand-ins that a runner in a machine of its own needs.
fn machine() -> Bench {
    let bench = Bench::new();
    bench.stand_in("gitlab-runner", GITLAB_RUNNER);
    bench.stand_in("systemctl", "#!/bin/sh\necho \"systemctl $*\" >>\"$LOG\"\n");
    bench
}

fn vm_runner(bench: &Bench, words: &[&str]) -> Command {
    let mut order = bench.program("vm-runner");
    order.env("JOB", "true").arg(words[0]);
    order.args(["--state", bench.file("state").to_str().unwrap()]).args(&words[1..]);
    order
}

fn info_of(bench: &Bench, text: &str) -> PathBuf {
    let file = bench.file("runner.json");
    fs::write(&file, text).unwrap();
    file
}

/// A GitLab as far as runners ask it; `status` is its answer to all of it.
struct GitLab {
    url: String,
    asked: Receiver<String>,
}

impl GitLab {
    fn answering(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (tell, asked) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(line) = answer(stream.unwrap(), status) else { continue };
                // Whoever asked may be gone with the test.
                let _ = tell.send(line);
            }
        });
        Self { url, asked }
    }

    /// All that was asked so far: method, path and body.
    fn asked(&self) -> Vec<String> {
        self.asked.try_iter().collect()
    }
}

fn answer(stream: TcpStream, status: u16) -> std::io::Result<String> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    reader.get_mut().write_all(answer.as_bytes())?;
    let asked = first.rsplit_once(' ').map_or("", |(asked, _)| asked);
    Ok(format!("{asked} {}", String::from_utf8_lossy(&body)))
}

fn ended(child: &mut Child) -> i32 {
    wait_until("the program ends", || child.try_wait().unwrap().is_some());
    child.wait().unwrap().code().unwrap()
}

#[test]
fn each_program_explains_itself_and_shellcheck_finds_nothing() {
    let mut files = Vec::new();
    for entry in fs::read_dir(project().join("nixos/programs")).unwrap() {
        let file = entry.unwrap().path();
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let bench = Bench::new();
        let output = bench.program(&name).arg("--help").output().unwrap();
        let text = said(&output);
        assert!(
            output.status.success() && text.contains(&name) && text.lines().count() > 3,
            "{text}"
        );
        let output = bench.program(&name).arg("--no-such-option").output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}: {}", said(&output));
        files.push(file);
    }
    let output = command("shellcheck").args(&files).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn a_runner_registers_takes_its_job_unregisters_and_the_machine_is_switched_off() {
    let (bench, gitlab) = (machine(), GitLab::answering(201));
    let info = info_of(
        &bench,
        &format!(r#"{{"url": "{}", "token": "{TOKEN}", "name": "vm-7"}}"#, gitlab.url),
    );
    let output = vm_runner(&bench, &["run", "--info", info.to_str().unwrap(), "--jobs", "2"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let log = bench.log();
    assert_eq!(
        log.lines().collect::<Vec<_>>(),
        ["register", "run-single --runner vm-7 --max-builds 2", "unregister --all-runners"]
    );
    let body = format!("{{\"token\":\"{TOKEN}\"}}");
    assert_eq!(
        gitlab.asked(),
        [
            format!("POST /api/v4/runners/verify {body}"),
            format!("DELETE /api/v4/runners/managers {body}")
        ]
    );
    assert!(!said(&output).contains(TOKEN) && !log.contains(TOKEN), "the token is told to nobody");
    assert!(!bench.file("state/config.toml").exists());
    let off = vm_runner(&bench, &["power-off"]).output().unwrap();
    assert!(off.status.success());
    assert!(bench.log().ends_with("systemctl poweroff --no-block\n"), "{}", bench.log());
}

#[test]
fn a_machine_that_is_to_be_kept_or_on_which_nothing_registered_stays_on() {
    let (bench, gitlab) = (machine(), GitLab::answering(201));
    let off = vm_runner(&bench, &["power-off"]).output().unwrap();
    assert!(
        off.status.success() && said(&off).contains("nothing had registered"),
        "{}",
        said(&off)
    );
    let info = info_of(&bench, &format!(r#"{{"url": "{}", "token": "{TOKEN}"}}"#, gitlab.url));
    assert!(
        vm_runner(&bench, &["run", "--info", info.to_str().unwrap()]).status().unwrap().success()
    );
    let keep = bench.file("keep-runner");
    fs::write(&keep, "").unwrap();
    let off = vm_runner(&bench, &["power-off", "--keep", keep.to_str().unwrap()]).output().unwrap();
    assert!(off.status.success() && said(&off).contains("stays on"), "{}", said(&off));
    assert!(!bench.log().contains("systemctl"), "{}", bench.log());
}

#[test]
fn what_makes_no_sense_is_told_and_registers_nothing() {
    let bench = machine();
    for (text, why) in [
        ("not JSON", "it is not JSON"),
        ("[]", "it is no object"),
        (r#"{"token": "x"}"#, "url is missing"),
        (r#"{"url": "gitlab", "token": "x"}"#, "url is missing, or no address"),
        (r#"{"url": "https://g"}"#, "token is missing"),
        (r#"{"url": "https://g", "token": "a b"}"#, "token is missing, or not one word"),
        (r#"{"url": "https://g", "token": "x", "executor": "ssh"}"#, "executor is neither"),
        (r#"{"url": "https://g", "token": "x", "executor": "docker"}"#, "image is missing"),
        (r#"{"url": "https://g", "token": "x", "tags": "a,b"}"#, "tags is no list"),
    ] {
        let info = info_of(&bench, text);
        let output =
            vm_runner(&bench, &["run", "--info", info.to_str().unwrap()]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}: {}", said(&output));
        let last = said(&output);
        assert!(last.lines().last().unwrap().contains(why), "{text}: {last}");
    }
    let env = bench.file("env");
    for (text, mode, why) in [
        ("CI_SERVER_URL=https://g\nCI_SERVER_TOKEN=x\n", 0o644, "others can read it"),
        ("REGISTRATION_TOKEN=x\n", 0o600, "REGISTRATION_TOKEN is not one of"),
        ("CI_SERVER_URL=https://g\n", 0o600, "CI_SERVER_TOKEN is missing"),
    ] {
        fs::write(&env, text).unwrap();
        fs::set_permissions(&env, fs::Permissions::from_mode(mode)).unwrap();
        let output =
            vm_runner(&bench, &["run", "--env-file", env.to_str().unwrap()]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(said(&output).contains(why), "{text}: {}", said(&output));
    }
    assert_eq!(bench.log(), "");
    assert!(!bench.file("state/registered").exists());
}

#[test]
fn what_comes_late_is_waited_for_and_what_never_comes_is_told() {
    let (bench, gitlab) = (machine(), GitLab::answering(201));
    let env = bench.file("env");
    let never =
        vm_runner(&bench, &["run", "--env-file", env.to_str().unwrap(), "--wait", "1"]).output();
    let never = never.unwrap();
    assert_eq!(never.status.code(), Some(3));
    assert!(said(&never).contains("did not come within 1 s"), "{}", said(&never));
    let words = ["run", "--env-file", env.to_str().unwrap(), "--wait", "60"];
    let mut child =
        vm_runner(&bench, &words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none(), "it waits");
    // Whole at once, as a start-up script should write it.
    let coming = bench.file("coming");
    fs::write(&coming, format!("CI_SERVER_URL={}\nCI_SERVER_TOKEN={TOKEN}\n", gitlab.url)).unwrap();
    fs::set_permissions(&coming, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(&coming, &env).unwrap();
    assert_eq!(ended(&mut child), 0);
    assert!(bench.log().contains("unregister"), "{}", bench.log());
}

#[test]
fn a_gitlab_that_refuses_or_a_job_that_fails_leaves_nothing_registered() {
    let (bench, refusing) = (machine(), GitLab::answering(403));
    let info = info_of(&bench, &format!(r#"{{"url": "{}", "token": "{TOKEN}"}}"#, refusing.url));
    let output = vm_runner(&bench, &["run", "--info", info.to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("could not register"), "{}", said(&output));
    assert!(!bench.file("state/registered").exists(), "so the machine stays on, to be looked at");
    let gitlab = GitLab::answering(201);
    let info = info_of(&bench, &format!(r#"{{"url": "{}", "token": "{TOKEN}"}}"#, gitlab.url));
    let mut order = vm_runner(&bench, &["run", "--info", info.to_str().unwrap()]);
    let output = order.env("JOB", "exit 7").output().unwrap();
    assert_eq!(output.status.code(), Some(7), "it ends as the runner did");
    assert!(gitlab.asked().iter().any(|asked| asked.starts_with("DELETE ")));
}

#[test]
fn told_to_stop_it_lets_the_job_end_and_unregisters() {
    let (bench, gitlab) = (machine(), GitLab::answering(201));
    let info = info_of(&bench, &format!(r#"{{"url": "{}", "token": "{TOKEN}"}}"#, gitlab.url));
    let job = r#"echo begun >>"$LOG"; until [ -n "$stopping" ]; do sleep 0.05; done; echo ended >>"$LOG""#;
    let mut order = vm_runner(&bench, &["run", "--info", info.to_str().unwrap()]);
    let mut child =
        order.env("JOB", job).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the job has begun", || bench.log().contains("begun"));
    let pid = child.id().to_string();
    assert!(command("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(ended(&mut child), 0);
    let log = bench.log();
    let (ended, unregistered) = (log.find("ended").unwrap(), log.find("unregister").unwrap());
    assert!(ended < unregistered, "{log}");
}

#[test]
fn an_older_token_registers_with_its_tags() {
    let (bench, gitlab) = (machine(), GitLab::answering(201));
    let json =
        format!(r#"{{"url": "{}", "token": "GR1348-old", "tags": ["nix", "kvm"]}}"#, gitlab.url);
    let info = info_of(&bench, &json);
    bench.stand_in(
        "gitlab-runner",
        &GITLAB_RUNNER
            .replace("  register)", "  register)\n    echo \"tags $RUNNER_TAG_LIST\" >>\"$LOG\""),
    );
    assert!(
        vm_runner(&bench, &["run", "--info", info.to_str().unwrap()]).status().unwrap().success()
    );
    assert!(bench.log().contains("tags nix,kvm"), "{}", bench.log());
    assert!(gitlab.asked()[0].starts_with("POST /api/v4/runners {"));
}

/// A `zfs` whose snapshots are files.
const ZFS: &str = r#"#!/usr/bin/env bash
set -eu
echo "zfs $*" >>"$LOG"
[ "${FAIL_AT:-}" != "$1" ] || exit 1
last=${!#}
file() { printf '%s/%s' "$SNAPSHOTS" "${1//\//_}"; }
case $1 in
  list) [ -e "$(file "$last")" ] ;;
  snapshot) [ ! -e "$(file "$last")" ] && : >"$(file "$last")" ;;
  destroy) rm "$(file "$last")" ;;
  rename) mv "$(file "$2")" "$(file "$3")" ;;
esac
"#;

#[test]
fn there_is_always_a_snapshot_once_there_was_one_wherever_it_is_interrupted() {
    let bench = Bench::new();
    bench.stand_in("zfs", ZFS);
    let snapshots = bench.file("snapshots");
    fs::create_dir(&snapshots).unwrap();
    let run = |fail_at: &str| {
        let mut order = bench.program("snapshot-before");
        order.arg("cache/nix").env("SNAPSHOTS", &snapshots).env("FAIL_AT", fail_at);
        order.output().unwrap()
    };
    assert_eq!(run("").status.code(), Some(1), "there is no such dataset");
    fs::write(snapshots.join("cache_nix"), "").unwrap();
    let names = |directory: &Path| {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    for fail_at in ["", "snapshot", "", "destroy", "", "rename", ""] {
        let output = run(fail_at);
        assert!(output.status.success() || !fail_at.is_empty(), "{}", said(&output));
        let kept = names(&snapshots);
        assert!(
            kept.iter().any(|name| name.starts_with("cache_nix@before-collecting")),
            "{kept:?}"
        );
    }
    assert_eq!(names(&snapshots), ["cache_nix", "cache_nix@before-collecting"]);
    for bad in ["", "-rf", "a b", "$(reboot)"] {
        let output = bench.program("snapshot-before").arg(bad).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{bad}: {}", said(&output));
    }
}
