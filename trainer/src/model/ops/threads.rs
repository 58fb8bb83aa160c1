//! How work on the CPU is shared out among threads: by rows, each thread the same ones from
//! operation to operation, so that they stay in its core's cache.

use rayon::{ThreadPool, ThreadPoolBuilder};
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// 0 while nobody has said.
static THREADS: AtomicUsize = AtomicUsize::new(0);

/// Sets how many threads training may use on the CPU, for the whole process.
/// Any number gives the same weights.
pub fn set_threads(threads: usize) {
    THREADS.store(threads, Ordering::Relaxed);
}

thread_local! {
    /// What [`on_threads`] said, 0 outside of it.
    static OF_THIS_THREAD: Cell<usize> = const { Cell::new(0) };
}

/// Does work whose training may use so many threads, whatever [`set_threads`] says
/// for others: several trainings at once share the cores so.
pub fn on_threads<T>(threads: usize, work: impl FnOnce() -> T) -> T {
    let before = OF_THIS_THREAD.replace(threads);
    let done = work();
    OF_THIS_THREAD.set(before);
    done
}

/// Threads that CPU work may use.
pub(crate) fn threads() -> usize {
    match OF_THIS_THREAD.get() {
        0 => of_process(),
        threads => threads,
    }
}

fn of_process() -> usize {
    // Asking the system reads files, far too slow for every product.
    static AVAILABLE: OnceLock<usize> = OnceLock::new();
    match THREADS.load(Ordering::Relaxed) {
        0 => *AVAILABLE.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from)),
        threads => threads,
    }
}

/// A pool of just so many threads, of this thread's own: trainings at once do not share
/// theirs. `None` where the system gives none.
pub(super) fn pool(threads: usize) -> Option<Arc<ThreadPool>> {
    thread_local! {
        static POOL: RefCell<Option<Arc<ThreadPool>>> = const { RefCell::new(None) };
    }
    POOL.with_borrow_mut(|pool| {
        if pool.as_ref().is_none_or(|pool| pool.current_num_threads() != threads) {
            *pool = ThreadPoolBuilder::new().num_threads(threads).build().ok().map(Arc::new);
        }
        pool.clone()
    })
}

/// Numbers that a thread is woken for at least.
const LEAST: usize = 1 << 13;

/// Rows that hold as many numbers as a thread is woken for.
pub(crate) fn least_rows(width: usize) -> usize {
    LEAST.div_ceil(width.max(1))
}

/// Rows for each thread, at least so many.
pub(crate) fn shares(rows: usize, least: usize) -> Vec<usize> {
    let count = threads().min(rows / least.max(1)).max(1);
    (0..count).map(|share| (share + 1) * rows / count - share * rows / count).collect()
}

/// `all`, rows of `width` numbers, in shares; the last takes what is left.
pub(crate) fn cut<'a, T>(mut all: &'a mut [T], shares: &[usize], width: usize) -> Vec<&'a mut [T]> {
    let mut parts = Vec::with_capacity(shares.len());
    for rows in shares.iter().take(shares.len().saturating_sub(1)) {
        let (part, rest) = all.split_at_mut(rows * width);
        parts.push(part);
        all = rest;
    }
    parts.push(all);
    parts
}

/// Of every block of `block` numbers (a step's, say) the part of each share: by share, then by
/// block.
pub(crate) fn cut_blocks<'a, T>(
    all: &'a mut [T],
    block: usize,
    shares: &[usize],
    width: usize,
) -> Vec<Vec<&'a mut [T]>> {
    let blocks = all.len() / block.max(1);
    let mut parts: Vec<Vec<_>> = shares.iter().map(|_| Vec::with_capacity(blocks)).collect();
    for block in all.chunks_exact_mut(block.max(1)) {
        for (part, rows) in parts.iter_mut().zip(cut(block, shares, width)) {
            part.push(rows);
        }
    }
    parts
}

/// With each share's part where it begins, in rows.
pub(crate) fn numbered<'a, P: 'a>(
    parts: impl IntoIterator<Item = P> + 'a,
    shares: &'a [usize],
) -> impl Iterator<Item = (usize, P)> + 'a {
    let mut next = 0;
    parts.into_iter().zip(shares).map(move |(part, rows)| {
        next += rows;
        (next - rows, part)
    })
}

/// Does what each share has to do, all at once; within a share nothing is shared out again.
pub(crate) fn share_out<W: Send>(mut work: Vec<W>, run: &(impl Fn(W) + Sync)) {
    if work.len() > 1 {
        let rest = work.split_off(work.len() / 2);
        rayon::join(|| share_out(work, run), || share_out(rest, run));
        return;
    }
    on_threads(1, || work.into_iter().for_each(run));
}

/// Runs on shares of `out`, rows of `width` numbers: with the first row, and the rows.
pub(crate) fn by_rows<T: Send>(out: &mut [T], width: usize, run: impl Fn(usize, &mut [T]) + Sync) {
    let shares = shares(out.len() / width.max(1), least_rows(width));
    match shares.len() {
        1 => run(0, out),
        _ => share_out(
            numbered(cut(out, &shares, width), &shares).collect(),
            &|(first, rows): (usize, &mut [T])| run(first, rows),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_one_share() {
        for threads in [1, 2, 3, 8] {
            on_threads(threads, || {
                // Two rows are enough to wake a thread for; three numbers are left over.
                let width = LEAST / 2;
                let mut numbers = vec![0; 11 * width + 3];
                by_rows(&mut numbers, width, |first, rows| {
                    assert_eq!(super::threads(), 1);
                    let whole = rows.chunks_mut(width).filter(|row| row.len() == width);
                    assert!(whole.count() >= 2);
                    rows.iter_mut().enumerate().for_each(|(at, n)| *n += first * width + at);
                });
                assert!(numbers.iter().enumerate().all(|(at, &number)| at == number));

                let shares = shares(7, 2);
                assert_eq!(shares.len(), threads.min(3));
                let mut blocks = vec![0; 5 * 7 * 2];
                let parts = cut_blocks(&mut blocks, 14, &shares, 2);
                share_out(numbered(parts, &shares).collect(), &|(first, blocks): (_, Vec<_>)| {
                    for (block, rows) in blocks.into_iter().enumerate() {
                        let rows: &mut [usize] = rows;
                        let begin = block * 14 + first * 2;
                        rows.iter_mut().enumerate().for_each(|(at, n)| *n += begin + at);
                    }
                });
                assert!(blocks.iter().enumerate().all(|(at, &number)| at == number));
            });
        }
        on_threads(4, || assert_eq!(shares(0, 1), [0]));
    }
}
