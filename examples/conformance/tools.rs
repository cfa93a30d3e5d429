//! The list of tools, and those that only answer.

use std::sync::Arc;
use std::time::Duration;

use rmcp::model::{
    AudioContent, CallToolRequestParams, CallToolResponse, CallToolResult, ClientCapabilities, ContentBlock,
    JsonObject, LoggingLevel, LoggingMessageNotificationParam, ProgressNotificationParam, Tool,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer};
use serde_json::{Value, json};

use crate::server::Server;
use crate::{ask, jobs, resources};

/// A PNG of one red pixel, in base64.
pub(crate) const PIXEL: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==";
/// A WAV without a sample, in base64.
const SILENCE: &str = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA=";
/// Between two notifications of one call, so that they are seen to come before its result.
const PAUSE: Duration = Duration::from_millis(20);

/// The tools that take no arguments.
const PLAIN: &[(&str, &str)] = &[
    ("test_simple_text", "Answers with a text"),
    ("test_image_content", "Answers with a picture"),
    ("test_audio_content", "Answers with a sound"),
    ("test_embedded_resource", "Answers with a resource"),
    ("test_multiple_content_types", "Answers with a text, a picture and a resource"),
    ("test_tool_with_logging", "Logs three messages on the way"),
    ("test_tool_with_progress", "Reports its progress three times"),
    ("test_logging_tool", "Logs, if the call asked for it"),
    ("test_error_handling", "Fails"),
    ("test_reconnection", "Takes its time"),
    ("test_missing_capability", "Needs a client that can sample"),
    ("test_trigger_tool_change", "Tells those who listen that the tools have changed"),
    ("test_trigger_prompt_change", "Tells those who listen that the prompts have changed"),
    ("test_elicitation_sep1034_defaults", "Asks with a form of defaults"),
    ("test_elicitation_sep1330_enums", "Asks with a form of choices"),
    ("test_streaming_elicitation", "Asks for a value"),
    ("test_input_required_result_elicitation", "Asks for a name"),
    ("test_input_required_result_sampling", "Asks the client's model"),
    ("test_input_required_result_list_roots", "Asks for the client's roots"),
    ("test_input_required_result_request_state", "Asks, and has the client remember"),
    ("test_input_required_result_tampered_state", "Asks, and notices what was tampered with"),
    ("test_input_required_result_multiple_inputs", "Asks three things at once"),
    ("test_input_required_result_multi_round", "Asks twice"),
    ("test_input_required_result_capabilities", "Asks what the client can answer"),
    ("failing_job", "A task that fails"),
    ("protocol_error_job", "A task that ends with an error"),
    ("multi_input", "A task that asks two things at once"),
    ("test_tool_with_task", "Asks, and then goes on as a task"),
];

/// The tools as `tools/list` gives them.
pub(crate) fn list() -> Vec<Tool> {
    let text = json!({ "type": "string" });
    let with = |name, what, properties: Value, required: &[&str]| {
        tool(name, what, json!({ "type": "object", "properties": properties, "required": required }))
    };
    let plain = PLAIN.iter().map(|(name, what)| with(name, what, json!({}), &[]));
    let more = [
        with("test_sampling", "Asks the client's model", json!({ "prompt": text }), &["prompt"]),
        with("test_elicitation", "Asks the user", json!({ "message": text }), &["message"]),
        with(
            "test_custom_header",
            "Takes a value that also stands in a header",
            json!({ "value": { "type": "string", "x-mcp-header": "Value" } }),
            &["value"],
        ),
        with("greet", "Greets", json!({ "name": text }), &["name"]),
        with(
            "slow_compute",
            "A task that takes its time",
            json!({ "seconds": { "type": "number" }, "label": text }),
            &[],
        ),
        with("confirm_delete", "A task that asks first", json!({ "filename": text }), &[]),
        tool("json_schema_2020_12_tool", "Has a schema with all of JSON Schema 2020-12", schema_2020_12()),
    ];
    plain.chain(more).collect()
}

fn tool(name: &'static str, what: &'static str, schema: Value) -> Tool {
    let schema: JsonObject = serde_json::from_value(schema).unwrap_or_default();
    Tool::new(name, what, Arc::new(schema))
}

