//! Block-aligned memory that is written once and then shared.
//!
//! 1. A [`Pool`] hands out a [`Space`]: the only handle that may write into one chunk.
//! 2. Its writer fills bytes from the front and *freezes* them; frozen bytes are lent as [`Slice`]s, which any thread may hold.
//! 3. When the last of a chunk's handles is gone, on whatever thread, its memory goes back to the pool's free list.
//! 4. A pool can be divided into shares, each with a budget of its own; what a share hands out counts in the whole too.
//! 5. A chunk for something long that may never come whole is opened in steps: only what is open may be written, and only that counts.
//! 6. While large chunks are taken and none is free, [`Pool::spare`] is a job that readies the next one: the kernel takes up to milliseconds to
//!    back a huge page at its first touch.
//!
//! A shared counter per chunk was preferred to loans that must travel home: one atomic step costs 5-100 ns beside a transfer of up to
//! 256 KiB, and a holder that dies cannot leak or dangle.
//!
//! Invariants: frozen <= open <= length; a frozen byte never changes; bytes >= frozen are reachable through the one `Space` only;
//! a pool's used >= the sum of its shares'; while out <= budget, out + free <= budget.
//! Knows nothing of what the bytes mean.

use crate::job::{Job, job};
use crossbeam_queue::ArrayQueue;
use millrace_base::limits::BLOCK;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, Range};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Chunk sizes that are recycled: 4 KiB times a power of two, up to 4 MiB. A larger chunk is allocated and freed as it is.
const CLASSES: [usize; 11] = {
    let mut classes = [BLOCK; 11];
    let mut i = 1;
    while i < classes.len() {
        classes[i] = classes[i - 1] * 2;
        i += 1;
    }
    classes
};

/// The largest chunk that is recycled.
pub const RECYCLED_BYTES_MAX: usize = CLASSES[CLASSES.len() - 1];

/// Free chunks kept per class, in bytes.
const FREE_BYTES_PER_CLASS: usize = 64 << 20;

/// The same for chunks of one huge page: they come back many at a time, and given to the system and taken anew each costs a fault and
/// 2 MiB of zeros.
const FREE_BYTES_OF_HUGE_PAGES: usize = 256 << 20;

/// Where there is less memory than this, no spare chunk is readied: whoever does little takes little.
const SPARE_FROM: usize = 16 << 20;

/// Where chunks come from and return to, and the account of those that are out. Cheap to clone.
#[derive(Clone)]
pub struct Pool(Arc<Account>);

/// What is out of a pool, or of a share of one.
struct Account {
    store: Arc<Store>,
    /// The pool that this is a share of.
    whole: Option<Arc<Account>>,
    /// Bytes in chunks that are out.
    used: AtomicUsize,
    budget: usize,
    /// Somebody waits for memory of this account.
    wanted_back: AtomicBool,
    asked_back: AtomicBool,
}

/// Chunks that nobody holds, shared by a pool and its shares.
struct Store {
    free: [ArrayQueue<Raw>; CLASSES.len()],
    /// Bytes in all chunks there are, out or free.
    there: AtomicUsize,
    budget: usize,
    /// The size of huge pages of which the last free chunk was taken, until a spare one is readied; 0 is none.
    lacks: AtomicUsize,
}

/// Owns one allocation of `len` bytes, aligned to a block.
struct Raw {
    ptr: NonNull<u8>,
    len: usize,
}

// SAFETY: a Raw is the one owner of its allocation, which any thread may use and free.
unsafe impl Send for Raw {}

fn layout(len: usize) -> Layout {
    Layout::from_size_align(len, BLOCK).expect("length is a multiple of the block and far below isize::MAX")
}

/// From this length on chunks are mapped: the kernel gives zeroed pages when they are touched, where the allocator would touch them all.
const MAPPED_MIN: usize = 64 << 10;

/// Chunks of whole huge pages are aligned to them.
const HUGE_PAGE: usize = 2 << 20;

