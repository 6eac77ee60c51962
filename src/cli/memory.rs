//! How the program takes memory.

/// Bytes from which memory is taken from the system by itself, and given back when it is freed: glibc's own first value.
#[cfg(target_env = "gnu")]
const BY_ITSELF_MIN: i32 = 128 << 10;

/// Has large buffers go back to the system when they are freed.
///
/// glibc does so by itself until the first large one is freed: from then on it keeps all up to that size, in each of the pools
/// that it has for threads. Packs and row files pass from thread to thread, and these pools grew to half of what a backup held
/// at its peak. It costs some page faults, too few to be seen in the time that a backup or a restore takes.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code, reason = "there is no other way to tell the allocator")]
pub(super) fn give_back_early() {
    // SAFETY: it sets a number in the allocator; this is the only thread yet.
    let _one_if_known = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, BY_ITSELF_MIN) };
}

#[cfg(not(target_env = "gnu"))]
pub(super) fn give_back_early() {}
