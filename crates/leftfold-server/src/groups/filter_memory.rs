//! The memory that filters of running groups are charged to.
//!
//! **Owns:** [`FilterMemory`], [`FilterCharge`]. **Does not know:** how much there is; how large a filter is.
//! **Invariants:** what a charge took is free again when it is dropped.

use std::{fmt, sync::Arc};

/// Takes bytes for one filter, or refuses them.
type Take = Box<dyn FnMut(usize) -> bool + Send + Sync>;

/// The memory of all filters.
#[derive(Clone)]
pub(crate) struct FilterMemory(Arc<dyn Fn() -> Take + Send + Sync>);

impl FilterMemory {
    /// `begin` makes what takes bytes for one filter and, when it is dropped, gives them back.
    pub(crate) fn new<T>(begin: impl Fn() -> T + Send + Sync + 'static) -> Self
    where
        T: FnMut(usize) -> bool + Send + Sync + 'static,
    {
        Self(Arc::new(move || Box::new(begin())))
    }

    /// Creates an empty charge.
    pub(super) fn begin(&self) -> FilterCharge {
        FilterCharge((self.0)())
    }
}

impl fmt::Debug for FilterMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilterMemory").finish_non_exhaustive()
    }
}

/// What one filter takes.
pub(super) struct FilterCharge(Take);

impl FilterCharge {
    /// Takes this many more bytes; returns whether they were there.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        (self.0)(bytes)
    }
}

impl fmt::Debug for FilterCharge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilterCharge").finish_non_exhaustive()
    }
}
