"""What a client of the Python SDK sees of a server behind mcpsup: python sdk_python.py TARGET MODE.

TARGET is a door's URL, or a program that speaks stdio. MODE is `auto` (2026-07-28 first, falling back), `legacy` or a
revision. Prints one line per feature and exits 1 if any failed; what the server does not have is said.
"""

import asyncio
import sys

from mcp import Client, StdioServerParameters, types


async def sampled(context, params):
    return types.CreateMessageResult(
        role="assistant", content=types.TextContent(type="text", text="sampled by the client"), model="none"
    )


async def elicited(context, params):
    return types.ElicitResult(action="accept", content={"name": "Alice", "check": True})


def text_of(result):
    return " ".join(part.text for part in result.content if part.type == "text")


async def main(target: str, mode: str) -> int:
    failed = 0

    def saw(feature: str, ok: bool, what: object) -> None:
        nonlocal failed
        failed += not ok
        print(f"{'ok  ' if ok else 'FAIL'} {feature}: {' '.join(str(what).split())[:110]}", flush=True)

    server = target if target.startswith("http:") else StdioServerParameters(command=target)
    async with Client(
        server, mode=mode, sampling_callback=sampled, elicitation_callback=elicited, read_timeout_seconds=20
    ) as client:
        version = client.protocol_version
        era = version == mode or mode == "auto" or (mode == "legacy" and version < "2026")
        saw("opened", era, f"{version}")
        tools = {tool.name for tool in (await client.list_tools()).tools}
        name, arguments, sign = (
            ("echo", {"message": "hello"}, "Echo: hello")
            if "echo" in tools
            else ("get_current_time", {"timezone": "Asia/Tokyo"}, "Asia/Tokyo")
        )
        saw("tools/list", name in tools, f"{len(tools)} tools")
        said = text_of(await client.call_tool(name, arguments))
        saw("tools/call", sign in said, said)
        if "echo" not in tools:
            print("none resources, prompts, progress, sampling, elicitation: the server has none of them")
            return 1 if failed else 0
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
            ("elicitation", "trigger-elicitation-request", {}, "Name: Alice"),
        ]:
            said = text_of(await client.call_tool(tool, arguments))
            saw(feature, sign in said, said)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1], sys.argv[2])))
