//! The file `model.ns`: a zip archive, stored, under one digest.
//!
//! docs/bundle-format.md is normative. A bundle's bytes are a function of its
//! contents alone: no times, no order of a hash map.

use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::manifest::{FORMAT_VERSION, FileEntry, Manifest, Provenance};

const MANIFEST: &str = "manifest.json";
/// The archive's comment: this and the SHA-256, in hexadecimal, of every byte before it.
const COMMENT: &str = "sha256:";
const COMMENT_BYTES: usize = COMMENT.len() + 64;
const MOST_BYTES: u64 = 4 << 30;
const MOST_FILES: usize = 65_000;
const MOST_MANIFEST_BYTES: u64 = 256 << 20;

/// Why a bundle cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The file could not be read or written.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Larger than any bundle may be.
    #[error("{bytes} bytes are too many for a bundle (at most {MOST_BYTES})")]
    TooLarge {
        /// Its size.
        bytes: u64,
    },
    /// Not a bundle at all.
    #[error("not a NetShare bundle: {reason}")]
    NotABundle {
        /// What is missing.
        reason: String,
    },
    /// The bytes are not the ones that were written.
    #[error("the bundle is damaged or cut short: {reason}")]
    Damaged {
        /// What does not fit.
        reason: String,
    },
    /// Written by a newer program.
    #[error("bundle format {found} is newer than the newest known, {FORMAT_VERSION}")]
    Version {
        /// The bundle's version.
        found: u64,
    },
    /// `manifest.json` says what cannot be.
    #[error("{MANIFEST}: {place}: {reason}")]
    Manifest {
        /// The place in the manifest.
        place: String,
        /// What is wrong there.
        reason: String,
    },
}

/// A model in memory: the manifest and the files that it names.
#[derive(Clone, Debug, PartialEq)]
pub struct Bundle {
    manifest: Manifest,
    files: BTreeMap<String, Vec<u8>>,
}

impl Bundle {
    /// Puts a manifest and its files together; sizes and digests are filled in.
    ///
    /// # Errors
    /// A manifest whose parts do not fit one another or the files.
    pub fn new(
        mut manifest: Manifest,
        files: BTreeMap<String, Vec<u8>>,
    ) -> Result<Bundle, BundleError> {
        manifest.format = FORMAT_VERSION;
        manifest.files = files
            .iter()
            .map(|(name, contents)| {
                let bytes = contents.len() as u64;
                (name.clone(), FileEntry { bytes, sha256: hex_sha256(contents) })
            })
            .collect();
        if let Some(name) = files.keys().find(|name| !is_plain_path(name)) {
            return Err(BundleError::NotABundle { reason: format!("bad file name `{name}`") });
        }
        manifest.validate().map_err(|(place, reason)| BundleError::Manifest { place, reason })?;
        Ok(Bundle { manifest, files })
    }