impl Raw {
    fn new(len: usize) -> Raw {
        assert!(len > 0 && len.is_multiple_of(BLOCK));
        if len >= MAPPED_MIN {
            return Raw::map(len);
        }
        // SAFETY: the layout has a size above zero.
        let ptr = unsafe { alloc_zeroed(layout(len)) };
        match NonNull::new(ptr) {
            Some(ptr) => Raw { ptr, len },
            None => handle_alloc_error(layout(len)),
        }
    }
}

impl Raw {
    fn map(len: usize) -> Raw {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let slack = if len.is_multiple_of(HUGE_PAGE) { HUGE_PAGE } else { 0 };
        // SAFETY: an anonymous map at a place of the kernel's choice touches nothing that exists.
        let ptr = unsafe { libc::mmap(std::ptr::null_mut(), len + slack, protection, flags, -1, 0) };
        if ptr == libc::MAP_FAILED {
            handle_alloc_error(layout(len));
        }
        let front = if slack > 0 { (ptr as usize).next_multiple_of(HUGE_PAGE) - ptr as usize } else { 0 };
        let start = NonNull::new(ptr.cast::<u8>().wrapping_add(front)).expect("a map is never at zero");
        let raw = Raw { ptr: start, len };
        if slack > 0 {
            raw.trim(ptr.cast(), front, slack);
        }
        raw
    }

    /// Gives back what was mapped around a chunk to align it, and asks for huge pages: one fault instead of 512.
    fn trim(&self, mapped: *mut u8, front: usize, slack: usize) {
        if front > 0 {
            // SAFETY: the front of the map just made, which lies before the chunk.
            unsafe { libc::munmap(mapped.cast(), front) };
        }
        if slack > front {
            let behind = self.ptr.as_ptr().wrapping_add(self.len);
            // SAFETY: the rest of the map just made, which lies behind the chunk.
            unsafe { libc::munmap(behind.cast(), slack - front) };
        }
        // SAFETY: the chunk's own pages; advice changes no content.
        unsafe { libc::madvise(self.ptr.as_ptr().cast(), self.len, libc::MADV_HUGEPAGE) };
    }

    /// Has the kernel give memory now. Where it does not, the first touch will.
    fn back(&self) {
        // SAFETY: the chunk's own pages; they are filled in, and keep what they hold.
        unsafe { libc::madvise(self.ptr.as_ptr().cast(), self.len, libc::MADV_POPULATE_WRITE) };
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if self.len >= MAPPED_MIN {
            // SAFETY: mapped in `map` with this length; `self` is its one owner.
            let result = unsafe { libc::munmap(self.ptr.as_ptr().cast(), self.len) };
            debug_assert_eq!(result, 0, "a whole map can be unmapped");
            return;
        }
        // SAFETY: allocated in `new` with this very layout; `self` is its one owner.
        unsafe { dealloc(self.ptr.as_ptr(), layout(self.len)) }
    }
}

impl Account {
    fn charge(&self, bytes: usize) {
        let mut account = Some(self);
        while let Some(charged) = account {
            charged.used.fetch_add(bytes, Ordering::Relaxed);
            account = charged.whole.as_deref();
        }
    }

    fn discharge(&self, bytes: usize) {
        let mut account = Some(self);
        while let Some(charged) = account {
            charged.used.fetch_sub(bytes, Ordering::Relaxed);
            account = charged.whole.as_deref();
        }
    }
}

impl Store {
    /// Counts `bytes` more. What is free in other sizes goes back to the system for it, if all together would be too much.
    fn grow(&self, bytes: usize) {
        let there = self.there.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let mut over = there.saturating_sub(self.budget);
        for free in self.free.iter().rev() {
            while over > 0
                && let Some(raw) = free.pop()
            {
                self.there.fetch_sub(raw.len, Ordering::Relaxed);
                over = over.saturating_sub(raw.len);
            }
        }
    }

