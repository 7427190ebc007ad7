//! One path from end to end: narinfo, signature, and the NAR to its last byte.

use std::io::{self, BufReader, Read};
use std::str::FromStr as _;

use super::super::Finding;
use super::agent::{Cache, why};
use super::cache::refused;
use super::text::{shown, url_without_secrets};
use super::trusted::{judge_signatures, shown_keys};
use super::{Client, Step, Stopped};
use crate::codec::{CodecError, Compression, Decoder, Limits};
use crate::nix::hash::Hasher;
use crate::nix::narinfo::NarInfo;
use crate::nix::store_path::StorePathHash;

/// How much is unpacked at a time.
const BUFFER: usize = 64 << 10;

pub(super) fn examine(
    client: &Client<'_>,
    cache: &Cache,
    hash: StorePathHash,
    findings: &mut Vec<Finding>,
) -> Result<(), Stopped> {
    let narinfo = match narinfo(client, cache, hash) {
        Ok(narinfo) => narinfo,
        Err(finding) => {
            findings.push(finding);
            return Err(Stopped(Step::Narinfo));
        }
    };
    let info = &narinfo.info;
    findings.push(Finding::ok(format!("narinfo: it has {}, {} bytes", info.path, info.nar_size)));
    let (store_dir, keys) = (&client.question.store_dir, shown_keys(cache));
    findings.extend(client.in_each_view(|view| judge_signatures(view, store_dir, info, &keys)));
    findings.push(nar(cache, &narinfo));
    Ok(())
}

fn narinfo(client: &Client<'_>, cache: &Cache, hash: StorePathHash) -> Result<NarInfo, Finding> {
    let name = format!("{hash}.narinfo");
    let answer = cache.get(&name).map_err(|error| {
        Finding::problem(format!("narinfo: {}", why(&error)), "look at the log of the server")
    })?;
    match answer.status.as_u16() {
        200 => {}
        404 | 410 => {
            return Err(Finding::problem(
                format!(
                    "narinfo: the cache does not have {hash} (HTTP {})",
                    answer.status.as_u16()
                ),
                "push it; a Nix that has asked before remembers for an hour that it was not there \
                 (`--option narinfo-cache-negative-ttl 0` has it ask again)",
            ));
        }
        status => return Err(refused("narinfo", status, cache.has_login())),
    }
    let bad = |why: String| {
        Finding::problem(
            format!("narinfo: {name} cannot be used: {}", shown(&why)),
            "the cache, or a proxy before it, is at fault: have the path pushed again",
        )
    };
    let store_dir = &client.question.store_dir;
    let narinfo =
        NarInfo::parse(&answer.body, store_dir).map_err(|error| bad(error.to_string()))?;
    if narinfo.info.path.hash() != hash {
        return Err(bad(format!("it is of {}", narinfo.info.path)));
    }
    Ok(narinfo)
}

fn nar(cache: &Cache, narinfo: &NarInfo) -> Finding {
    let url = url_without_secrets(&narinfo.url);
    let damaged = |why: String| {
        Finding::problem(
            format!("NAR: {url}: {}", shown(&why)),
            "a Nix refuses it too: have it pushed again, or the cache find out what its disk says; if \
             only some clients see it, look at the proxies between",
        )
    };
    let compression = match Compression::from_str(&narinfo.compression) {
        Ok(compression) => compression,
        Err(error) => return damaged(error.to_string()),
    };
    let (status, body) = match cache.nar(&narinfo.url) {
        Ok(answer) => answer,
        Err(error) => return damaged(why(&error)),
    };
    if status.as_u16() != 200 {
        return refused(&format!("NAR: {url}"), status.as_u16(), cache.has_login());
    }
    match unpack(body, compression, narinfo) {
        Ok(bytes) => Finding::ok(format!(
            "NAR: {bytes} bytes of {} came, {} unpacked: NarHash and NarSize are right",
            compression.name(),
            narinfo.info.nar_size
        )),
        Err(why) => damaged(why),
    }
}

/// Reads it to its end, and holds it against what the narinfo says. How many bytes came, or what is wrong.
fn unpack(body: impl Read, compression: Compression, narinfo: &NarInfo) -> Result<u64, String> {
    let (nar_hash, nar_size) = (narinfo.info.nar_hash, narinfo.info.nar_size);
    let reader = BufReader::new(body);
    let mut decoder = Decoder::new(compression, reader, Limits::output(nar_size))
        .map_err(|error| error.to_string())?;
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; BUFFER];
    loop {
        match decoder.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(broken(&error, decoder.input_bytes())),
        }
    }
    let (hash, size) = hasher.finish();
    if size != nar_size {
        return Err(format!("it unpacks to {size} bytes, and NarSize is {nar_size}"));
    }
    if hash != nar_hash {
        return Err(format!("its bytes have the hash {hash}, and NarHash is {nar_hash}"));
    }
    Ok(decoder.input_bytes())
}

fn broken(error: &io::Error, input: u64) -> String {
    match CodecError::of(error) {
        Some(error) => error.to_string(),
        None => format!("the connection broke after {input} bytes: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nix::hash::Sha256;
    use crate::nix::path_info::PathInfo;
    use crate::nix::store_path::StorePath;

    fn narinfo(content: &[u8]) -> NarInfo {
        let path = StorePath::parse(&format!("{}-x", "0".repeat(32))).unwrap();
        NarInfo {
            info: PathInfo::new(path, Sha256::of(content), content.len() as u64),
            url: "nar/x.nar".into(),
            compression: "none".into(),
            file_hash: None,
            file_size: None,
        }
    }

    #[test]
    fn a_nar_is_held_against_its_hash_and_its_size() {
        let narinfo = narinfo(b"content");
        let unpack = |bytes: &[u8]| unpack(bytes, Compression::None, &narinfo);
        assert_eq!(unpack(b"content"), Ok(7));
        assert!(unpack(b"Content").unwrap_err().contains("NarHash is sha256:"));
        assert!(unpack(b"cont").unwrap_err().contains("NarSize is 7"));
        assert!(unpack(b"content and more").unwrap_err().contains("more than 7 bytes"));
    }

    #[test]
    fn what_is_not_of_its_compression_is_damaged() {
        let narinfo = narinfo(b"content");
        let why = unpack(b"content".as_slice(), Compression::Zstd, &narinfo).unwrap_err();
        assert!(why.contains("zstd"), "{why}");
    }
}
