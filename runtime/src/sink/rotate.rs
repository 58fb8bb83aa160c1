//! One file after another: when the next begins, and what it is called.

use std::path::{Path, PathBuf};

/// When a file is followed by the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// No file has more bytes, unless a single record has.
    pub bytes: Option<u64>,
    /// Each file holds what lies between two multiples of this time of the run.
    pub time_ns: Option<u64>,
}

impl Rotation {
    /// Whether there is one file only.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Rotation::default()
    }
}

/// Which of several files is written.
#[derive(Debug)]
pub(super) struct Numbered {
    path: PathBuf,
    rotation: Rotation,
    number: u64,
    /// Which part of the run's time the file is of, once it has a record.
    window: Option<u64>,
}

impl Numbered {
    pub(super) fn new(path: &Path, rotation: Rotation) -> Numbered {
        Numbered { path: path.to_owned(), rotation, number: 0, window: None }
    }

    /// `out-00000.pcap` for `out.pcap`.
    pub(super) fn path(&self) -> PathBuf {
        let mut name = self.path.file_stem().unwrap_or_default().to_owned();
        name.push(format!("-{:05}", self.number));
        if let Some(extension) = self.path.extension() {
            name.push(".");
            name.push(extension);
        }
        self.path.with_file_name(name)
    }

    /// Whether a record of this time belongs into the next file, or another after it.
    #[inline]
    pub(super) fn ends_before(&mut self, time_ns: u64) -> bool {
        let Some(period_ns) = self.rotation.time_ns else { return false };
        let window = time_ns / period_ns.max(1);
        self.window.replace(window).is_some_and(|before| before != window)
    }

    /// Whether a file of so many bytes is too long.
    #[inline]
    pub(super) fn is_too_long(&self, bytes: u64) -> bool {
        self.rotation.bytes.is_some_and(|most| bytes > most)
    }

    pub(super) fn go_on(&mut self) {
        self.number += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_before_the_extension() {
        let name = |path: &str, number| {
            let mut files = Numbered::new(Path::new(path), Rotation::default());
            (0..number).for_each(|_| files.go_on());
            files.path().into_os_string().into_string().unwrap()
        };
        assert_eq!(name("a/out.pcap", 0), "a/out-00000.pcap");
        assert_eq!(name("out", 3), "out-00003");
        assert_eq!(name("./a.b.csv", 123_456), "./a.b-123456.csv");
    }

    #[test]
    fn time_is_cut_at_multiples() {
        let rotation = Rotation { bytes: None, time_ns: Some(10) };
        let mut files = Numbered::new(Path::new("out"), rotation);
        let cuts = [3, 9, 10, 19, 45, 49, 50].map(|time| files.ends_before(time));
        assert_eq!(cuts, [false, false, true, false, true, false, true]);
    }
}
