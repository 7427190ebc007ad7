//! What the store has besides paths: build logs, realisations, debug information.

use std::collections::BTreeMap;
use std::io::BufReader;

use rusqlite::{Connection, OptionalExtension};
use serde_json::json;

use super::database::parse_signatures;
use super::{LocalStore, refuse};
use crate::bank::{BankError, BuildId, Object, open_regular};
use crate::codec::{Compression, Decoder, Limits};
use crate::nix::nar_url::NarFileName;
use crate::nix::realisation::{BuildTraceKey, DrvOutput, Realisation};
use crate::nix::store_path::StorePath;
use crate::source::{Blob, SourceError};

/// The longest build log, decoded.
const MAX_LOG: u64 = 4 << 30;

/// `Realisations` of Nix before 2.35: keyed by a hash of the derivation.
const REALISATION: &str = "SELECT ValidPaths.path, Realisations.signatures, Realisations.id \
     FROM Realisations JOIN ValidPaths ON ValidPaths.id = Realisations.outputPath \
     WHERE drvPath = ?1 AND outputName = ?2 LIMIT 1";
const DEPENDENT: &str = "SELECT r.drvPath, r.outputName, p.path FROM RealisationsRefs \
     JOIN Realisations r ON r.id = realisationReference \
     JOIN ValidPaths p ON p.id = r.outputPath WHERE referrer = ?1";
/// `BuildTraceV3` of Nix since 2.35: keyed by the derivation's base name.
const BUILD_TRACE: &str = "SELECT outputPath, signatures FROM BuildTraceV3 \
     WHERE drvPath = ?1 AND outputName = ?2 LIMIT 1";

impl LocalStore {
    pub(in crate::source) fn object(&self, object: &Object) -> Result<Option<Blob>, SourceError> {
        match object {
            Object::Log(derivation) => self.log(derivation),
            Object::Realisation(key) => {
                let found = self.realisation(key)?;
                Ok(found.map(|found| Blob::Bytes(found.to_flat_json(key).to_string().into())))
            }
            Object::BuildTrace(key) => {
                let found = self.build_trace(key)?;
                Ok(found.map(|found| Blob::Bytes(found.to_build_trace_json().to_string().into())))
            }
            // Listings are made from the tree, debug information is looked for in it.
            Object::Listing(_) | Object::DebugInfo(_) => Ok(None),
        }
    }

    /// The log of a derivation, also when the `.drv` itself is gone.
    fn log(&self, derivation: &StorePath) -> Result<Option<Blob>, SourceError> {
        let (directory, rest) = derivation.as_str().split_at(2);
        let drvs = self.layout.log_dir.join("drvs");
        // As Nix looks for them: by two digits, compressed or not, then flat as old Nix wrote them.
        let candidates = [
            (drvs.join(directory).join(format!("{rest}.bz2")), Compression::Bzip2),
            (drvs.join(directory).join(rest), Compression::None),
            (drvs.join(derivation.as_str()), Compression::None),
        ];
        for (path, compression) in candidates {
            match open_regular(&path) {
                Ok(Some((file, _))) => {
                    let limits = Limits { max_ratio: u32::MAX, ..Limits::output(MAX_LOG) };
                    let reader = Decoder::new(compression, BufReader::new(file), limits)
                        .map_err(|error| SourceError::Damaged(error.to_string()))?;
                    return Ok(Some(Blob::Stream(Box::new(reader))));
                }
                Ok(None) => {}
                Err(error @ BankError::Damaged { .. }) => {
                    return Err(SourceError::Damaged(error.to_string()));
                }
                Err(error) => return Err(SourceError::Unavailable(error.to_string())),
            }
        }
        Ok(None)
    }

    fn realisation(&self, key: &DrvOutput) -> Result<Option<Realisation>, SourceError> {
        let row = self
            .database
            .read(|connection| {
                if !has_table(connection, "Realisations")? {
                    return Ok(None);
                }
                let found = connection
                    .prepare_cached(REALISATION)?
                    .query_row([&key.drv_hash, key.output.as_str()], |row| {
                        Ok((row.get::<_, String>(0)?, row.get(1)?, row.get::<_, i64>(2)?))
                    })
                    .optional()?;
                let Some((path, signatures, id)) = found else { return Ok(None) };
                Ok(Some((path, signatures, dependent(connection, id)?)))
            })
            .map_err(refuse)?;
        let Some((path, signatures, dependent)) = row else { return Ok(None) };
        let store_path = |full: &str| self.layout.store_dir.parse_path(full).ok();
        Ok(store_path(&path).map(|out_path| Realisation {
            out_path,
            signatures: parse_signatures(Option::<String>::as_deref(&signatures)),
            dependent: dependent
                .into_iter()
                .filter_map(|(id, path)| Some((id, store_path(&path)?)))
                .collect(),
        }))
    }

    fn build_trace(&self, key: &BuildTraceKey) -> Result<Option<Realisation>, SourceError> {
        let row = self
            .database
            .read(|connection| {
                if !has_table(connection, "BuildTraceV3")? {
                    return Ok(None);
                }
                connection
                    .prepare_cached(BUILD_TRACE)?
                    .query_row([key.derivation.as_str(), key.output.as_str()], |row| {
                        Ok((row.get::<_, String>(0)?, row.get::<_, Option<String>>(1)?))
                    })
                    .optional()
            })
            .map_err(refuse)?;
        let Some((path, signatures)) = row else { return Ok(None) };
        let out_path = self.layout.store_dir.parse_path(&path).ok();
        Ok(out_path.map(|out_path| Realisation {
            out_path,
            signatures: parse_signatures(signatures.as_deref()),
            dependent: BTreeMap::new(),
        }))
    }

    /// Where the debug information of a build is, by looking into each valid path that is made to
    /// hold some (`…-debug`, as nixpkgs' `separateDebugInfo` names it).
    pub(in crate::source) fn debug_info(&self, id: &BuildId) -> Result<Option<Blob>, SourceError> {
        let member = id.member();
        let paths: Vec<String> = self
            .database
            .read(|connection| {
                connection
                    .prepare_cached("SELECT path FROM ValidPaths WHERE path LIKE '%-debug'")?
                    .query_map([], |row| row.get(0))?
                    .collect()
            })
            .map_err(refuse)?;
        for path in paths {
            let Ok(path) = self.layout.store_dir.parse_path(&path) else { continue };
            let file = self.layout.real_dir.join(path.as_str()).join(&member);
            if !file.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
                continue;
            }
            let Some(narinfo) = self.find(path.hash())? else { continue };
            let name = NarFileName::bare(narinfo.info.nar_hash);
            let url = if narinfo.compression == "none" { name.url() } else { narinfo.url };
            let link = json!({"archive": format!("../{url}"), "member": member});
            return Ok(Some(Blob::Bytes(link.to_string().into())));
        }
        Ok(None)
    }
}

fn has_table(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?1")?
        .exists([name])
}

fn dependent(connection: &Connection, id: i64) -> rusqlite::Result<Vec<(String, String)>> {
    if !has_table(connection, "RealisationsRefs")? {
        return Ok(Vec::new());
    }
    let mut statement = connection.prepare_cached(DEPENDENT)?;
    let rows = statement.query_map([id], |row| {
        let (drv, output): (String, String) = (row.get(0)?, row.get(1)?);
        Ok((format!("{drv}!{output}"), row.get(2)?))
    })?;
    rows.collect()
}