/// What must come through unchanged (SEP-1613, SEP-2106).
fn schema_2020_12() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": { "street": { "type": "string" }, "city": { "type": "string" } },
            },
        },
        "properties": {
            "name": { "type": "string" },
            "address": { "$ref": "#/$defs/address" },
            "contactMethod": { "type": "string", "enum": ["phone", "email"] },
            "phone": { "type": "string" },
            "email": { "type": "string" },
        },
        "allOf": [{ "anyOf": [{ "required": ["phone"] }, { "required": ["email"] }] }],
        "if": { "properties": { "contactMethod": { "const": "phone" } }, "required": ["contactMethod"] },
        "then": { "required": ["phone"] },
        "else": { "required": ["email"] },
        "additionalProperties": false,
    })
}

/// Runs a tool.
pub(crate) async fn call(
    server: &Server,
    request: CallToolRequestParams,
    context: &RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    if let Some(answer) = ask::call(&request, context).await {
        return answer;
    }
    if let Some(answer) = jobs::call(server, &request, context).await {
        return answer;
    }
    let argument = |name: &str| {
        let value = request.arguments.as_ref().and_then(|arguments| arguments.get(name));
        value.and_then(Value::as_str).unwrap_or("?")
    };
    let picture = || ContentBlock::image(PIXEL, "image/png");
    let resource = |uri, kind, text| ContentBlock::resource(resources::text(uri, kind, text));
    let blocks = match &*request.name {
        "test_simple_text" => vec![ContentBlock::text("This is a simple text response for testing.")],
        "test_image_content" => vec![picture()],
        "test_audio_content" => vec![ContentBlock::Audio(AudioContent::new(SILENCE, "audio/wav"))],
        "test_embedded_resource" => {
            vec![resource("test://embedded-resource", "text/plain", "This is an embedded resource content.")]
        }
        "test_multiple_content_types" => {
            let data = resource(
                "test://mixed-content-resource",
                "application/json",
                r#"{"test":"data","value":123}"#,
            );
            vec![ContentBlock::text("Multiple content types test:"), picture(), data]
        }
        "test_error_handling" => {
            let text = "This tool intentionally returns an error for testing";
            return Ok(CallToolResult::error(vec![ContentBlock::text(text)]).into());
        }
        "test_tool_with_logging" => {
            for message in ["Tool execution started", "Tool processing data", "Tool execution completed"] {
                log(context, LoggingLevel::Info, message).await;
                tokio::time::sleep(PAUSE).await;
            }
            vec![ContentBlock::text("Logged.")]
        }
        "test_logging_tool" => {
            // In the modern era a client gets the log of a call only if that call asks for it.
            if let Some(level) = context.meta.log_level() {
                log(context, level, "asked for").await;
            }
            vec![ContentBlock::text("Logged, if asked to.")]
        }
        "test_tool_with_progress" => {
            report(context).await;
            vec![ContentBlock::text("Progressed.")]
        }
        "test_reconnection" => {
            tokio::time::sleep(PAUSE * 5).await;
            vec![ContentBlock::text("Here it is, wherever you are.")]
        }
        "test_missing_capability" => {
            if context.client_capabilities().is_none_or(|able| able.sampling.is_none()) {
                let needed = ClientCapabilities::builder().enable_sampling().build();
                return Err(ErrorData::missing_required_client_capability(needed));
            }
            vec![ContentBlock::text("The client can sample.")]
        }
        "test_trigger_tool_change" => {
            for listener in server.listeners() {
                // Who listens for something else, or no longer, is not told.
                drop(listener.notify_tool_list_changed().await);
            }
            vec![ContentBlock::text("Told.")]
        }
        "test_trigger_prompt_change" => {
            for listener in server.listeners() {
                drop(listener.notify_prompt_list_changed().await);
            }
            vec![ContentBlock::text("Told.")]
        }
        "test_custom_header" => vec![ContentBlock::text(argument("value"))],
        "greet" | "json_schema_2020_12_tool" => {
            vec![ContentBlock::text(format!("Hello, {}!", argument("name")))]
        }
        other => return Err(ErrorData::invalid_params(format!("there is no tool {other}"), None)),
    };
    Ok(CallToolResult::success(blocks).into())
}

async fn log(context: &RequestContext<RoleServer>, level: LoggingLevel, message: &str) {
    let message = LoggingMessageNotificationParam::new(level, json!(message)).with_logger("conformance");
    // A client that has gone misses it.
    drop(context.peer.notify_logging_message(message).await);
}

async fn report(context: &RequestContext<RoleServer>) {
    let Some(token) = context.meta.get_progress_token() else {
        return;
    };
    for progress in [0.0, 50.0, 100.0] {
        let report = ProgressNotificationParam::new(token.clone(), progress).with_total(100.0);
        drop(context.peer.notify_progress(report).await);
        tokio::time::sleep(PAUSE).await;
    }
}
