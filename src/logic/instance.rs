//! One instance's life. (Being written.)

use std::sync::Arc;

use crate::model::Spec;

/// What should be, for one instance.
#[derive(Debug, Clone, PartialEq)]
pub enum Want {
    /// Nothing should run.
    Never,
    /// What runs may go on, but nothing is started: its file is broken or unreadable and no good
    /// version is known.
    Keep,
    /// A run of exactly this.
    Always(Arc<Spec>),
}
