//! Memory for weights: zeroed pages, large ones where the system has them.

use half::{bf16, f16};
use memmap2::{Advice, MmapMut};
use std::{
    io,
    marker::PhantomData,
    ops::{Deref, DerefMut},
};

/// Numbers for which every pattern of bits is a value, and all bits zero is 0.
pub(crate) trait Plain: Copy + Send + Sync + 'static {}

impl Plain for f32 {}
impl Plain for bf16 {}
impl Plain for f16 {}
impl Plain for u8 {}

/// A slice of its own pages, aligned to them.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    pages: MmapMut,
    len: usize,
    kind: PhantomData<T>,
}

impl<T: Plain> Slab<T> {
    /// So many zeros.
    pub(crate) fn zeroed(len: usize) -> io::Result<Self> {
        let bytes = len.checked_mul(size_of::<T>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let pages = MmapMut::map_anon(bytes.max(1))?;
        // Reading gigabytes in order touches a new page every 4 KiB: with large pages the walk costs a tenth less. A
        // system without them refuses, and nothing is lost.
        let _ = pages.advise(Advice::HugePage);
        Ok(Self { pages, len, kind: PhantomData })
    }
}

impl<T: Plain> Deref for Slab<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the pages hold `len` elements, are aligned far beyond any element, and any bits are a value of `T`.
        unsafe { std::slice::from_raw_parts(self.pages.as_ptr().cast(), self.len) }
    }
}

impl<T: Plain> DerefMut for Slab<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.pages.as_mut_ptr().cast(), self.len) }
    }
}
