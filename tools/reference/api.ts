/** docs/reference/api.md, made from the definitions of the API: every service, every message. */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";

export const apiPagePath = "docs/reference/api.md";
const DEFINITIONS = "src/protocol/belljar/api/v1";

const HEAD = `# API of the daemon

<!-- Made from ${DEFINITIONS} by \`npm run generate\`. -->

[Connect](https://connectrpc.com/docs/protocol/) on the root's Unix socket: HTTP/2 for programs, and HTTP/1.1 with JSON for everything else.
A method is a POST to \`/belljar.api.v1.SERVICE/METHOD\`:

\`\`\`console
$ curl --unix-socket /run/belljar/077804f2/belljard.sock -H 'Content-Type: application/json' -d '{"sandbox":"web"}' \\
    http://belljard/belljar.api.v1.SandboxService/GetSandbox
\`\`\`

An error is \`{"code":...,"message":...}\` with Connect's code, and the reason, facts and causes as a detail (\`ErrorDetail\` below). A client may say
which version of the API it speaks with the header \`belljar-api-version: 1\`; one of another version is refused. Streams of output, input,
files, logs and events go by offset or number: after a lost connection a client asks for what comes behind the last it has.
\`GET /metrics\` answers in Prometheus' text format.
`;

export async function renderApiPage(repository: string): Promise<string> {
  const names = (await readdir(join(repository, DEFINITIONS))).filter((name) => name.endsWith(".proto")).sort();
  const sections = names.map(async (name) => {
    const text = await readFile(join(repository, DEFINITIONS, name), "utf8");
    const body = text.replace(/^[\s\S]*?\n(?=(?:\/\/[^\n]*\n)*(?:service|message|enum) )/, "");
    const about =
      /^((?:\/\/[^\n]*\n)+)syntax/
        .exec(text)?.[1]
        ?.replaceAll(/^\/\/ ?/gm, "")
        .trim() ?? "";
    return `## ${name}\n\n${about}\n\n\`\`\`proto\n${body.trimEnd()}\n\`\`\``;
  });
  return `${HEAD}\n${(await Promise.all(sections)).join("\n\n")}\n`;
}
