//! Random bytes from the kernel.

use std::io;

/// 256 bits.
///
/// # Errors
///
/// When getrandom(2) fails, which it does only before the machine has gathered any entropy.
pub fn key() -> io::Result<[u8; 32]> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(io::Error::other)?;
    Ok(key)
}
