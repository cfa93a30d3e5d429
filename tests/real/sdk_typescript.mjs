// What a client of the TypeScript SDK sees of a server behind mcpsup: node sdk_typescript.mjs TARGET MODE.
// TARGET is a door's URL, or a program that speaks stdio. MODE is `auto` (2026-07-28 first, falling back), `legacy` or a
// revision. Prints one line per feature, exits 1 if any failed; what the server does not have is said.

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';

const [target, mode] = process.argv.slice(2);
let failed = 0;
const saw = (feature, ok, what) => {
    failed += !ok;
    console.log(`${ok ? 'ok  ' : 'FAIL'} ${feature}: ${String(what).replace(/\s+/g, ' ').slice(0, 110)}`);
};
const textOf = result => (result.content ?? []).map(part => part.text ?? '').join(' ');

const client = new Client(
    { name: 'sdk-typescript', version: '1' },
    {
        capabilities: { sampling: {}, elicitation: {} },
        versionNegotiation: { mode: mode === 'auto' || mode === 'legacy' ? mode : { pin: mode } }
    }
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
await client.connect(
    target.startsWith('http:')
        ? new StreamableHTTPClientTransport(new URL(target))
        : new StdioClientTransport({ command: target })
);

const version = client.getNegotiatedProtocolVersion();
saw('opened', version === mode || mode === 'auto' || (mode === 'legacy' && version < '2026'), version);
const { tools } = await client.listTools();
const names = tools.map(tool => tool.name);
const [name, args, sign] = names.includes('echo')
    ? ['echo', { message: 'hello' }, 'Echo: hello']
    : ['get_current_time', { timezone: 'Asia/Tokyo' }, 'Asia/Tokyo'];
saw('tools/list', names.includes(name), `${names.length} tools`);
const said = textOf(await client.callTool({ name, arguments: args }));
saw('tools/call', said.includes(sign), said);
if (names.includes('echo')) {
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
    saw('progress', steps.length >= 3 && steps.every((step, at) => at === 0 || steps[at - 1] < step), steps);
    for (const [feature, name, args, sign] of [
        ['sampling', 'trigger-sampling-request', { prompt: 'hi', maxTokens: 10 }, 'sampled by the client'],
        ['elicitation', 'trigger-elicitation-request', {}, 'Name: Alice']
    ]) {
        const text = textOf(await client.callTool({ name, arguments: args }));
        saw(feature, text.includes(sign), text);
    }
} else {
    console.log('none resources, prompts, progress, sampling, elicitation: the server has none of them');
}
await client.close();
process.exit(failed ? 1 : 0);
