//! Messages of our own.

/// A text as a JSON string.
#[must_use]
pub fn quoted(text: &str) -> String {
    // A string always can be written.
    serde_json::to_string(text).unwrap_or_default()
}

/// A request without a newline. `id` and `params` are JSON.
#[must_use]
pub fn request(id: &str, method: &str, params: Option<&str>) -> Vec<u8> {
    let method = quoted(method);
    match params {
        Some(params) => format!(r#"{{"jsonrpc":"2.0","id":{id},"method":{method},"params":{params}}}"#),
        None => format!(r#"{{"jsonrpc":"2.0","id":{id},"method":{method}}}"#),
    }
    .into_bytes()
}

/// A notification without a newline. `params` is JSON.
#[must_use]
pub fn notification(method: &str, params: Option<&str>) -> Vec<u8> {
    let method = quoted(method);
    match params {
        Some(params) => format!(r#"{{"jsonrpc":"2.0","method":{method},"params":{params}}}"#),
        None => format!(r#"{{"jsonrpc":"2.0","method":{method}}}"#),
    }
    .into_bytes()
}

/// An answer without a newline. `id` and `result` are JSON.
#[must_use]
pub fn answer(id: &str, result: &str) -> Vec<u8> {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#).into_bytes()
}

/// An error without a newline. `id` is JSON; null if there is none.
#[must_use]
pub fn error(id: Option<&str>, code: i32, message: &str) -> Vec<u8> {
    error_with(id, code, message, None)
}

/// An error with `data`, which is JSON.
#[must_use]
pub fn error_with(id: Option<&str>, code: i32, message: &str, data: Option<&str>) -> Vec<u8> {
    let id = id.unwrap_or("null");
    let message = quoted(message);
    let data = data.map(|data| format!(r#","data":{data}"#)).unwrap_or_default();
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{message}{data}}}}}"#)
        .into_bytes()
}