    /// The same model with another account of where it comes from.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_provenance(self, provenance: Provenance) -> Result<Bundle, BundleError> {
        Bundle::new(Manifest { provenance, ..self.manifest }, self.files)
    }

    /// The same model with flows that start `share` times as often (above 0, at most 1).
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_flows(self, share: f64) -> Result<Bundle, BundleError> {
        let mut manifest = self.manifest;
        let arrivals = manifest.timeline.arrivals.of_whole(1.0 / share);
        manifest.timeline.arrivals = arrivals;
        Bundle::new(manifest, self.files)
    }

    /// Reads and verifies a bundle from a file.
    ///
    /// # Errors
    /// The file cannot be read, or any reason of [`Self::from_bytes`].
    pub fn open(path: &Path) -> Result<Bundle, BundleError> {
        let fail = |source| BundleError::Io { action: "read", path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(fail)?;
        let mut bytes = Vec::new();
        file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(fail)?;
        Bundle::from_bytes(&bytes)
    }

    /// Reads and verifies a bundle from memory.
    ///
    /// # Errors
    /// Not a bundle, cut short, any byte changed, a newer format, files that
    /// the manifest does not list or lists otherwise, parts that do not fit.
    pub fn from_bytes(bytes: &[u8]) -> Result<Bundle, BundleError> {
        let damaged = |reason: String| BundleError::Damaged { reason };
        if bytes.len() as u64 > MOST_BYTES {
            return Err(BundleError::TooLarge { bytes: bytes.len() as u64 });
        }
        if !bytes.starts_with(b"PK\x03\x04") {
            let reason = match bytes.len() {
                0 => "the file is empty".to_owned(),
                _ => "it does not begin like a zip archive".to_owned(),
            };
            return Err(BundleError::NotABundle { reason });
        }
        verify_digest(bytes)?;
        let mut archive = zip::ZipArchive::new(Cursor::new(bytes))
            .map_err(|error| damaged(format!("zip: {error}")))?;
        if archive.len() > MOST_FILES {
            return Err(damaged(format!("{} files; at most {MOST_FILES}", archive.len())));
        }
        let mut files = BTreeMap::new();
        let mut left = bytes.len() as u64;
        for index in 0..archive.len() {
            let file = archive.by_index(index).map_err(|e| damaged(format!("zip: {e}")))?;
            let name = match file.name() {
                Ok(name) => name.into_owned(),
                Err(error) => return Err(damaged(format!("zip: {error}"))),
            };
            if !is_plain_path(&name) {
                return Err(BundleError::NotABundle { reason: format!("bad file name `{name}`") });
            }
            if file.compression() != zip::CompressionMethod::Stored {
                return Err(BundleError::NotABundle { reason: format!("`{name}` is compressed") });
            }
            // Stored files cannot be larger than the archive, whatever they claim.
            let size = file.size();
            if size > left {
                let reason = format!("`{name}` claims {size} bytes, {left} are left");
                return Err(damaged(reason));
            }
            left -= size;
            let mut contents = Vec::with_capacity(size as usize);
            let read = file.take(size + 1).read_to_end(&mut contents);
            if read.map_err(|error| damaged(format!("`{name}`: {error}")))? as u64 != size {
                return Err(damaged(format!("`{name}` is not {size} bytes long")));
            }
            if files.insert(name.clone(), contents).is_some() {
                return Err(damaged(format!("`{name}` stands twice")));
            }
        }
        let Some(json) = files.remove(MANIFEST) else {
            return Err(BundleError::NotABundle { reason: format!("it has no {MANIFEST}") });
        };
        let manifest = read_manifest(&json)?;
        verify_files(&manifest, &files)?;
        manifest.validate().map_err(|(place, reason)| BundleError::Manifest { place, reason })?;
        Ok(Bundle { manifest, files })
    }

    /// The bundle's bytes: equal bundles give equal bytes.
    ///
    /// # Errors
    /// More bytes than a bundle may have.
    pub fn to_bytes(&self) -> Result<Vec<u8>, BundleError> {
        let fail = |error: &dyn std::fmt::Display| BundleError::Manifest {
            place: "writing".to_owned(),
            reason: error.to_string(),
        };
        let mut json = serde_json::to_vec(&self.manifest).map_err(|error| fail(&error))?;
        json.push(b'\n');
        let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Stored)
            .last_modified_time(zip::DateTime::default())
            .unix_permissions(0o644);
        let manifest = (MANIFEST, &json);
        let files = self.files.iter().map(|(name, contents)| (name.as_str(), contents));
        for (name, contents) in std::iter::once(manifest).chain(files) {
            archive.start_file(name, options).map_err(|error| fail(&error))?;
            archive.write_all(contents).map_err(|error| fail(&error))?;
        }
        archive
            .set_raw_comment(vec![b'-'; COMMENT_BYTES].into_boxed_slice())
            .map_err(|error| fail(&error))?;
        let mut bytes = archive.finish().map_err(|error| fail(&error))?.into_inner();
        let body = bytes.len() - COMMENT_BYTES;
        let digest = hex_sha256(&bytes[..body]);
        bytes.truncate(body);
        bytes.extend_from_slice(COMMENT.as_bytes());
        bytes.extend_from_slice(digest.as_bytes());
        if bytes.len() as u64 > MOST_BYTES {
            return Err(BundleError::TooLarge { bytes: bytes.len() as u64 });
        }
        Ok(bytes)
    }

    /// Writes the bundle whole or not at all: into a temporary file beside
    /// `path`, then renamed.
    ///
    /// # Errors
    /// The folder or disk does not take it.
    pub fn write(&self, path: &Path) -> Result<(), BundleError> {
        let bytes = self.to_bytes()?;
        let fail = |source| BundleError::Io { action: "write", path: path.to_owned(), source };
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut file = tempfile::Builder::new()
            .prefix(".model-")
            .suffix(".part")
            .permissions(world_readable())
            .tempfile_in(folder)
            .map_err(fail)?;
        file.write_all(&bytes).map_err(fail)?;
        file.as_file().sync_all().map_err(fail)?;
        file.persist(path).map_err(|error| fail(error.error))?;
        Ok(())
    }

    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The contents of a file that the manifest names; `None` for other names.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(Vec::as_slice)
    }
}

