//! Prompts: plain, with arguments, with a resource, with a picture, and one that asks back.

use rmcp::model::{
    CompleteRequestParams, CompletionInfo, ContentBlock, GetPromptRequestParams, GetPromptResponse,
    GetPromptResult, Prompt, PromptArgument, PromptMessage, Role,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer};

use crate::ask::{self, Answers};
use crate::resources;
use crate::tools::PIXEL;

pub(crate) fn list() -> Vec<Prompt> {
    let argument =
        |name: &str, what: &str| PromptArgument::new(name).with_description(what).with_required(true);
    vec![
        Prompt::new("test_simple_prompt", Some("Says one thing"), None),
        Prompt::new(
            "test_prompt_with_arguments",
            Some("Says what it is given"),
            Some(vec![argument("arg1", "the first thing"), argument("arg2", "the second thing")]),
        ),
        Prompt::new(
            "test_prompt_with_embedded_resource",
            Some("Brings a resource along"),
            Some(vec![argument("resourceUri", "which one")]),
        ),
        Prompt::new("test_prompt_with_image", Some("Brings a picture along"), None),
        Prompt::new("test_input_required_result_prompt", Some("Asks for the context first"), None),
    ]
}

pub(crate) async fn get(
    request: GetPromptRequestParams,
    context: &RequestContext<RoleServer>,
) -> Result<GetPromptResponse, ErrorData> {
    let argument = |name: &str| {
        let value = request.arguments.as_ref().and_then(|arguments| arguments.get(name));
        value.and_then(|value| value.as_str()).unwrap_or_default().to_owned()
    };
    let said = |text: &str| PromptMessage::new_text(Role::User, text);
    let shown = |block: ContentBlock| PromptMessage::new(Role::User, block);
    let messages = match &*request.name {
        "test_simple_prompt" => vec![said("This is a simple prompt for testing.")],
        "test_prompt_with_arguments" => {
            let (first, second) = (argument("arg1"), argument("arg2"));
            vec![said(&format!("Prompt with arguments: arg1='{first}', arg2='{second}'"))]
        }
        "test_prompt_with_embedded_resource" => {
            let contents = resources::text(
                &argument("resourceUri"),
                "text/plain",
                "Embedded resource content for testing.",
            );
            vec![shown(ContentBlock::resource(contents)), said("Please process the embedded resource above.")]
        }
        "test_prompt_with_image" => {
            vec![shown(ContentBlock::image(PIXEL, "image/png")), said("Please analyze the image above.")]
        }
        "test_input_required_result_prompt" => {
            let wanted = [("user_context", ask::form("What is it about?", &["context"]))];
            match ask::ask(context, wanted, request.input_responses.as_ref(), None).await? {
                Answers::Given(given) => vec![said(&ask::words(&given["user_context"], "/content/context"))],
                Answers::Wanted(wanted) => return Ok(wanted.into()),
            }
        }
        other => return Err(ErrorData::invalid_params(format!("there is no prompt {other}"), None)),
    };
    Ok(GetPromptResult::new(messages).into())
}

/// What an argument may be completed to: whatever begins as it does.
pub(crate) fn complete(request: &CompleteRequestParams) -> Result<CompletionInfo, ErrorData> {
    let known = ["paris", "park", "party", "test"].into_iter();
    let values = known.filter(|word| word.starts_with(&request.argument.value)).map(str::to_owned).collect();
    CompletionInfo::with_all_values(values).map_err(|error| ErrorData::internal_error(error, None))
}
