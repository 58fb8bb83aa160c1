//! A file as a stream of bytes: read, digested and decompressed on its own
//! thread, seen through a window that slides.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};

use super::files::is_gzip;
use crate::files::hexadecimal;

/// Bytes that the reading thread hands over at once.
const BLOCK: usize = 256 << 10;
/// Blocks on their way between the two threads.
const BLOCKS: usize = 4;

/// A file's bytes in order, decompressed if it is gzip (told by its content).
///
/// Memory: a few blocks, and what [`Source::fill`] is asked for.
#[derive(Debug)]
pub struct Source {
    blocks: Receiver<io::Result<Vec<u8>>>,
    /// Emptied blocks go back to be filled again.
    emptied: SyncSender<Vec<u8>>,
    /// Ends with the file's digest.
    reader: JoinHandle<io::Result<[u8; 32]>>,
    compressed: bool,
    window: Vec<u8>,
    start: usize,
    position: u64,
    ended: bool,
    cut: bool,
}

impl Source {
    /// Opens a file and begins to read it.
    ///
    /// # Errors
    /// The file cannot be opened or read.
    pub fn open(path: &Path) -> io::Result<Source> {
        let file = File::open(path)?;
        if file.metadata()?.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Source::new(file)
    }

    /// Reads from anything that gives bytes.
    ///
    /// # Errors
    /// The first bytes cannot be read, or no thread can be had.
    pub fn new(reader: impl Read + Send + 'static) -> io::Result<Source> {
        let mut reader =
            BufReader::with_capacity(BLOCK, Digesting { inner: reader, digest: Sha256::new() });
        let compressed = is_gzip(reader.fill_buf()?);
        let (filled, blocks) = sync_channel(BLOCKS);
        let (emptied, spare) = sync_channel(BLOCKS + 1);
        let reader = std::thread::Builder::new()
            .name("ingest".to_owned())
            .spawn(move || pump(reader, compressed, &filled, &spare))?;
        Ok(Source {
            blocks,
            emptied,
            reader,
            compressed,
            window: Vec::new(),
            start: 0,
            position: 0,
            ended: false,
            cut: false,
        })
    }

    /// Whether the file is gzip.
    #[must_use]
    pub fn is_compressed(&self) -> bool {
        self.compressed
    }

    /// Whether the file is gzip that ends before its end is reached; what came
    /// before was given.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// Bytes consumed so far, counted after decompression.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The bytes that come next: `wanted` or more, or fewer if the file ends.
    /// What is wanted is held in memory, so callers check it first.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged gzip (`InvalidData`).
    #[inline]
    pub fn fill(&mut self, wanted: usize) -> io::Result<&[u8]> {
        while self.window.len() - self.start < wanted && !self.ended {
            self.slide()?;
        }
        Ok(&self.window[self.start..])
    }

    /// Goes on by `count` bytes of those that [`Source::fill`] gave.
    #[inline]
    pub fn consume(&mut self, count: usize) {
        let count = count.min(self.window.len() - self.start);
        self.start += count;
        self.position += count as u64;
    }

    /// Brings the next block into the window.
    fn slide(&mut self) -> io::Result<()> {
        let block = match self.blocks.recv() {
            Ok(Ok(block)) => block,
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                (self.cut, self.ended) = (true, true);
                return Ok(());
            }
            Ok(Err(error)) => {
                self.ended = true;
                return Err(error);
            }
            Err(_) => {
                self.ended = true;
                return Ok(());
            }
        };
        let used = if self.start == self.window.len() {
            std::mem::replace(&mut self.window, block)
        } else {
            self.window.drain(..self.start);
            self.window.extend_from_slice(&block);
            block
        };
        self.start = 0;
        // A full channel has blocks enough.
        let _ = self.emptied.try_send(used);
        Ok(())
    }

    /// Reads the rest of the file, and returns the SHA-256 of all of it, in
    /// hexadecimal, as it is on disk.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn finish(self) -> io::Result<String> {
        let Source { blocks, emptied, reader, .. } = self;
        for block in blocks.iter().flatten() {
            let _ = emptied.try_send(block);
        }
        let digest =
            reader.join().map_err(|_| io::Error::other("the reading thread has stopped"))??;
        Ok(hexadecimal(&digest))
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill(1)?;
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        self.consume(count);
        Ok(count)
    }
}

