//! What stands between the values of a JSON file: blanks, comments, commas.

/// The place after the blanks and comments that begin at `at`, and after the last comment of them.
fn skip(text: &str, mut at: usize) -> (usize, usize) {
    let mut comment = at;
    loop {
        let rest = &text[at..];
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else {
            let blanks = rest.len() - rest.trim_start().len();
            if blanks == 0 {
                return (at, comment);
            }
            at += blanks;
            continue;
        };
        at += length;
        // A carriage return belongs to the line end.
        comment = at - usize::from(text[..at].ends_with('\r'));
    }
}

/// The place after the comma that follows a member, if one does.
pub(super) fn comma_after(text: &str, at: usize) -> Option<usize> {
    let (next, _) = skip(text, at);
    text[next..].starts_with(',').then_some(next + 1)
}

/// The place after the last comment that begins on the line of `at`.
pub(super) fn end_of_remark(text: &str, at: usize) -> usize {
    let mut end = at;
    loop {
        let rest = &text[end..];
        let blanks = rest.len() - rest.trim_start_matches([' ', '\t']).len();
        if !rest[blanks..].starts_with("//") && !rest[blanks..].starts_with("/*") {
            return end;
        }
        let line = rest[blanks..].starts_with("//");
        end += blanks;
        end += if line {
            text[end..].find('\n').unwrap_or(text.len() - end)
        } else {
            text[end..].find("*/").map_or(text.len() - end, |close| close + 2)
        };
        if line {
            return end - usize::from(text[..end].ends_with('\r'));
        }
    }
}

/// The place after the comments that begin at `at`; `at` itself if there are none.
pub(super) fn end_of_comments(text: &str, at: usize) -> usize {
    skip(text, at).1
}
