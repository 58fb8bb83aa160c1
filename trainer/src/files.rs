//! Files that are written whole or not at all.

use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// What an error is about that comes from writing this file.
#[derive(Debug)]
pub(crate) struct CannotWrite(pub(crate) PathBuf);

impl std::fmt::Display for CannotWrite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot write `{}`", self.0.display())
    }
}

/// Refuses to write over what is read.
///
/// # Errors
/// `out` is one of the inputs.
pub(crate) fn refuse_input(out: &Path, inputs: &[PathBuf]) -> anyhow::Result<()> {
    if is_one_of(out, inputs) {
        anyhow::bail!("`{}` is the input; give the output another name", out.display());
    }
    Ok(())
}

/// Whether a path, if it exists, leads to where one of the others leads.
pub(crate) fn is_one_of(path: &Path, others: &[PathBuf]) -> bool {
    let Ok(place) = path.canonicalize() else { return false };
    others.iter().any(|other| other.canonicalize().is_ok_and(|other| other == place))
}

/// Whether a file can be made where `path` is: better to know before an hour
/// of training than after.
///
/// # Errors
/// It cannot.
pub(crate) fn check_writable(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        return Err(std::io::ErrorKind::IsADirectory.into());
    }
    beside(path).map(drop)
}

/// SHA-256 of a file's contents, in lower-case hexadecimal.
///
/// # Errors
/// It cannot be read.
pub(crate) fn sha256(path: &Path) -> std::io::Result<String> {
    Ok(hexadecimal(&Sha256::digest(std::fs::read(path)?)))
}

/// Bytes in lower-case hexadecimal.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a file beside its place and moves it there.
///
/// # Errors
/// It cannot be written.
pub(crate) fn write_whole(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    let mut file = beside(path)?;
    file.write_all(contents)?;
    // Else a crash of the machine could leave the name without the contents.
    file.as_file().sync_all()?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// A file in the folder of `path`, to be moved there.
pub(crate) fn beside(path: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".ns-train-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Temporary files are private; what is made is like any other file.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}