    /// Takes a chunk back of which `bytes` were counted.
    fn put(&self, raw: Raw, bytes: usize) {
        let class = CLASSES.iter().position(|size| *size == raw.len && bytes == raw.len);
        let is_kept = class.is_some() && self.there.load(Ordering::Relaxed) <= self.budget;
        let left = match class.filter(|_| is_kept) {
            Some(class) => self.free[class].push(raw).err(),
            None => Some(raw),
        };
        if left.is_some() {
            self.there.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl Pool {
    /// `budget`: bytes in chunks that [`Pool::has_room`] calls too many; it is asked, not enforced, so that the caller can push back.
    pub fn new(budget: usize) -> Pool {
        let kept = |size| if size == HUGE_PAGE { FREE_BYTES_OF_HUGE_PAGES } else { FREE_BYTES_PER_CLASS };
        let free = CLASSES.map(|size| ArrayQueue::new((kept(size) / size).clamp(16, 1024)));
        Pool::account(Arc::new(Store { free, there: AtomicUsize::new(0), budget, lacks: AtomicUsize::new(0) }), None, budget)
    }

    fn account(store: Arc<Store>, whole: Option<Arc<Account>>, budget: usize) -> Pool {
        Pool(Arc::new(Account {
            store,
            whole,
            used: AtomicUsize::new(0),
            budget,
            wanted_back: AtomicBool::new(false),
            asked_back: AtomicBool::new(false),
        }))
    }

    /// A part of this pool, with a budget of its own: what it hands out is counted in both.
    pub fn share(&self, budget: usize) -> Pool {
        Pool::account(Arc::clone(&self.0.store), Some(Arc::clone(&self.0)), budget)
    }

    /// What [`Pool::take`] of `len` bytes counts.
    pub fn size_of(len: usize) -> usize {
        CLASSES.into_iter().find(|size| *size >= len).unwrap_or_else(|| len.next_multiple_of(BLOCK))
    }

    /// A chunk of at least `len` bytes (rounded up to a class or to whole blocks). Its content is arbitrary, but initialized.
    pub fn take(&self, len: usize) -> Space {
        let size = Pool::size_of(len);
        let class = CLASSES.iter().position(|class| *class == size);
        let recycled = class.and_then(|class| self.0.store.free[class].pop());
        let raw = recycled.unwrap_or_else(|| {
            self.0.store.grow(size);
            Raw::new(size)
        });
        if size.is_multiple_of(HUGE_PAGE) && class.is_some_and(|class| self.0.store.free[class].is_empty()) {
            self.0.store.lacks.store(size, Ordering::Relaxed);
        }
        self.space(raw, size)
    }

    /// A job that readies another chunk of the size that was taken last, if none of it is free and there is room for it. For the pool, not
    /// for its shares.
    pub fn spare(&self) -> Option<Job> {
        let store = &self.0.store;
        if store.lacks.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let size = store.lacks.swap(0, Ordering::Relaxed);
        let there = store.there.load(Ordering::Relaxed);
        if size == 0 || there < SPARE_FROM || there + size > store.budget {
            return None;
        }
        let store = Arc::clone(store);
        let (job, _) = job(move || {
            let raw = Raw::new(size);
            raw.back();
            store.there.fetch_add(size, Ordering::Relaxed);
            store.put(raw, size);
        });
        Some(job)
    }

    /// A chunk of at least `len` bytes, more than are recycled, of which the first `open` can be written until [`Space::open`] adds to them.
    /// What is not open has no memory behind it.
    pub fn take_in_steps(&self, len: usize, open: usize) -> Space {
        assert!(len > RECYCLED_BYTES_MAX && open <= len);
        let open = open.next_multiple_of(BLOCK);
        self.0.store.grow(open);
        self.space(Raw::new(len.next_multiple_of(BLOCK)), open)
    }

    fn space(&self, raw: Raw, open: usize) -> Space {
        self.0.charge(open);
        let chunk = Chunk { raw: Some(raw), open: AtomicUsize::new(open), home: Arc::clone(&self.0) };
        Space { chunk: Arc::new(chunk), frozen: 0 }
    }

    /// Bytes in chunks that are out.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Bytes in chunks that are out and in those that are free to be taken again, of this pool and all shares of it.
    pub fn there(&self) -> usize {
        self.0.store.there.load(Ordering::Relaxed)
    }

    pub fn budget(&self) -> usize {
        self.0.budget
    }

    /// Whether `len` more bytes stay within the budget.
    pub fn has_room(&self, len: usize) -> bool {
        self.used() + len <= self.0.budget
    }

    /// Says whether somebody waits for memory of this pool: who holds slices of it sees that by [`Slice::is_wanted_back`].
    pub fn want_back(&self, wanted: bool) {
        self.0.wanted_back.store(wanted, Ordering::Relaxed);
    }

    /// Says whether much of this pool is out, so that who holds slices of it without use is to give them back: [`Slice::is_asked_back`].
    pub fn ask_back(&self, asked: bool) {
        self.0.asked_back.store(asked, Ordering::Relaxed);
    }
}

struct Chunk {
    /// Always Some until drop.
    raw: Option<Raw>,
    /// Bytes from the front that may be written, and that are counted.
    open: AtomicUsize,
    home: Arc<Account>,
}

// SAFETY: shared access through `&Chunk` reads frozen bytes only, which no one writes any more; writes go through the one `Space`.
unsafe impl Sync for Chunk {}

impl Chunk {
    fn ptr(&self) -> *mut u8 {
        self.raw.as_ref().expect("taken in drop only").ptr.as_ptr()
    }

    fn len(&self) -> usize {
        self.raw.as_ref().expect("taken in drop only").len
    }

    fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if let Some(raw) = self.raw.take() {
            let open = self.open();
            self.home.discharge(open);
            self.home.store.put(raw, open);
        }
    }
}

/// The one writer of a chunk. Moves into a read or receive operation and comes back with its completion.
pub struct Space {
    chunk: Arc<Chunk>,
    frozen: usize,
}

impl Space {
    /// Bytes in the chunk that are open: all, unless it was taken in steps.
    pub fn capacity(&self) -> usize {
        self.chunk.open()
    }

    /// Opens the chunk up to byte `to`, or to its end.
    pub fn open(&mut self, to: usize) {
        let to = to.next_multiple_of(BLOCK).min(self.chunk.len());
        let more = to.saturating_sub(self.capacity());
        self.chunk.home.store.grow(more);
        self.chunk.home.charge(more);
        self.chunk.open.fetch_add(more, Ordering::Relaxed);
    }

    /// Bytes from the front that can no longer change.
    pub fn frozen(&self) -> usize {
        self.frozen
    }

    /// Bytes that can still be written.
    pub fn room(&self) -> usize {
        self.capacity() - self.frozen
    }

    /// Everything behind the frozen bytes.
    pub fn unfrozen(&mut self) -> &mut [u8] {
        let (from, len) = (self.frozen, self.room());
        // SAFETY: from <= capacity.
        let start = unsafe { self.chunk.ptr().add(from) };
        // SAFETY: the range lies in the allocation, is initialized, and is reachable through this `&mut self` only: slices cover frozen bytes.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }

    /// The bytes that a read or receive into `range` behind the frozen ones may write.
    pub(crate) fn target(&mut self, range: Range<u32>) -> &mut [u8] {
        assert!(!range.is_empty() && range.end as usize <= self.room(), "bytes {range:?} lie in the unfrozen part");
        &mut self.unfrozen()[range.start as usize..range.end as usize]
    }

    /// Ends writing of the next `len` bytes and lends them.
    ///
    /// # Panics
    /// When fewer than `len` bytes are left.
    pub fn freeze(&mut self, len: usize) -> Slice {
        assert!(len <= self.room());
        let start = self.frozen;
        self.frozen += len;
        Slice { chunk: Arc::clone(&self.chunk), start: start as u32, len: len as u32 }
    }

    /// Lends frozen bytes again.
    ///
    /// # Panics
    /// When `range` is not frozen.
    pub fn lend(&self, range: Range<usize>) -> Slice {
        assert!(range.start <= range.end && range.end <= self.frozen);
        Slice { chunk: Arc::clone(&self.chunk), start: range.start as u32, len: (range.end - range.start) as u32 }
    }

    /// Makes the whole chunk writable again, if no slice of it is out.
    pub fn try_thaw(&mut self) -> bool {
        let alone = Arc::get_mut(&mut self.chunk).is_some();
        if alone {
            self.frozen = 0;
        }
        alone
    }

    /// Copies `bytes` behind the frozen ones and freezes them.
    pub fn push(&mut self, bytes: &[u8]) -> Slice {
        self.unfrozen()[..bytes.len()].copy_from_slice(bytes);
        self.freeze(bytes.len())
    }
}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Space({} of {})", self.frozen, self.capacity())
    }
}

/// Frozen bytes of a chunk; cloning copies no byte. Any thread may hold and drop it.
#[derive(Clone)]
pub struct Slice {
    chunk: Arc<Chunk>,
    start: u32,
    len: u32,
}

impl Slice {
    /// # Panics
    /// When `range` is not within this slice.
    pub fn sub(&self, range: Range<usize>) -> Slice {
        assert!(range.start <= range.end && range.end <= self.len());
        Slice { chunk: Arc::clone(&self.chunk), start: self.start + range.start as u32, len: (range.end - range.start) as u32 }
    }

