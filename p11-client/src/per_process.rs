//! What a child of fork(2) must have for itself: a thread that it does not have may hold the locks of its parent.

use std::process;
use std::sync::OnceLock;

/// A value of one process. A child makes its own of it.
#[derive(Debug)]
pub(crate) struct PerProcess<T> {
    pid: u32,
    value: T,
    of_child: OnceLock<Box<PerProcess<T>>>,
}

pub(crate) trait Inherit {
    /// What a child begins with. Never waits for a lock of the parent's value.
    fn inherit(&self) -> Self;
}

impl<T: Inherit> PerProcess<T> {
    pub(crate) fn new(value: T) -> Self {
        PerProcess {
            pid: process::id(),
            value,
            of_child: OnceLock::new(),
        }
    }

    pub(crate) fn get(&self) -> &T {
        let pid = process::id();
        let mut own = self;
        while own.pid != pid {
            let parents = own;
            own = parents
                .of_child
                .get_or_init(|| Box::new(PerProcess::new(parents.value.inherit())));
        }
        &own.value
    }
}

impl<T: Inherit + Default> Default for PerProcess<T> {
    fn default() -> Self {
        PerProcess::new(T::default())
    }
}
