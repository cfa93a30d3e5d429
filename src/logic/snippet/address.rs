//! Whose URL is this? Ours are on the loopback address; anything else belongs to somebody else.

use std::net::IpAddr;

/// The parts of an http or https URL that we look at.
struct Parts<'a> {
    /// `http` or `https`.
    scheme: &'a str,
    /// Without brackets.
    host: &'a str,
    /// As written, perhaps empty.
    port: &'a str,
    /// From the first `/` on, without query and fragment.
    path: &'a str,
}

/// Takes a URL apart; `None` for whatever is not plainly `http[s]://HOST[:PORT][/…]`. User names,
/// backslashes and variables (`${PORT}`) are not plain: what they point at is not what they show.
fn parts(url: &str) -> Option<Parts<'_>> {
    let (scheme, rest) = url.split_once("://")?;
    if !matches!(scheme, "http" | "https") {
        return None;
    }
    let rest = &rest[..rest.find(['?', '#']).unwrap_or(rest.len())];
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = match authority.strip_prefix('[') {
        Some(inner) => {
            let (host, after) = inner.split_once(']')?;
            (host, after.strip_prefix(':').or(after.is_empty().then_some(""))?)
        }
        None => authority.split_once(':').unwrap_or((authority, "")),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '_');
    let right = !host.is_empty()
        && host.chars().all(plain)
        && port.len() <= 5
        && port.bytes().all(|b| b.is_ascii_digit());
    right.then_some(Parts { scheme, host, port, path })
}

/// True if `url` plainly points at this host's loopback address, on any port.
#[must_use]
pub fn is_loopback(url: &str) -> bool {
    parts(url).is_some_and(|parts| {
        parts.host.eq_ignore_ascii_case("localhost")
            || parts.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    })
}

/// True if both plainly name the same host in the same scheme, on whatever port.
pub(super) fn same_host(one: &str, other: &str) -> bool {
    match (parts(one), parts(other)) {
        (Some(one), Some(other)) => one.scheme == other.scheme && one.host == other.host,
        (None, _) | (_, None) => false,
    }
}

/// A URL for a message: its scheme, host and port, and its path if it is on this host. Queries,
/// user names and other hosts' paths may be credentials and are left out.
#[must_use]
pub fn shown(url: &str) -> String {
    let Some(Parts { scheme, host, port, path }) = parts(url) else {
        return "an address of another kind".to_owned();
    };
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let port = if port.is_empty() { String::new() } else { format!(":{port}") };
    let path = if is_loopback(url) && path.bytes().all(|b| b.is_ascii_graphic()) { path } else { "" };
    format!("{scheme}://{host}{port}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_loopback_address_is_ours() {
        for ours in [
            "http://127.0.0.1:3456/mcp",
            "http://localhost/mcp",
            "https://LOCALHOST:1",
            "http://[::1]:3456/mcp",
            "http://127.8.8.8:65535/x?y#z",
        ] {
            assert!(is_loopback(ours), "{ours}");
        }
        for theirs in [
            "http://127.0.0.1@evil.example/mcp",
            "http://127.0.0.1:80@evil.example/mcp",
            "http://127.0.0.1\\@evil.example/",
            "http://127.0.0.1.evil.example/",
            "http://localhost.evil.example:3456/mcp",
            "http://evil.example/?http://127.0.0.1:3456/",
            "http://evil.example#@127.0.0.1/",
            "http://127.0.0.1:${PORT}/mcp",
            "http://[::1]x:3/mcp",
            "http://[::1",
            "ftp://127.0.0.1/",
            "unix:///run/x.sock#/mcp",
            "127.0.0.1:3456",
            "http://",
            "",
        ] {
            assert!(!is_loopback(theirs), "{theirs}");
        }
    }

    #[test]
    fn a_message_shows_no_part_of_a_url_that_may_be_a_credential() {
        assert_eq!(shown("https://u:pw@mcp.example/x"), "an address of another kind");
        assert_eq!(shown("https://mcp.example:8443/s/SECRET/mcp?key=SECRET"), "https://mcp.example:8443");
        assert_eq!(shown("http://127.0.0.1:3456/mcp?key=SECRET"), "http://127.0.0.1:3456/mcp");
        assert_eq!(shown("http://[::1]:3456/mcp"), "http://[::1]:3456/mcp");
    }
}
