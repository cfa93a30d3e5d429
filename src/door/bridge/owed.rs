//! Messages that left the exchange and did not reach their clients yet.
//!
//! A connection takes one message at a time and holds it until its client has read it. Many clients
//! who do not read hold many; the exchange is told of them, and so keeps within its bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;

/// Shorter messages are not counted: there is one per connection at most, and counting has a price.
const COUNTED: usize = 4 << 10;

/// How many bytes of a bridge's messages connections hold.
#[derive(Debug, Clone, Default)]
pub(super) struct Owed(Arc<AtomicUsize>);

impl Owed {
    pub(super) fn bytes(&self) -> usize {
        self.0.load(Relaxed)
    }

    /// Counts a message until whoever sends it lets go of it.
    pub(super) fn count(&self, message: Vec<u8>) -> Bytes {
        if message.len() <= COUNTED {
            return message.into();
        }
        self.0.fetch_add(message.len(), Relaxed);
        Bytes::from_owner(Counted { message, owed: self.clone() })
    }
}

struct Counted {
    message: Vec<u8>,
    owed: Owed,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.message
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.owed.0.fetch_sub(self.message.len(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_counts_until_its_last_piece_is_let_go() {
        let owed = Owed::default();
        let (small, mut large) = (owed.count(vec![0; COUNTED]), owed.count(vec![0; 100_000]));
        assert_eq!(owed.bytes(), 100_000);
        let piece = large.split_to(10);
        drop((small, large));
        assert_eq!((piece.len(), owed.bytes()), (10, 100_000));
        drop(piece);
        assert_eq!(owed.bytes(), 0);
    }
}
