//! Reads that must not wait for the disk, and reads that end when their caller has left.
//!
//! Both are for callers of an async runtime: the former run on its threads, the latter on threads for what may wait.
//!
//! **Owns:** the mode of a thread during such a read: that it must not wait and how many steps it has left, or who waits for it.
//! **Does not know:** what is read, and which thread repeats the read if it would wait.
//! **Invariants:** the mode ends with the read, even by a panic; the result of a read in which a step would have waited is
//! discarded, whatever it is.
//!
//! The mode belongs to the thread and is no argument of the thirty functions between a cursor and a file. Only functions that
//! touch files or run for long look at it (docs/adr/0015-read-in-place.md).

use std::{
    cell::{Cell, RefCell},
    io,
    sync::Weak,
};

use crate::{disk::DiskFile, error::StorageError};

/// Maximum steps of a read; each takes about a tenth of a microsecond.
const STEPS_MAX: u32 = 2_048;

thread_local! {
    static STATE: Cell<Mode> = const { Cell::new(Mode::Blocking) };
    /// Who waits for a read in the mode `Wanted`.
    static CALLER: RefCell<Weak<()>> = const { RefCell::new(Weak::new()) };
}

#[derive(Clone, Copy)]
enum Mode {
    /// Reads may wait for the disk.
    Blocking,
    /// Reads may wait for the disk, and end when their caller has left.
    Wanted,
    /// Reads must not wait, and this many steps are left.
    NoWait(u32),
    /// A step would have waited, or the steps ran out.
    WouldBlock,
}

/// Restores the mode that was set before.
struct Restored(Mode);

impl Drop for Restored {
    fn drop(&mut self) {
        STATE.set(self.0);
    }
}

/// Runs a read without waiting for the disk. `None` if that failed, because data is not in memory or there is too
/// much to do. Then the caller repeats the whole read where waiting does no harm.
pub(crate) fn try_nowait<T>(read: impl FnOnce() -> T) -> Option<T> {
    let _restored = Restored(STATE.replace(Mode::NoWait(STEPS_MAX)));
    let result = read();
    match STATE.get() {
        Mode::Blocking | Mode::Wanted | Mode::NoWait(_) => Some(result),
        Mode::WouldBlock => None,
    }
}

/// Runs a read that may wait for the disk, and ends it with an error soon after the last `Arc` of `caller` was dropped.
///
/// For reads on a thread of their own, which goes on when the task that waits for it is gone. A query of many types and tags can
/// take such a thread, and the memory of its terms, for minutes.
pub fn while_wanted<T>(caller: &Weak<()>, read: impl FnOnce() -> T) -> T {
    let _restored = Restored(STATE.replace(Mode::Wanted));
    CALLER.replace(caller.clone());
    read()
}

/// Runs what others wait for too, to its end, also within [`while_wanted`].
pub(crate) fn for_everybody<T>(work: impl FnOnce() -> T) -> T {
    let _restored = Restored(STATE.replace(Mode::Blocking));
    work()
}

/// Returns whether this thread must not wait.
pub(crate) fn is_on() -> bool {
    matches!(STATE.get(), Mode::NoWait(_) | Mode::WouldBlock)
}

/// Charges this many steps.
///
/// # Errors
/// If fewer are left, or if the caller of the read has left.
pub(crate) fn charge(steps: u32) -> Result<(), StorageError> {
    match STATE.get() {
        Mode::Blocking => Ok(()),
        Mode::Wanted => match CALLER.with_borrow(Weak::strong_count) {
            0 => Err(StorageError::directory("read", abandoned())),
            _ => Ok(()),
        },
        Mode::NoWait(left) if left >= steps => {
            STATE.set(Mode::NoWait(left - steps));
            Ok(())
        }
        Mode::NoWait(_) | Mode::WouldBlock => Err(StorageError::directory("read", give_up())),
    }
}

/// Fills `buf` from byte `at` of the file on.
///
/// # Errors
/// What the system reports, or that the read would wait.
pub(crate) fn read_exact_at(file: &dyn DiskFile, buf: &mut [u8], at: u64) -> io::Result<()> {
    if !is_on() {
        return file.read_exact_at(buf, at);
    }
    if file.read_if_cached(buf, at)? {
        Ok(())
    } else {
        Err(give_up())
    }
}

fn abandoned() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "nobody waits for it")
}

/// Ends the read: sets the mode to `WouldBlock`, by which [`try_nowait`] discards this error.
pub(crate) fn give_up() -> io::Error {
    STATE.set(Mode::WouldBlock);
    io::ErrorKind::WouldBlock.into()
}

#[cfg(test)]
mod tests {
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        sync::Arc,
    };

    use super::*;

    #[test]
    fn a_read_that_gave_up_is_not_believed_even_if_it_went_on() {
        let believed = try_nowait(|| {
            let _ = give_up();
            charge(1).is_err()
        });
        assert_eq!(believed, None);
        assert_eq!(try_nowait(|| charge(1).is_ok()), Some(true));
    }

    #[test]
    fn a_read_that_takes_too_many_steps_is_given_up() {
        assert!(try_nowait(|| charge(STEPS_MAX).is_ok()).is_some());
        assert!(try_nowait(|| charge(STEPS_MAX + 1).is_ok()).is_none());
        assert!(!is_on());
        assert!(charge(u32::MAX).is_ok());
    }

    #[test]
    fn a_read_ends_once_its_caller_has_left_and_what_others_wait_for_does_not() {
        let caller = Arc::new(());
        let wanted = Arc::downgrade(&caller);
        while_wanted(&wanted, || {
            assert!(!is_on());
            assert!(charge(u32::MAX).is_ok());
            drop(caller);
            assert!(charge(1).is_err());
            assert!(for_everybody(|| charge(1)).is_ok());
            assert_eq!(try_nowait(|| charge(1).is_ok()), Some(true));
            assert!(charge(1).is_err());
        });
        assert!(charge(1).is_ok());
    }

    #[test]
    fn a_thread_may_wait_again_after_a_read_that_panicked() {
        let panicked = catch_unwind(AssertUnwindSafe(|| try_nowait(|| panic!("of the test"))));
        assert!(panicked.is_err());
        assert!(!is_on());
    }
}
