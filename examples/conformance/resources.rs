//! Two resources that stand still, one that is watched, and one per id.

use rmcp::ErrorData;
use rmcp::model::{ReadResourceResult, Resource, ResourceContents, ResourceTemplate};
use serde_json::json;

use crate::tools::PIXEL;

const TEXT: &str = "test://static-text";
const BINARY: &str = "test://static-binary";
/// A resource that may be subscribed to; it never changes.
const WATCHED: &str = "test://watched-resource";
const TEMPLATE: &str = "test://template/{id}/data";

pub(crate) fn list() -> Vec<Resource> {
    vec![
        Resource::new(TEXT, "static text").with_description("A text").with_mime_type("text/plain"),
        Resource::new(BINARY, "static binary").with_description("A picture").with_mime_type("image/png"),
        Resource::new(WATCHED, "watched").with_description("A text to watch").with_mime_type("text/plain"),
    ]
}

pub(crate) fn templates() -> Vec<ResourceTemplate> {
    vec![
        ResourceTemplate::new(TEMPLATE, "by id")
            .with_description("What is known of an id")
            .with_mime_type("application/json"),
    ]
}

pub(crate) fn read(uri: &str) -> Result<ReadResourceResult, ErrorData> {
    let contents = match uri {
        TEXT => text(uri, "text/plain", "This is the content of the static text resource."),
        WATCHED => text(uri, "text/plain", "Nothing has happened yet."),
        BINARY => ResourceContents::blob(PIXEL, uri).with_mime_type("image/png"),
        _ => {
            let id = id(uri).ok_or_else(|| {
                ErrorData::resource_not_found(
                    format!("there is no resource {uri}"),
                    Some(json!({ "uri": uri })),
                )
            })?;
            let data = json!({ "id": id, "templateTest": true, "data": format!("Data for ID: {id}") });
            text(uri, "application/json", &data.to_string())
        }
    };
    Ok(ReadResourceResult::new(vec![contents]))
}

pub(crate) fn text(uri: &str, kind: &str, text: &str) -> ResourceContents {
    ResourceContents::text(text, uri).with_mime_type(kind)
}

/// The id in a URI that was made from the template.
fn id(uri: &str) -> Option<&str> {
    let (before, after) = TEMPLATE.split_once("{id}")?;
    uri.strip_prefix(before)?.strip_suffix(after).filter(|id| !id.is_empty() && !id.contains('/'))
}
