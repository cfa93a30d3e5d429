//! What an env file says, once it has been read.

use crate::model::Secret;

/// One assignment of an env file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// `[A-Za-z_][A-Za-z0-9_]*`, unique in its file.
    pub name: Box<str>,
    /// The value, literally; nothing was substituted.
    pub value: Secret,
    /// The line it begins on, from 1.
    pub line: u32,
}

/// All assignments of one file, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Variables(pub Vec<Variable>);

impl Variables {
    /// The assignment of `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Variable> {
        self.0.iter().find(|variable| &*variable.name == name)
    }
}