    /// Bytes that dropping this slice may set free: those of the whole chunk behind it.
    pub fn chunk_bytes(&self) -> usize {
        self.chunk.open()
    }

    /// Whether both are ranges of the same chunk.
    pub fn is_of_chunk(&self, other: &Slice) -> bool {
        Arc::ptr_eq(&self.chunk, &other.chunk)
    }

    /// Whether somebody waits for memory of the account that the chunk is out of.
    pub fn is_wanted_back(&self) -> bool {
        self.chunk.home.wanted_back.load(Ordering::Relaxed)
    }

    /// Whether it is to go home if its holder has no use for it now.
    pub fn is_asked_back(&self) -> bool {
        self.chunk.home.asked_back.load(Ordering::Relaxed)
    }

    /// Whether both are ranges of the same chunk and `next` begins where this ends; then [`Slice::joined`] may be used.
    pub fn is_followed_by(&self, next: &Slice) -> bool {
        Arc::ptr_eq(&self.chunk, &next.chunk) && self.start + self.len == next.start
    }

    /// Both ranges as one.
    ///
    /// # Panics
    /// When they are not adjacent.
    pub fn joined(&self, next: &Slice) -> Slice {
        assert!(self.is_followed_by(next));
        Slice { chunk: Arc::clone(&self.chunk), start: self.start, len: self.len + next.len }
    }
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: start + len <= the chunk's length.
        let start = unsafe { self.chunk.ptr().add(self.start as usize) };
        // SAFETY: the range is frozen: initialized, unchanging, and alive as long as the chunk that `self` holds.
        unsafe { std::slice::from_raw_parts(start, self.len as usize) }
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slice({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frozen_bytes_stay_while_the_writer_goes_on() {
        let pool = Pool::new(1 << 20);
        let mut space = pool.take(100);
        let first = space.push(b"first");
        let second = space.push(b"second");
        assert_eq!((&*first, &*second), (&b"first"[..], &b"second"[..]));
        assert_eq!(&*first.joined(&second), b"firstsecond");
        assert_eq!(&*space.lend(3..7), b"stse");
        assert!(!space.try_thaw());
        drop((first, second));
        assert!(space.try_thaw());
        assert_eq!(space.room(), BLOCK);
    }

    #[test]
    fn a_spare_chunk_is_readied_while_large_ones_are_taken_and_there_is_room() {
        let pool = Pool::new(24 << 20);
        let share = pool.share(24 << 20);
        let mut taken = vec![share.take(HUGE_PAGE)];
        assert!(pool.spare().is_none(), "little is taken");
        taken.extend((0..8).map(|_| share.take(HUGE_PAGE)));
        let job = pool.spare().expect("none is free");
        assert!(pool.spare().is_none(), "one is under way");
        assert_eq!((pool.there(), pool.used()), (18 << 20, 18 << 20));
        job.run();
        let spare = share.take(HUGE_PAGE);
        assert_eq!((pool.there(), pool.used()), (20 << 20, 20 << 20));
        taken.extend([spare, share.take(HUGE_PAGE), share.take(HUGE_PAGE)]);
        assert!(pool.spare().is_none(), "there is no room");
        taken.truncate(9);
        taken.push(share.take(HUGE_PAGE));
        assert!(pool.spare().is_none(), "others are free");
    }

    #[test]
    fn memory_goes_home_when_its_last_holder_is_gone_on_another_thread() {
        let pool = Pool::new(1 << 20);
        let mut space = pool.take(BLOCK);
        let slice = space.push(b"x");
        drop(space);
        assert_eq!(pool.used(), BLOCK);
        let other = std::thread::spawn(move || slice.len());
        assert_eq!(other.join().unwrap(), 1);
        assert_eq!(pool.used(), 0);
        assert!(pool.has_room(1 << 20) && !pool.has_room((1 << 20) + 1));
    }

    #[test]
    fn a_share_counts_in_the_whole_and_has_its_own_budget() {
        let pool = Pool::new(1 << 20);
        let (one, two) = (pool.share(64 << 10), pool.share(128 << 10));
        let held = (one.take(64 << 10), two.take(BLOCK));
        assert_eq!((one.used(), two.used(), pool.used()), (64 << 10, BLOCK, (64 << 10) + BLOCK));
        assert!(!one.has_room(1) && two.has_room(BLOCK) && pool.has_room(1 << 19));
        one.want_back(true);
        let mut held = held;
        assert!(held.0.push(b"x").is_wanted_back() && !held.1.push(b"x").is_wanted_back());
        drop(held);
        assert_eq!((one.used(), two.used(), pool.used()), (0, 0, 0));
    }

    #[test]
    fn what_is_free_counts_and_makes_way_for_other_sizes() {
        let pool = Pool::new(1 << 20);
        let many: Vec<Space> = (0..16).map(|_| pool.take(64 << 10)).collect();
        drop(many);
        assert_eq!((pool.used(), pool.there()), (0, 1 << 20), "free, to be taken again");
        let large = pool.take(512 << 10);
        assert_eq!((pool.used(), pool.there()), (512 << 10, 1 << 20), "half of it went for the large one");
        let second = pool.take(1 << 20);
        assert_eq!((pool.used(), pool.there()), (3 << 19, 3 << 19), "nothing is free while more is out than the budget");
        drop(second);
        assert_eq!(pool.there(), 512 << 10, "and what comes back then is not kept");
        drop(large);
    }

    #[test]
    fn a_chunk_in_steps_counts_what_is_open() {
        let pool = Pool::new(64 << 20);
        let mut space = pool.take_in_steps((90 << 20) + 1, 1 << 20);
        assert_eq!((space.room(), pool.used(), pool.there()), (1 << 20, 1 << 20, 1 << 20));
        space.unfrozen().fill(7);
        space.open(3 << 20);
        assert_eq!((space.room(), pool.used()), (3 << 20, 3 << 20));
        assert!(space.unfrozen()[..1 << 20].iter().all(|byte| *byte == 7), "opening moves nothing");
        space.open(100 << 20);
        assert_eq!(space.room(), (90 << 20) + BLOCK);
        let slice = space.freeze(1 << 20);
        assert_eq!(slice.chunk_bytes(), (90 << 20) + BLOCK);
        drop((space, slice));
        assert_eq!((pool.used(), pool.there()), (0, 0));
    }

    #[test]
    fn large_chunks_are_whole_blocks() {
        let pool = Pool::new(0);
        assert_eq!(pool.take((4 << 20) + 1).capacity(), (4 << 20) + BLOCK);
        assert_eq!(pool.take(BLOCK + 1).capacity(), 2 * BLOCK);
    }
}
