//! Where files are, and what is in them.

use std::path::{Path, PathBuf};

use ns_trainer::curve;

/// The repository's root.
#[must_use]
pub fn repository() -> PathBuf {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    tests.parent().map(PathBuf::from).unwrap_or(tests)
}

/// The capture that the repository ships.
#[must_use]
pub fn lab_capture() -> PathBuf {
    repository().join("tests/captures/lab.pcap")
}

/// Real captures that are not the repository's own: `../shared/data`, if there.
#[must_use]
pub fn shared_data() -> Option<PathBuf> {
    let folder = repository().parent()?.join("shared/data");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: {} is not there", folder.display());
    None
}

/// A file's bytes.
#[must_use]
pub fn read(path: impl AsRef<Path>) -> Vec<u8> {
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

/// The names of what is in a folder, in order; not those of files that were being written
/// when their program was killed.
#[must_use]
pub fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.expect("an entry").file_name().into_string().expect("plain names")
    };
    let mut names: Vec<String> = entries.map(name).filter(|name| !name.starts_with('.')).collect();
    names.sort();
    names
}

/// The iterations in a training curve, in the order in which they stand there.
#[must_use]
pub fn iterations(path: &Path) -> Vec<u64> {
    let points = curve::read(path).expect("a curve");
    points.iter().map(|point| point.iteration).collect()
}
