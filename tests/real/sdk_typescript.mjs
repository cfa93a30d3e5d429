// What a client of the TypeScript SDK sees of server-everything at one door: node sdk_typescript.mjs URL MODE.
// MODE is `auto` (2026-07-28 first, falling back) or `legacy`. Prints one line per feature, exits 1 if any failed.

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

const [url, mode] = process.argv.slice(2);
let failed = 0;
const saw = (feature, ok, what) => {
    failed += !ok;
    console.log(`${ok ? 'ok  ' : 'FAIL'} ${feature}: ${String(what).slice(0, 110)}`);
};

const client = new Client(
    { name: 'sdk-typescript', version: '1' },
    { capabilities: { sampling: {}, elicitation: {} }, versionNegotiation: { mode } }
);
client.setRequestHandler('sampling/createMessage', async () => ({
    role: 'assistant',
    content: { type: 'text', text: 'sampled by the client' },
    model: 'none'
}));
client.setRequestHandler('elicitation/create', async () => ({
    action: 'accept',
    content: { name: 'Alice', check: true }
}));
await client.connect(new StreamableHTTPClientTransport(new URL(url)));

const { tools } = await client.listTools();
const names = tools.map(tool => tool.name);
saw('tools/list', names.includes('echo'), `${names.length} tools`);
const echo = await client.callTool({ name: 'echo', arguments: { message: 'hello' } });
saw('tools/call', echo.content[0].text === 'Echo: hello', echo.content[0].text);
const { resources } = await client.listResources();
const read = await client.readResource({ uri: resources[0].uri });
saw('resources', read.contents.length === 1, resources[0].uri);
const { prompts } = await client.listPrompts();
const prompt = await client.getPrompt({ name: 'simple-prompt' });
saw('prompts', prompts.length > 0 && prompt.messages.length > 0, prompt.messages[0].content.text);
const steps = [];
await client.callTool(
    { name: 'trigger-long-running-operation', arguments: { duration: 1, steps: 4 } },
    { onprogress: ({ progress }) => steps.push(progress) }
);
saw('progress', steps.length >= 3, steps);
for (const [feature, name, args, sign] of [
    ['sampling', 'trigger-sampling-request', { prompt: 'hi', maxTokens: 10 }, 'sampled by the client'],
    ['elicitation', 'trigger-elicitation-request', {}, 'Alice']
]) {
    if (!names.includes(name)) {
        console.log(`none ${feature}: the server does not offer ${name} to this client`);
        continue;
    }
    const answer = await client.callTool({ name, arguments: args });
    const text = answer.content.map(part => part.text ?? '').join(' ');
    saw(feature, text.includes(sign), text);
}
await client.close();
process.exit(failed ? 1 : 0);
