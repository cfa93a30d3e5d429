//! Tools that need to know something from their client, in either era's way.
//!
//! An old client is asked while its call goes on, with a request of the server's own. A modern one
//! gets the questions as the call's result, and calls again with the answers; what the server has
//! to remember until then travels with the client, sealed, because it comes back from a stranger.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, InputRequest, InputRequiredResult,
    InputResponses, ProtocolVersion, RequestStateCodec, ServerRequest,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer};
use serde_json::{Value, json};

/// What came of asking.
pub(crate) enum Answers {
    /// Each question's answer, by the question's name.
    Given(BTreeMap<String, Value>),
    /// To be asked first; the client will call again.
    Wanted(InputRequiredResult),
}

/// Seals what a modern client keeps for us. A server whose clients outlive it has its key in a file.
static SEAL: LazyLock<RequestStateCodec> =
    LazyLock::new(|| RequestStateCodec::new_unchecked(*b"known to everybody: for tests only"));

/// Asks the client, unless `given` holds the answers already.
///
/// A missing answer, or one that is not an object, is asked for again.
pub(crate) async fn ask<const N: usize>(
    context: &RequestContext<RoleServer>,
    questions: [(&str, Value); N],
    given: Option<&InputResponses>,
    state: Option<Value>,
) -> Result<Answers, ErrorData> {
    if !is_modern(context) {
        let mut answers = BTreeMap::new();
        for (name, question) in questions {
            answers.insert(name.to_owned(), request(context, question).await?);
        }
        return Ok(Answers::Given(answers));
    }
    let answer = |name: &str| given.and_then(|given| given.get(name)).filter(|answer| answer.is_object());
    let given: Option<_> =
        questions.iter().map(|(name, _)| Some(((*name).to_owned(), answer(name)?.clone()))).collect();
    if let Some(given) = given {
        return Ok(Answers::Given(given));
    }
    let questions: Result<_, _> =
        questions.into_iter().map(|(name, question)| Ok((name.to_owned(), typed(question)?))).collect();
    let state = state.map(|state| SEAL.seal_json(&state)).transpose();
    let state = state.map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
    Ok(Answers::Wanted(InputRequiredResult::new(Some(questions?), state)))
}

fn is_modern(context: &RequestContext<RoleServer>) -> bool {
    context.protocol_version().is_some_and(|version| version >= ProtocolVersion::V_2026_07_28)
}

/// Asks an old client, and waits for its answer.
async fn request(context: &RequestContext<RoleServer>, question: Value) -> Result<Value, ErrorData> {
    let request = match typed(question)? {
        InputRequest::CreateMessage(request) => ServerRequest::CreateMessageRequest(request),
        InputRequest::Elicitation(request) => ServerRequest::ElicitRequest(request),
        InputRequest::ListRoots(request) => ServerRequest::ListRootsRequest(request),
        other => return Err(ErrorData::internal_error(format!("cannot ask {other:?}"), None)),
    };
    let answer = context.peer.send_request(request).await;
    let answer = answer.map_err(|error| ErrorData::internal_error(format!("no answer: {error}"), None))?;
    serde_json::to_value(answer).map_err(|error| ErrorData::internal_error(error.to_string(), None))
}

fn typed(question: Value) -> Result<InputRequest, ErrorData> {
    serde_json::from_value(question).map_err(|error| ErrorData::internal_error(error.to_string(), None))
}

/// A form with a line of text for each of `fields`.
pub(crate) fn form(message: &str, fields: &[&str]) -> Value {
    let lines = fields.iter().map(|field| ((*field).to_owned(), json!({ "type": "string" })));
    let schema =
        json!({ "type": "object", "properties": Value::Object(lines.collect()), "required": fields });
    form_of(message, &schema)
}

fn form_of(message: &str, schema: &Value) -> Value {
    json!({ "method": "elicitation/create", "params": { "mode": "form", "message": message, "requestedSchema": schema } })
}

