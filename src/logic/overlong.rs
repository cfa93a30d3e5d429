//! What stands for a line of a stdio process that was too long to be kept.
//!
//! If it was the answer to a call, somebody waits for it, and an error is better than nothing. Ours
//! are the ids that processes answer with: plain numbers. Most programs write the id first or last,
//! so it is looked for in both ends of the line and nowhere else; where it is not found, the line is
//! as if it had never been said. A wrong guess can only be about a call to the same process.

/// An error answer for the call whose answer began with `head` and ended with `tail`, as one line
/// without its end.
#[must_use]
pub fn answer(head: &[u8], tail: &[u8]) -> Option<Vec<u8>> {
    error(head, tail, "the server's answer was longer than max_message allows")
}

/// The same for a line that came whole and is no message, as one byte of it is no UTF-8, say. It must name
/// the protocol: what a program writes about itself may have an `id` as well.
#[must_use]
pub fn of_broken(line: &[u8]) -> Option<Vec<u8>> {
    let head = &line[..line.len().min(END)];
    let tail = &line[line.len().saturating_sub(END)..];
    let names = |end: &[u8]| end.windows(PROTOCOL.len()).any(|bytes| bytes == PROTOCOL);
    (names(head) || names(tail)).then_some(())?;
    error(head, tail, "the server's answer was not a JSON-RPC message")
}

fn error(head: &[u8], tail: &[u8], text: &str) -> Option<Vec<u8>> {
    let id = first_id(head).or_else(|| last_id(tail))?;
    let error =
        format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{{\"code\":-32603,\"message\":\"{text}\"}}}}");
    Some(error.into_bytes())
}

const KEY: &[u8] = b"\"id\"";
const PROTOCOL: &[u8] = b"\"jsonrpc\"";

/// So many bytes of either end of a line are looked at.
const END: usize = 4096;

/// The id, if it comes before what may hold others.
fn first_id(head: &[u8]) -> Option<u64> {
    let inner = head.iter().skip(1).position(|&byte| byte == b'{').map_or(head.len(), |at| at + 1);
    let at = head[..inner].windows(KEY.len()).position(|bytes| bytes == KEY)?;
    number(&head[at + KEY.len()..])
}

/// The id, if nothing that may hold others comes after it.
fn last_id(tail: &[u8]) -> Option<u64> {
    let at = tail.windows(KEY.len()).rposition(|bytes| bytes == KEY)?;
    let rest = &tail[at..];
    let braces = rest.iter().filter(|byte| matches!(byte, b'{' | b'}' | b'[' | b']')).count();
    number(&rest[KEY.len()..]).filter(|_| braces == 1)
}

/// The whole number behind a key.
fn number(rest: &[u8]) -> Option<u64> {
    let rest = rest.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    let end = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    if !matches!(rest[end..].trim_ascii_start().first(), Some(b',' | b'}')) {
        return None;
    }
    std::str::from_utf8(&rest[..end]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(head: &str, tail: &str) -> Option<u64> {
        let answer = answer(head.as_bytes(), tail.as_bytes())?;
        let value: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(value["error"]["code"], -32603);
        value["id"].as_u64()
    }

    #[test]
    fn who_waits_for_an_answer_that_is_no_message_is_answered_and_nobody_for_what_names_no_protocol() {
        let id = |line: &[u8]| of_broken(line).map(|answer| String::from_utf8(answer).unwrap());
        let said = id(b"{\"jsonrpc\":\"2.0\",\"id\":812,\"result\":{\"text\":\"\xff\"}}").unwrap();
        assert!(said.contains("\"id\":812,\"error\"") && said.contains("not a JSON-RPC message"), "{said}");
        let long =
            [b"{\"result\":{\"text\":\"\xff", &vec![b'x'; 20_000][..], b"\"},\"id\":9,\"jsonrpc\":\"2.0\"}"];
        assert!(id(&long.concat()).unwrap().contains("\"id\":9,"));
        assert_eq!(id(b"{\"level\":\"info\",\"id\":812,\"message\":\"\xff\"}"), None);
        assert_eq!(id(b"listening"), None);
    }

    #[test]
    fn the_id_is_found_where_programs_write_it() {
        assert_eq!(id(r#"{"jsonrpc":"2.0","id":812,"result":{"content":[{"#, r#"xxx"}]}}"#), Some(812));
        assert_eq!(id(r#"{"result":{"content":[{"#, r#"xxx"}]},"jsonrpc":"2.0","id":812}"#), Some(812));
        assert_eq!(id(r#"{ "id" : 812 , "result":{"#, "x"), Some(812));
    }

    #[test]
    fn what_is_not_surely_the_id_is_not_taken_for_it() {
        for (head, tail) in [
            // Somebody else's, further in.
            (r#"{"jsonrpc":"2.0","result":{"id":5,"a":""#, r#"xxx"}}"#),
            (r#"{"jsonrpc":"2.0","result":{"a":""#, r#"xxx","id":5}}"#),
            (r#"{"jsonrpc":"2.0","result":[""#, r#"","id":5]}"#),
            (r#"{"jsonrpc":"2.0","id":"a","result":{"#, "x"),
            (r#"{"jsonrpc":"2.0","id":8"#, "x"),
            (r#"{"jsonrpc":"2.0","method":"x","params":{"#, r#"\"id\":5}"#),
            ("", ""),
        ] {
            assert_eq!(id(head, tail), None, "{head} … {tail}");
        }
    }
}
