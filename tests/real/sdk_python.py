"""What a client of the Python SDK sees of server-everything at one door: python sdk_python.py URL MODE.

MODE is `auto` (2026-07-28 first, falling back), `legacy` or a revision. Prints one line per feature and exits 1 if any
failed.
"""

import asyncio
import sys

from mcp import Client, types


async def sampled(context, params):
    return types.CreateMessageResult(
        role="assistant", content=types.TextContent(type="text", text="sampled by the client"), model="none"
    )


async def elicited(context, params):
    return types.ElicitResult(action="accept", content={"name": "Alice", "check": True})


async def main(url: str, mode: str) -> int:
    failed = 0

    def saw(feature: str, ok: bool, what: object) -> None:
        nonlocal failed
        failed += not ok
        print(f"{'ok  ' if ok else 'FAIL'} {feature}: {str(what)[:110]}")

    async with Client(
        url, mode=mode, sampling_callback=sampled, elicitation_callback=elicited, read_timeout_seconds=20
    ) as client:
        tools = {tool.name for tool in (await client.list_tools()).tools}
        saw("tools/list", "echo" in tools, f"{len(tools)} tools")
        answer = await client.call_tool("echo", {"message": "hello"})
        saw("tools/call", answer.content[0].text == "Echo: hello", answer.content[0].text)
        resources = (await client.list_resources()).resources
        read = await client.read_resource(str(resources[0].uri))
        saw("resources", len(read.contents) == 1, resources[0].uri)
        prompts = (await client.list_prompts()).prompts
        got = await client.get_prompt("simple-prompt")
        saw("prompts", len(prompts) > 0 and len(got.messages) > 0, got.messages[0].content.text)
        steps = []

        async def progress(done, total, message):
            steps.append(done)

        await client.call_tool("trigger-long-running-operation", {"duration": 1, "steps": 4}, progress_callback=progress)
        saw("progress", steps == sorted(steps) and len(steps) >= 3, steps)
        for feature, tool, arguments, sign in [
            ("sampling", "trigger-sampling-request", {"prompt": "hi", "maxTokens": 10}, "sampled by the client"),
            ("elicitation", "trigger-elicitation-request", {}, "Alice"),
        ]:
            if tool not in tools:
                print(f"none {feature}: the server does not offer {tool} to this client")
                continue
            answer = await client.call_tool(tool, arguments)
            text = " ".join(part.text for part in answer.content if part.type == "text")
            saw(feature, sign in text, text)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1], sys.argv[2])))
