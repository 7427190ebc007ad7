//! The load client of `bench/run`: makes the data, asks the servers, and writes the report. Each subcommand does one
//! thing and prints one line, so that the script reads as the list of what is measured.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a measurement that cannot go on has failed, and there is nobody to tell but its reader"
)]

mod bank;
mod client;
mod data;
mod process;
mod report;

use std::{env, fs, net::TcpListener, path::Path};

const USAGE: &str =
    "load data DIR [little]                the trees that the store paths are made of
load push-data DIR [little]           the trees of the closure that is pushed
load bank DIR HASHES COUNT [FIRST]    a cache of so many small paths, half of them old; lists the others
load ports COUNT                      free ports on loopback
load urls BASE HASHES                 the NAR URL of each path, from its narinfo
load wait-baked BASE HASHES           until every narinfo says zstd
load latency BASE HASHES COUNT        microseconds of one narinfo, one after the other: median
load spread BASE HASHES COUNT         microseconds of narinfos taken here and there, a thousand a second, each once:
                                      median, 99th of 100, how many were there, and how many were asked for
load spread-until FILE BASE HASHES FIRST   the same, until FILE is there, after the first so many
load nars BASE URLS CONNECTIONS [TIMES]   seconds and bytes of fetching all
load range BASE URL                   milliseconds of 64 KiB at the start and at the end: medians
load cpu PID                          CPU seconds of a process and its children so far
load memory PID                       resident KiB of a process and its children now
load memory-under PID BASE URL CONNECTIONS   the most that is while so many fetch URL
load most-memory PID FILE              the most that is until FILE is there
load text BASE PATH                   what is there
load lua HASHES hits|misses           a wrk script
load report TSV DIR                   the table; JSON and plot data into DIR";

fn main() {
    let arguments: Vec<String> =
        env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["data", directory] => data::make(Path::new(directory), &data::ALL),
        ["data", directory, "little"] => data::make(Path::new(directory), &data::LITTLE),
        ["push-data", directory] => data::make_push(Path::new(directory), false),
        ["push-data", directory, "little"] => data::make_push(Path::new(directory), true),
        ["bank", directory, hashes, count] => {
            bank::make(Path::new(directory), Path::new(hashes), number(count), 0);
        }
        ["bank", directory, hashes, count, first] => {
            bank::make(Path::new(directory), Path::new(hashes), number(count), number(first));
        }
        ["ports", count] => println!("{}", ports(number(count)).join(" ")),
        ["urls", base, hashes] => {
            for url in client::nar_urls(base, &lines(hashes)) {
                println!("{url}");
            }
        }
        ["wait-baked", base, hashes] => client::wait_until_baked(base, &lines(hashes)),
        ["latency", base, hashes, count] => {
            println!("{:.2}", client::latency(base, &lines(hashes), number(count)))
        }
        ["spread", base, hashes, count] => {
            let count = number(count);
            client::spread(base, &lines(hashes), 0, |asked| asked < count).print();
        }
        ["spread-until", file, base, hashes, first] => {
            let goes_on = |_| !Path::new(file).exists();
            client::spread(base, &lines(hashes), number(first), goes_on).print();
        }
        ["nars", base, urls, connections] => nars(base, urls, connections, "1"),
        ["nars", base, urls, connections, times] => nars(base, urls, connections, times),
        ["range", base, url] => {
            let (start, end) = client::range(base, url);
            println!("{start:.3} {end:.3}");
        }
        ["cpu", pid] => println!("{:.2}", process::cpu_seconds(number(pid))),
        ["memory", pid] => println!("{}", process::resident(number(pid))),
        ["memory-under", pid, base, url, connections] => {
            println!(
                "{}",
                process::most_resident(number(pid), || client::fetch_at_once(
                    base,
                    url,
                    number(connections)
                ))
            );
        }
        ["most-memory", pid, file] => {
            let until = || {
                while !Path::new(file).exists() {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
            };
            println!("{}", process::most_resident(number(pid), until));
        }
        ["text", base, path] => print!("{}", client::text(base, path)),
        ["lua", hashes, kind] => print!("{}", data::wrk_script(&lines(hashes), kind)),
        ["report", rows, directory] => {
            report::write(&fs::read_to_string(rows).unwrap(), Path::new(directory))
        }
        // `cargo test --all-targets` runs it like this.
        [] => println!("{USAGE}"),
        _ => {
            eprintln!("{USAGE}");
            std::process::exit(2);
        }
    }
}

fn nars(base: &str, urls: &str, connections: &str, times: &str) {
    let urls = lines(urls);
    let all: Vec<&str> =
        (0..number::<usize>(times)).flat_map(|_| urls.iter().map(String::as_str)).collect();
    let (seconds, bytes) = client::fetch_all(base, &all, number(connections));
    println!("{seconds:.4} {bytes}");
}

fn ports(count: usize) -> Vec<String> {
    // All are held before the first is let go, so that they differ.
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap().port().to_string()).collect()
}

fn lines(file: &str) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"));
    text.lines().map(str::to_owned).collect()
}

fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is no number"))
}
