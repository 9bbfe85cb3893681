/** docs/reference/sdk.md, made from what the package exports. */
import { join } from "node:path";
import { declarationsOf } from "./declarations.ts";

export const sdkPagePath = "docs/reference/sdk.md";

const HEAD = `# Library

<!-- Made from src/sdk/public.ts by \`npm run generate\`. -->

\`import { Runtime } from "belljar"\`: for Node 22.18 and later, ES modules, types included (they need \`@types/node\`). \`Runtime.connect()\` talks
to the daemon of a root and starts it where there is none; \`Runtime.open()\` owns the root in its own process. Both have one interface.
Every failure is a [\`BelljarError\`](errors.md). Units stand in names; whatever can wait takes an \`AbortSignal\`; handles are
\`AsyncDisposable\`, and disposing of a sandbox deletes it only where this handle created it.
`;

/** First what programs begin with. */
const FIRST = [
  "Runtime",
  "ConnectedRuntime",
  "OpenOptions",
  "ConnectOptions",
  "Sandboxes",
  "SandboxHandle",
  "ContainerHandle",
  "ProcessHandle",
];

export async function renderSdkPage(repository: string): Promise<string> {
  const all = await declarationsOf(join(repository, "src/sdk/public.ts"));
  const rank = (name: string): number => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length);
  const sorted = all.toSorted((a, b) => rank(a.name) - rank(b.name) || a.name.localeCompare(b.name, "en"));
  const index = sorted.map(({ name }) => `[${name}](#${name.toLowerCase()})`).join(", ");
  const sections = sorted.map(({ name, text }) => `## ${name}\n\n\`\`\`typescript\n${text}\n\`\`\``);
  return `${HEAD}\n${index}\n\n${sections.join("\n\n")}\n`;
}