/// Temporary files are private by default; a bundle is an ordinary file (the
/// process's umask still applies).
#[cfg(unix)]
fn world_readable() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o666)
}

/// Lower-case hexadecimal SHA-256.
#[must_use]
pub fn hex_sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn verify_digest(bytes: &[u8]) -> Result<(), BundleError> {
    let body = bytes.len().saturating_sub(COMMENT_BYTES);
    let Some(stated) = bytes[body..].strip_prefix(COMMENT.as_bytes()) else {
        let reason = "the digest at its end is missing".to_owned();
        return Err(BundleError::Damaged { reason });
    };
    if hex_sha256(&bytes[..body]).as_bytes() != stated {
        let reason = "its bytes do not have the digest at its end".to_owned();
        return Err(BundleError::Damaged { reason });
    }
    Ok(())
}

/// Relative, forward slashes, letters, digits, `.`, `-` and `_`, no part that begins with a dot.
fn is_plain_path(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    name.len() <= 200
        && name
            .split('/')
            .all(|part| !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain))
}

fn read_manifest(json: &[u8]) -> Result<Manifest, BundleError> {
    let fail =
        |place: &str, reason: String| BundleError::Manifest { place: place.to_owned(), reason };
    if json.len() as u64 > MOST_MANIFEST_BYTES {
        return Err(fail("size", format!("{} bytes are too many", json.len())));
    }
    // The version comes first: a newer manifest may have other keys.
    #[derive(serde::Deserialize)]
    struct Version {
        format: u64,
    }
    let version: Version =
        serde_json::from_slice(json).map_err(|error| fail("format", error.to_string()))?;
    if version.format > u64::from(FORMAT_VERSION) {
        return Err(BundleError::Version { found: version.format });
    }
    if version.format == 0 {
        return Err(fail("format", "0 is no format version".to_owned()));
    }
    let mut reader = serde_json::Deserializer::from_slice(json);
    let mut manifest: Manifest = serde_path_to_error::deserialize(&mut reader)
        .map_err(|error| fail(&error.path().to_string(), error.inner().to_string()))?;
    manifest.schema.link().map_err(|reason| fail("schema", reason))?;
    Ok(manifest)
}

fn verify_files(manifest: &Manifest, files: &BTreeMap<String, Vec<u8>>) -> Result<(), BundleError> {
    let damaged = |reason: String| Err(BundleError::Damaged { reason });
    if let Some(name) = files.keys().find(|name| !manifest.files.contains_key(*name)) {
        return damaged(format!("`{name}` is not listed in {MANIFEST}"));
    }
    for (name, entry) in &manifest.files {
        let Some(contents) = files.get(name) else {
            return damaged(format!("`{name}` is missing"));
        };
        if contents.len() as u64 != entry.bytes || hex_sha256(contents) != entry.sha256 {
            return damaged(format!("`{name}` does not have the digest in {MANIFEST}"));
        }
    }
    Ok(())
}
