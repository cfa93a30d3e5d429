//! (STUB: another hand writes this file.)

use crate::model::Problem;
use crate::model::env::Variables;

/// (STUB)
///
/// # Errors
///
/// (STUB)
pub fn parse(_bytes: &[u8], file: &str) -> Result<Variables, Vec<Problem>> {
    Err(vec![Problem::new(file, "cannot be read by this build")])
}

/// (STUB)
#[must_use]
pub fn quote(value: &str) -> String {
    format!("'{value}'")
}
