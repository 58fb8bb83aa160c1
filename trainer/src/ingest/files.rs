//! Which files an input is: those named, and those in the folders named.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};

use super::IngestError;
use super::source::Source;
use crate::files::hexadecimal;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Whether a file's first bytes are those of gzip.
pub(super) fn is_gzip(head: &[u8]) -> bool {
    head.starts_with(&GZIP_MAGIC)
}

/// The files that inputs stand for, in order: a file stands for itself, a
/// folder for its regular files in order of name, without those whose name
/// begins with a dot.
///
/// # Errors
/// A folder that cannot be read, or has no file.
pub fn list(inputs: &[PathBuf]) -> Result<Vec<PathBuf>, IngestError> {
    let mut files = Vec::new();
    for input in inputs {
        if !input.is_dir() {
            files.push(input.clone());
            continue;
        }
        let fail = |source| IngestError::Io { path: input.clone(), source };
        let mut inside = Vec::new();
        for entry in std::fs::read_dir(input).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            // A link counts as what it leads to; one that leads nowhere is no regular file.
            if !hidden && entry.path().is_file() {
                inside.push(entry.path());
            }
        }
        if inside.is_empty() {
            return Err(IngestError::NoFiles { path: input.clone() });
        }
        inside.sort();
        files.append(&mut inside);
    }
    Ok(files)
}

/// The first bytes of a file, decompressed if it is gzip; fewer than `most`
/// if it has no more.
///
/// # Errors
/// The file cannot be read.
pub fn head(path: &Path, most: usize) -> Result<Vec<u8>, IngestError> {
    let fail = |source| IngestError::Io { path: path.to_owned(), source };
    let read = |reader: &mut dyn Read| -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        reader.take(most as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let mut file = File::open(path).map_err(fail)?;
    let mut magic = Vec::new();
    (&mut file).take(2).read_to_end(&mut magic).map_err(fail)?;
    let mut whole = magic.as_slice().chain(file);
    if is_gzip(&magic) {
        // What does not decompress begins like nothing; reading it in earnest says why.
        return Ok(read(&mut MultiGzDecoder::new(whole)).unwrap_or_default());
    }
    read(&mut whole).map_err(fail)
}

/// Whether a file is gzip, by its first bytes.
///
/// # Errors
/// The file cannot be read.
pub fn is_compressed(path: &Path) -> Result<bool, IngestError> {
    let fail = |source| IngestError::Io { path: path.to_owned(), source };
    let mut magic = Vec::new();
    File::open(path).and_then(|file| file.take(2).read_to_end(&mut magic)).map_err(fail)?;
    Ok(is_gzip(&magic))
}

/// The names of files as a bundle gives them: file names, joined by `, `.
#[must_use]
pub fn names(files: &[PathBuf]) -> String {
    let names: Vec<_> =
        files.iter().map(|path| path.file_name().unwrap_or_default().to_string_lossy()).collect();
    names.join(", ")
}

/// Inputs as errors and summaries name them: `a.pcap`, and how many others.
#[must_use]
pub fn shown(inputs: &[PathBuf]) -> String {
    match inputs {
        [] => "no input".to_owned(),
        [one] => format!("`{}`", one.display()),
        [first, rest @ ..] => format!("`{}` and {} more", first.display(), rest.len()),
    }
}

/// One SHA-256, in hexadecimal, over those of several files (in hexadecimal
/// too) in order; that of one file is its own.
#[must_use]
pub fn joined_digest(digests: &[String]) -> String {
    match digests {
        [one] => one.clone(),
        several => hexadecimal(&Sha256::digest(several.concat())),
    }
}

/// The SHA-256 that reading these files would give.
///
/// # Errors
/// One cannot be read.
pub fn digest(files: &[PathBuf]) -> Result<String, IngestError> {
    let of = |path: &PathBuf| {
        let digest = Source::open(path).and_then(Source::finish);
        digest.map_err(|source| IngestError::Io { path: path.clone(), source })
    };
    let digests = files.iter().map(of).collect::<Result<Vec<_>, IngestError>>()?;
    Ok(joined_digest(&digests))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_stands_for_its_files_in_order_of_name() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.pcap", "a.pcap", ".hidden"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        std::fs::create_dir(folder.path().join("c")).unwrap();
        let single = folder.path().join("b.pcap");
        let files = list(&[single.clone(), folder.path().to_owned()]).unwrap();
        assert_eq!(files, [single.clone(), folder.path().join("a.pcap"), single]);
        assert_eq!(names(&files), "b.pcap, a.pcap, b.pcap");
        let empty = list(&[folder.path().join("c")]).unwrap_err().to_string();
        assert!(empty.ends_with("/c` has no files"), "{empty}");
    }

    #[test]
    fn a_head_is_read_through_gzip() {
        use std::io::Write;
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(b"hello").unwrap();
        file.write_all(&gzip.finish().unwrap()).unwrap();
        assert_eq!(head(file.path(), 4).unwrap(), b"hell");
        assert_eq!(head(file.path(), 400).unwrap(), b"hello");
    }

    #[test]
    fn one_file_keeps_its_digest() {
        let digest = |text: &str| hexadecimal(&Sha256::digest(text));
        assert_eq!(joined_digest(&[digest("a")]), digest("a"));
        let both = format!("{}{}", digest("a"), digest("b"));
        assert_eq!(joined_digest(&[digest("a"), digest("b")]), digest(&both));
        let folder = tempfile::tempdir().unwrap();
        let files = ["a", "b"].map(|name| folder.path().join(name));
        files.iter().zip(["a", "b"]).for_each(|(path, text)| std::fs::write(path, text).unwrap());
        assert_eq!(super::digest(&files).unwrap(), digest(&both));
    }
}