/// Digests what is read through it.
struct Digesting<R> {
    inner: R,
    digest: Sha256,
}

impl<R: Read> Read for Digesting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.digest.update(&buffer[..count]);
        Ok(count)
    }
}

/// Sends the file block by block until it ends or nobody receives.
fn pump<R: Read>(
    mut reader: BufReader<Digesting<R>>,
    compressed: bool,
    filled: &SyncSender<io::Result<Vec<u8>>>,
    spare: &Receiver<Vec<u8>>,
) -> io::Result<[u8; 32]> {
    let sent = if compressed {
        let mut decoder = MultiGzDecoder::new(&mut reader);
        send_all(&mut decoder, filled, spare)
    } else {
        send_all(&mut reader, filled, spare)
    };
    if let Err(error) = sent {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Err(error);
        }
        // To be told in its place in the stream; the digest is of the whole file regardless.
        let error = match error.kind() {
            io::ErrorKind::InvalidInput => io::Error::new(io::ErrorKind::InvalidData, error),
            _ => error,
        };
        let _ = filled.send(Err(error));
    }
    io::copy(&mut reader, &mut io::sink())?;
    Ok(reader.into_inner().digest.finalize().into())
}

/// `BrokenPipe`: nobody receives any more.
fn send_all(
    reader: &mut impl Read,
    filled: &SyncSender<io::Result<Vec<u8>>>,
    spare: &Receiver<Vec<u8>>,
) -> io::Result<()> {
    loop {
        let mut block = spare.try_recv().unwrap_or_default();
        block.clear();
        // A little more than is read, so that the look for the end needs no larger one.
        block.reserve_exact(BLOCK + 64);
        // What was read before an error is sent before it.
        let read = (&mut *reader).take(BLOCK as u64).read_to_end(&mut block);
        let ended = block.len() < BLOCK;
        if !block.is_empty() {
            filled.send(Ok(block)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        }
        if read.map(|_| ended)? {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn source(bytes: Vec<u8>) -> Source {
        Source::new(io::Cursor::new(bytes)).unwrap()
    }

    fn digest(bytes: &[u8]) -> String {
        hexadecimal(&Sha256::digest(bytes))
    }

    #[test]
    fn the_window_slides_over_all_blocks() {
        let bytes: Vec<u8> = (0..3 * BLOCK + 1000).map(|at| (at / 7) as u8).collect();
        for stored in [bytes.clone(), gzip(&bytes)] {
            let mut source = source(stored.clone());
            assert_eq!(source.is_compressed(), stored != bytes);
            let mut seen = Vec::new();
            loop {
                let next = source.fill(1000).unwrap();
                let count = next.len().min(1000);
                seen.extend_from_slice(&next[..count]);
                source.consume(count);
                if count == 0 {
                    break;
                }
            }
            assert!(seen == bytes);
            assert_eq!(source.position(), bytes.len() as u64);
            assert_eq!(source.finish().unwrap(), digest(&stored));
        }
    }

    #[test]
    fn the_digest_is_of_the_whole_file_however_little_was_looked_at() {
        let bytes = vec![7; 9 * BLOCK];
        let mut source = source(bytes.clone());
        assert_eq!(source.fill(10).unwrap()[..3], [7, 7, 7]);
        assert_eq!(source.finish().unwrap(), digest(&bytes));
    }

    #[test]
    fn cut_gzip_gives_what_comes_before_and_says_so() {
        let bytes: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut cut = gzip(&bytes);
        cut.truncate(cut.len() / 2);
        let mut source = source(cut.clone());
        let mut seen = Vec::new();
        source.read_to_end(&mut seen).unwrap();
        assert!(source.is_cut());
        assert!(seen.len() > 1000 && bytes.starts_with(&seen));
        assert_eq!(source.finish().unwrap(), digest(&cut));
    }

    #[test]
    fn damaged_gzip_is_an_error_in_its_place() {
        let mut damaged = gzip(&[1; 100]);
        let at = damaged.len() - 6;
        damaged[at] ^= 0xff;
        let mut source = source(damaged.clone());
        let mut seen = Vec::new();
        let error = source.read_to_end(&mut seen).unwrap_err();
        assert_eq!((error.kind(), seen.len()), (io::ErrorKind::InvalidData, 100));
        assert_eq!(source.finish().unwrap(), digest(&damaged));
    }
}
