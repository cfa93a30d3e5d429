//! What somebody wants changed in an env file without ever seeing it.

use crate::model::{Secret, ServerName};

/// One change of one user's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// This variable shall have this value. `mcpsup set`
    Set {
        /// As it was said; whether it may be one is not decided here.
        name: String,
        /// Literally.
        value: Secret,
    },
    /// This variable shall not be there. `mcpsup unset`
    Unset {
        /// As it was said.
        name: String,
    },
    /// The user wants this server, which is not for everybody. `mcpsup enable`
    Enable(ServerName),
    /// The user does not want it any more. `mcpsup disable`
    Disable(ServerName),
}
