//! Tools that go on as tasks (the extension of SEP-2663): the call is answered at once with a
//! task, which the client then asks after.

use std::time::Duration;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ClientCapabilities, ContentBlock,
    CreateTaskResult, InputRequest,
};
use rmcp::service::RequestContext;
use rmcp::task_manager::{TaskContext, TaskExit, TaskOptions};
use rmcp::{ErrorData, RoleServer};
use serde_json::{Value, json};

use crate::ask::{self, Answers};
use crate::server::Server;

/// Those that have no answer but a task: a client that knows no tasks cannot call them.
const NEED_TASKS: &[&str] = &["failing_job", "confirm_delete", "multi_input", "test_tool_with_task"];

/// One job, with what it was given.
enum Job {
    Compute { seconds: f64, label: String },
    FailingTool,
    FailingCall,
    ConfirmDelete { filename: String },
    MultiInput,
    Greet { name: String },
}

/// Runs one of the tools that can be tasks; `None` is for a name that is none of them.
pub(crate) async fn call(
    server: &Server,
    request: &CallToolRequestParams,
    context: &RequestContext<RoleServer>,
) -> Option<Result<CallToolResponse, ErrorData>> {
    let tasks = context.client_capabilities().is_some_and(|able| able.supports_tasks());
    if !tasks && NEED_TASKS.contains(&&*request.name) {
        let able = ClientCapabilities::builder().enable_tasks().build();
        return Some(Err(ErrorData::missing_required_client_capability(able)));
    }
    let argument = |name: &str| request.arguments.as_ref().and_then(|arguments| arguments.get(name));
    let word = |name: &str| argument(name).and_then(Value::as_str).unwrap_or("?").to_owned();
    let job = match &*request.name {
        "slow_compute" => {
            let seconds = argument("seconds").and_then(Value::as_f64).unwrap_or(1.0);
            Job::Compute { seconds: seconds.clamp(0.0, 60.0), label: word("label") }
        }
        "protocol_error_job" => Job::FailingCall,
        "failing_job" => Job::FailingTool,
        "confirm_delete" => Job::ConfirmDelete { filename: word("filename") },
        "multi_input" => Job::MultiInput,
        "test_tool_with_task" => {
            // Asks before there is a task, and starts one with the answer.
            let question = [("user_name", ask::form("What is your name?", &["name"]))];
            match ask::ask(context, question, request.input_responses.as_ref(), None).await {
                Ok(Answers::Given(given)) => {
                    Job::Greet { name: ask::words(&given["user_name"], "/content/name") }
                }
                Ok(Answers::Wanted(wanted)) => return Some(Ok(wanted.into())),
                Err(error) => return Some(Err(error)),
            }
        }
        _ => return None,
    };
    if tasks {
        let run = |context: TaskContext| Box::pin(job.run_as_task(context)) as _;
        return Some(Ok(CreateTaskResult::new(server.tasks.spawn(TaskOptions::default(), run)).into()));
    }
    Some(job.run().await.map(Into::into))
}

impl Job {
    /// The job on its own; whoever started it may ask it to stop.
    async fn run_as_task(self, context: TaskContext) -> Result<CallToolResult, TaskExit> {
        match self {
            Self::ConfirmDelete { filename } => {
                let schema = json!({
                    "type": "object", "properties": { "confirm": { "type": "boolean" } }, "required": ["confirm"],
                });
                let answer = wanted(&context, "confirm", &format!("Delete {filename}?"), &schema).await?;
                Ok(say(format!("confirmed: {}", answer["content"]["confirm"])))
            }
            Self::MultiInput => {
                let schema = json!({ "type": "object", "properties": { "value": { "type": "string" } }, "required": ["value"] });
                let (first, second) = tokio::join!(
                    wanted(&context, "first", "The first value?", &schema),
                    wanted(&context, "second", "The second value?", &schema),
                );
                let (first, second) = (first?, second?);
                let value = |answer: &Value| ask::words(answer, "/content/value");
                Ok(say(format!("{} and {}", value(&first), value(&second))))
            }
            Self::Compute { .. } | Self::FailingTool | Self::FailingCall | Self::Greet { .. } => {
                tokio::select! {
                    () = context.cancelled() => Err(TaskExit::Cancelled),
                    result = self.run() => result.map_err(TaskExit::Error),
                }
            }
        }
    }

    /// The job while its caller waits.
    async fn run(self) -> Result<CallToolResult, ErrorData> {
        // A task is to be seen working before it is done.
        let work = |seconds| tokio::time::sleep(Duration::from_secs_f64(seconds));
        match self {
            Self::Compute { seconds, label } => {
                work(seconds).await;
                Ok(say(format!("{label} took {seconds} s")))
            }
            Self::FailingTool => {
                work(0.5).await;
                Ok(CallToolResult::error(vec![ContentBlock::text("the job did not work, as it should")]))
            }
            Self::FailingCall => {
                work(0.2).await;
                Err(ErrorData::internal_error("the call did not work, as it should", None))
            }
            Self::Greet { name } => {
                work(0.2).await;
                Ok(say(format!("Hello, {name}!")))
            }
            Self::ConfirmDelete { .. } | Self::MultiInput => {
                Err(ErrorData::internal_error("cannot ask outside a task", None))
            }
        }
    }
}

/// Parks the task until the client has answered.
async fn wanted(context: &TaskContext, key: &str, message: &str, schema: &Value) -> Result<Value, TaskExit> {
    let params = json!({ "mode": "form", "message": message, "requestedSchema": schema });
    let question = json!({ "method": "elicitation/create", "params": params });
    let question: InputRequest = serde_json::from_value(question)
        .map_err(|error| TaskExit::Error(ErrorData::internal_error(error.to_string(), None)))?;
    context.request_input(key, question).await
}

fn say(text: String) -> CallToolResult {
    CallToolResult::success(vec![ContentBlock::text(text)])
}