fn sampling(prompt: &str) -> Value {
    let message = json!({ "role": "user", "content": { "type": "text", "text": prompt } });
    json!({ "method": "sampling/createMessage", "params": { "messages": [message], "maxTokens": 100 } })
}

fn roots() -> Value {
    json!({ "method": "roots/list" })
}

/// The text at a place in an answer.
pub(crate) fn words(answer: &Value, place: &str) -> String {
    answer.pointer(place).and_then(Value::as_str).unwrap_or("nothing").to_owned()
}

/// Runs one of the tools that ask; `None` is for a name that is none of them.
pub(crate) async fn call(
    request: &CallToolRequestParams,
    context: &RequestContext<RoleServer>,
) -> Option<Result<CallToolResponse, ErrorData>> {
    let argument = |name: &str| {
        let value = request.arguments.as_ref().and_then(|arguments| arguments.get(name));
        value.and_then(Value::as_str).unwrap_or("?").to_owned()
    };
    let given = request.input_responses.as_ref();
    let name =
        |given: &BTreeMap<String, Value>| format!("Hello, {}!", words(&given["user_name"], "/content/name"));
    let done = |_: &BTreeMap<String, Value>| "All answers are in.".to_owned();
    let who = ("user_name", form("What is your name?", &["name"]));
    let greeting = ("greeting", sampling("Say hello"));
    let client_roots = ("client_roots", roots());
    let asked = match &*request.name {
        "test_sampling" => {
            let question = [("sample", sampling(&argument("prompt")))];
            one(ask(context, question, given, None).await, |given| {
                let said = given["sample"].pointer("/content/0").unwrap_or(&given["sample"]["content"]);
                format!("LLM response: {}", words(said, "/text"))
            })
        }
        "test_elicitation" => {
            let question = [("user", form(&argument("message"), &["username", "email"]))];
            one(ask(context, question, given, None).await, |given| spelled("User response", &given["user"]))
        }
        "test_elicitation_sep1034_defaults" => {
            let question = [("form", form_of("Is it all as it was?", &defaults()))];
            one(ask(context, question, given, None).await, |given| {
                spelled("Elicitation completed", &given["form"])
            })
        }
        "test_elicitation_sep1330_enums" => {
            let question = [("form", form_of("Choose", &choices()))];
            one(ask(context, question, given, None).await, |given| {
                spelled("Elicitation completed", &given["form"])
            })
        }
        "test_streaming_elicitation" => {
            let question = [("value", form("Which value?", &["value"]))];
            one(ask(context, question, given, None).await, done)
        }
        "test_input_required_result_elicitation" => one(ask(context, [who], given, None).await, name),
        "test_input_required_result_sampling" => {
            let question = [("capital_question", sampling("What is the capital of France?"))];
            one(ask(context, question, given, None).await, |given| {
                format!("Sampled: {}", words(&given["capital_question"], "/content/text"))
            })
        }
        "test_input_required_result_list_roots" => {
            one(ask(context, [client_roots], given, None).await, |given| {
                format!("Roots: {}", given["client_roots"]["roots"])
            })
        }
        "test_input_required_result_request_state" | "test_input_required_result_tampered_state" => {
            // Without the state that it was given, a retry is a first call.
            let given = match opened(request.request_state.as_deref()) {
                Ok(state) => state.and(given),
                Err(error) => return Some(Err(error)),
            };
            let question = [("confirm", confirmation())];
            one(ask(context, question, given, Some(json!("confirm"))).await, |_| "Confirmed: state-ok".into())
        }
        "test_input_required_result_multiple_inputs" => {
            let given = match opened(request.request_state.as_deref()) {
                Ok(state) => state.and(given),
                Err(error) => return Some(Err(error)),
            };
            let questions = [who, greeting, client_roots];
            one(ask(context, questions, given, Some(json!("gather"))).await, done)
        }
        "test_input_required_result_multi_round" => rounds(request, context).await,
        "test_input_required_result_capabilities" => able(request, context),
        _ => return None,
    };
    Some(asked)
}

