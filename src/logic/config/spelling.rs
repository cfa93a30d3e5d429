//! Which key was probably meant, and how a key stands in a message.

/// A key as it stands in a message: as it is when it is an ordinary one.
pub(super) fn shown_key(key: &str) -> String {
    let ordinary = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if key.len() <= 64 && key.bytes().all(ordinary) { key.to_owned() } else { shown(key) }
}

/// A piece of the file as it may stand in a message: in quotes, not long, and with nothing in it
/// that moves a terminal's cursor.
pub(super) fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(64).collect();
    if text.chars().nth(64).is_some() {
        short.push('…');
    }
    format!("{short:?}")
}

/// The known key that `key` was probably meant to be.
pub(in crate::logic) fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    if key.len() > 128 {
        return None;
    }
    let allowed = (key.len() / 3).clamp(1, 3);
    let close = known.iter().map(|known| (slips(key, known), *known));
    close.filter(|(slips, _)| *slips <= allowed).min().map(|(_, known)| known)
}

/// How many slips of the pen lie between two words: a character too many, missing or wrong, or
/// two exchanged (optimal string alignment).
fn slips(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let wrong = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = wrong.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_the_one_that_was_meant() {
        let known = ["command", "transport", "env", "for_all", "path", "port_env", "stop"];
        assert_eq!(nearest("comand", &known), Some("command"));
        assert_eq!(nearest("trasnport", &known), Some("transport"));
        assert_eq!(nearest("evn", &known), Some("env"));
        assert_eq!(nearest("for-all", &known), Some("for_all"));
        assert_eq!(nearest("portenv", &known), Some("port_env"));
        assert_eq!(nearest("colour", &known), None);
        assert_eq!(nearest("", &known), None);
        assert_eq!(nearest(&"x".repeat(10_000), &known), None);
    }
}
