//! Which names in env.d are somebody's file.

use crate::model::UserName;
use crate::model::file::Seal;

/// What a name in env.d means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// This user's file.
    File(UserName),
    /// Nobody's file, and why.
    Ignored(&'static str),
    /// Nobody's file, and not worth a word: `..data` and its kind.
    Silent,
}

/// Endings that editors and package managers give to their own copies of `.env.alice`: the rest
/// would be a valid user name.
const LEFTOVERS: [&str; 13] = [
    ".swp",
    ".swo",
    ".swx",
    ".bak",
    ".orig",
    ".old",
    ".tmp",
    ".save",
    ".rej",
    ".dpkg-new",
    ".dpkg-old",
    ".rpmnew",
    ".rpmsave",
];

/// What a user's file may be called: the first is how we call it, the second is understood too, and
/// the others are encrypted.
#[must_use]
pub fn names_of(user: &UserName) -> [String; 4] {
    [
        format!("{user}.env"),
        format!(".env.{user}"),
        sealed_name(user, Seal::Creds),
        sealed_name(user, Seal::Age),
    ]
}

/// What a user's file is called that is encrypted like this.
#[must_use]
pub fn sealed_name(user: &UserName, seal: Seal) -> String {
    format!("{user}.env{}", seal.ending())
}

/// Whose file this name in env.d is, if it is somebody's.
#[must_use]
pub fn user_of(name: &str) -> Option<UserName> {
    match meaning(name) {
        Meaning::File(user) => Some(user),
        Meaning::Ignored(_) | Meaning::Silent => None,
    }
}

/// Reads a name: `alice.env`, `.env.alice` as another spelling, or `alice.env.cred`.
pub(super) fn meaning(name: &str) -> Meaning {
    if name.starts_with("..") || name == "." {
        return Meaning::Silent;
    }
    let user = if let Some(user) = name.strip_prefix(".env.") {
        if LEFTOVERS.iter().any(|ending| user.ends_with(ending)) {
            return Meaning::Ignored("it looks like an editor's or a tool's copy");
        }
        user
    } else if let Some(user) = plain_name(name).strip_suffix(".env") {
        user
    } else if name.ends_with('~') || name.starts_with(['.', '#']) {
        return Meaning::Ignored("it looks like an editor's or a tool's copy");
    } else {
        return Meaning::Ignored("a user's file is called NAME.env");
    };
    match user.parse() {
        Ok(user) => Meaning::File(user),
        Err(_) => Meaning::Ignored(
            "a user's name is 1 to 64 of letters, digits, '.', '_', '-', beginning with a letter, a digit or '_'",
        ),
    }
}

/// The name without what says that it is encrypted.
fn plain_name(name: &str) -> &str {
    Seal::of(name).and_then(|seal| name.strip_suffix(seal.ending())).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_name_the_same_user() {
        for name in ["alice.env", ".env.alice"] {
            assert_eq!(meaning(name), Meaning::File("alice".parse().unwrap()));
        }
    }

    #[test]
    fn a_sealed_file_is_its_users_and_a_user_may_have_an_ending_of_that_kind_in_their_name() {
        for name in ["alice.env.cred", "alice.env.age"] {
            assert_eq!(meaning(name), Meaning::File("alice".parse().unwrap()));
            assert!(names_of(&"alice".parse().unwrap()).contains(&name.to_owned()));
        }
        assert_eq!(meaning(".env.alice.cred"), Meaning::File("alice.cred".parse().unwrap()));
        assert_eq!(meaning("alice.cred.env"), Meaning::File("alice.cred".parse().unwrap()));
        assert!(matches!(meaning("alice.cred"), Meaning::Ignored(_)));
        assert!(matches!(meaning("alice.env.cred.bak"), Meaning::Ignored(_)));
    }

    #[test]
    fn what_editors_and_tools_leave_behind_is_nobodys_file() {
        for name in [
            ".alice.env.swp",
            ".env.alice.swp",
            "alice.env~",
            ".env.alice~",
            "#alice.env#",
            ".#alice.env",
            "4913",
            ".goutputstream-A1B2C3",
            "sedAb12Cd",
            "alice.env.bak",
            ".alice.env.Xy12Zz",
            ".nfs0001",
            "alice.env.rpmsave",
            "README",
            "example",
            ".env",
            "env",
            "-x.env",
            " .env",
            "a b.env",
            "ä.env",
        ] {
            assert!(matches!(meaning(name), Meaning::Ignored(_)), "{name}");
        }
        for name in [".", "..", "..data", "..2026_11_21_09_00_00.1", "..alice.env.7.0.tmp"] {
            assert_eq!(meaning(name), Meaning::Silent, "{name}");
        }
    }
}