fn one(
    asked: Result<Answers, ErrorData>,
    say: impl FnOnce(&BTreeMap<String, Value>) -> String,
) -> Result<CallToolResponse, ErrorData> {
    Ok(match asked? {
        Answers::Given(given) => CallToolResult::success(vec![ContentBlock::text(say(&given))]).into(),
        Answers::Wanted(wanted) => wanted.into(),
    })
}

/// Two questions, one after the other; which one it is stands in the state.
async fn rounds(
    request: &CallToolRequestParams,
    context: &RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let given = request.input_responses.as_ref();
    let first = [("step1", form("Step 1: what is your name?", &["name"]))];
    let second = [("step2", form("Step 2: what is your favourite colour?", &["color"]))];
    let state = opened(request.request_state.as_deref())?;
    if state != Some(json!(2)) {
        let given = state.and(given);
        if let Answers::Wanted(wanted) = ask(context, first, given, Some(json!(1))).await? {
            return Ok(wanted.into());
        }
    }
    one(ask(context, second, given, Some(json!(2))).await, |_| "Both steps are done.".into())
}

/// Asks only what the client has said it can answer.
fn able(
    request: &CallToolRequestParams,
    context: &RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let able = context.client_capabilities().unwrap_or_default();
    let questions = [
        ("user_name", form("What is your name?", &["name"]), able.elicitation.is_some()),
        ("greeting", sampling("Say hello"), able.sampling.is_some()),
        ("client_roots", roots(), able.roots.is_some()),
    ];
    let asked = questions.into_iter().filter(|(.., able)| *able);
    let questions: Result<BTreeMap<_, _>, _> =
        asked.map(|(name, question, _)| Ok::<_, ErrorData>((name.to_owned(), typed(question)?))).collect();
    let questions = questions?;
    if questions.is_empty() || request.input_responses.is_some() {
        return Ok(CallToolResult::success(vec![ContentBlock::text("Nothing more to ask.")]).into());
    }
    Ok(InputRequiredResult::from_input_requests(questions).into())
}

/// What we had the client keep for us; refused where it is not as we sealed it.
fn opened(state: Option<&str>) -> Result<Option<Value>, ErrorData> {
    let opened = state.map(|state| SEAL.open_json(state)).transpose();
    opened.map_err(|_| ErrorData::invalid_params("requestState is not what this server gave out", None))
}

fn confirmation() -> Value {
    let schema =
        json!({ "type": "object", "properties": { "ok": { "type": "boolean" } }, "required": ["ok"] });
    form_of("Is that right?", &schema)
}

fn spelled(what: &str, answer: &Value) -> String {
    format!("{what}: action={}, content={}", words(answer, "/action"), answer["content"])
}

/// One field of every kind, each with a default (SEP-1034).
fn defaults() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "default": "John Doe" },
            "age": { "type": "integer", "default": 30 },
            "score": { "type": "number", "default": 95.5 },
            "status": { "type": "string", "enum": ["active", "inactive", "pending"], "default": "active" },
            "verified": { "type": "boolean", "default": true },
        },
        "required": [],
    })
}

/// One choice of every kind (SEP-1330).
fn choices() -> Value {
    let titled = |words: [&str; 3]| {
        let choice = |(n, word): (usize, &str)| json!({ "const": format!("value{}", n + 1), "title": word });
        words.into_iter().enumerate().map(choice).collect::<Value>()
    };
    json!({
        "type": "object",
        "properties": {
            "untitledSingle": { "type": "string", "enum": ["option1", "option2", "option3"] },
            "titledSingle": { "type": "string", "oneOf": titled(["First Option", "Second Option", "Third Option"]) },
            "legacyEnum": {
                "type": "string",
                "enum": ["opt1", "opt2", "opt3"],
                "enumNames": ["Option One", "Option Two", "Option Three"],
            },
            "untitledMulti": {
                "type": "array",
                "items": { "type": "string", "enum": ["option1", "option2", "option3"] },
            },
            "titledMulti": {
                "type": "array",
                "items": { "anyOf": titled(["First Choice", "Second Choice", "Third Choice"]) },
            },
        },
        "required": [],
    })
}
