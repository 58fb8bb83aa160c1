//! A file that is whole or not there, or standard output.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::SinkError;

/// Bytes gathered before the system is asked to write them.
const BUFFER_BYTES: usize = 256 << 10;

/// Where a file sink writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output, `-` on the command line.
    Stdout,
    /// A file.
    File(PathBuf),
}

impl Target {
    /// `-` is standard output.
    #[must_use]
    pub fn parse(text: &str) -> Target {
        if text == "-" { Target::Stdout } else { Target::File(text.into()) }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Target::Stdout => out.write_str("standard output"),
            Target::File(path) => write!(out, "{}", path.display()),
        }
    }
}

/// Takes whole records. A file grows under `NAME.part` and gets its name when
/// finished; dropped unfinished, it is removed.
#[derive(Debug)]
pub(super) struct Output {
    /// What records are appended to; see [`Output::end_record`].
    pub(super) buffer: Vec<u8>,
    /// Where records end in the buffer.
    ends: Vec<usize>,
    file: File,
    path: PathBuf,
    part: Option<PathBuf>,
    is_pipe: bool,
    written_bytes: u64,
    written_records: u64,
}

impl Output {
    pub(super) fn create(target: &Target) -> Result<Output, SinkError> {
        let (file, path, part) = match target {
            Target::Stdout => {
                let fail = |source| output_error("open", Path::new("standard output"), source);
                // Not the locked and buffered handle: records are buffered here.
                let file = io::stdout();
                let file = std::os::fd::AsFd::as_fd(&file).try_clone_to_owned().map_err(fail)?;
                (File::from(file), PathBuf::from("standard output"), None)
            }
            Target::File(path) => {
                // Devices and pipes are written in place: there is nothing to rename.
                let special = path.metadata().is_ok_and(|found| !found.is_file());
                let part = if special { path.clone() } else { part_path(path) };
                let file = File::options()
                    .write(true)
                    .create(!special)
                    .truncate(!special)
                    .open(&part)
                    .map_err(|source| output_error("create", path, source))?;
                (file, path.clone(), (!special).then_some(part))
            }
        };
        let is_pipe = file.metadata().is_ok_and(|found| {
            let kind = found.file_type();
            kind.is_fifo() || kind.is_socket()
        });
        Ok(Output {
            buffer: Vec::with_capacity(BUFFER_BYTES + (64 << 10)),
            ends: Vec::new(),
            file,
            path,
            part,
            is_pipe,
            written_bytes: 0,
            written_records: 0,
        })
    }

    /// What is in the buffer ends a record (or the file's header).
    #[inline]
    pub(super) fn end_record(&mut self) -> Result<(), SinkError> {
        self.ends.push(self.buffer.len());
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    /// Bytes that were appended, written or not.
    #[inline]
    pub(super) fn bytes(&self) -> u64 {
        self.written_bytes + self.buffer.len() as u64
    }

    /// Records that were ended, written or not; after an error, those that the system took.
    pub(super) fn records(&self) -> u64 {
        // The file's header was counted as one.
        (self.written_records + self.ends.len() as u64).saturating_sub(1)
    }

    pub(super) fn flush(&mut self) -> Result<(), SinkError> {
        let mut done = 0;
        while done < self.buffer.len() {
            match self.file.write(&self.buffer[done..]) {
                Ok(0) => return self.fail(done, io::ErrorKind::WriteZero.into()),
                Ok(bytes) => done += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.fail(done, error),
            }
        }
        self.written_bytes += done as u64;
        self.written_records += self.ends.len() as u64;
        self.buffer.clear();
        self.ends.clear();
        Ok(())
    }

    /// After a write that stopped `done` bytes into the buffer.
    fn fail(&mut self, done: usize, source: io::Error) -> Result<(), SinkError> {
        let full = matches!(source.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG));
        let whole = self.ends.partition_point(|&end| end <= done);
        let kept = if whole == 0 { 0 } else { self.ends[whole - 1] };
        self.written_bytes += kept as u64;
        self.written_records += whole as u64;
        self.buffer.clear();
        self.ends.clear();
        if source.kind() == io::ErrorKind::BrokenPipe {
            return Err(SinkError::Closed);
        }
        if !full || self.is_pipe {
            return Err(output_error("write", &self.path, source));
        }
        // Cutting a file needs no room. What cannot be cut is no regular file.
        if self.part.is_some() {
            self.file
                .set_len(self.written_bytes)
                .map_err(|source| output_error("write", &self.path, source))?;
            self.rename()?;
        }
        Err(SinkError::Full {
            path: self.path.clone(),
            records: self.records(),
            bytes: self.written_bytes,
            source,
        })
    }

    pub(super) fn finish(&mut self) -> Result<(), SinkError> {
        self.flush()?;
        self.rename()
    }

    fn rename(&mut self) -> Result<(), SinkError> {
        if let Some(part) = &self.part {
            std::fs::rename(part, &self.path)
                .map_err(|source| output_error("rename", &self.path, source))?;
            self.part = None;
        }
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(part) = &self.part {
            // Nothing can be done if it cannot be removed.
            let _ = std::fs::remove_file(part);
        }
    }
}

fn part_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

fn output_error(action: &'static str, path: &Path, source: io::Error) -> SinkError {
    SinkError::Output { action, path: path.to_owned(), source }
}
