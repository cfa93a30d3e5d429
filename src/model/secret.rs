//! A value that must not be seen.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroize;

/// A text that cannot be printed: no `Display`, no `Serialize`, and its `Debug` is `***`.
///
/// Clones share one copy, whose memory is overwritten when the last of them is dropped. Read it
/// only where it is handed to the process it is for, or compared.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Takes a text into keeping.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        let mut text = text.into();
        let shared = Arc::from(&*text);
        text.zeroize();
        Self(shared)
    }

    /// The same text for one place more, where it is no secret.
    #[must_use]
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// The text itself. Whoever calls this promises not to log, print or store it readably.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<Arc<str>> for Secret {
    /// Takes a text in that others have too: it is overwritten when the last of them lets it go here.
    fn from(text: Arc<str>) -> Self {
        Self(text)
    }
}

/// Overwrites what was a secret, for buffers that are not ours to make.
pub fn overwrite(bytes: &mut [u8]) {
    bytes.zeroize();
}

impl Drop for Secret {
    fn drop(&mut self) {
        if let Some(text) = Arc::get_mut(&mut self.0) {
            text.zeroize();
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show_itself() {
        assert_eq!(format!("{:?}", Secret::new("hunter2hunter2")), "***");
    }
}
