/** docs/reference/configuration.md, made from the code: environment variables, places, and every limit with its reason. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import * as limits from "../../src/base/limits.ts";
import { resolvePaths } from "../../src/sdk/index.ts";

export const configurationPagePath = "docs/reference/configuration.md";

/** The files that read the environment for a user; each variable of theirs has its line here. */
const READERS = ["src/sdk/paths.ts", "bin/belljar"];
const VARIABLES: Readonly<Record<string, string>> = {
  BELLJAR_ROOT: "directory of all state, where no `--root` is given",
  BELLJAR_RUN: "directory of sockets and pid files; each root has one of its own in it",
  BELLJAR_GUEST: "directory of guest images, which all roots of a host share",
  BELLJAR_TEMPLATES: "directory of templates; `templates` in the root unless told",
  BELLJAR_POOL:
    "VMs that run and wait for the next sandboxes, of a daemon that is started; none unless told. Each takes the memory of a small VM",
  BELLJAR_SPARES:
    "VMMs that wait for the next restores and forks, of a daemon that is started; none unless told. Each takes 30 MB of memory",
  HOME: "of users other than root: state lies in `.local/share/belljar` of it",
  XDG_DATA_HOME: "of users other than root: in place of `.local/share` of the home directory",
  XDG_RUNTIME_DIR: "of users other than root: where sockets lie",
  NODE_COMPILE_CACHE: "in a clone: where compiled code is kept; an empty one keeps none",
};

export async function renderConfigurationPage(repository: string): Promise<string> {
  const texts = await Promise.all(READERS.map((path) => readFile(join(repository, path), "utf8")));
  const read = new Set(
    texts.flatMap((text) =>
      [...text.matchAll(/env\["([A-Z_]+)"\]|^export ([A-Z_]+)$/gm)].map((match) => match[1] ?? match[2] ?? ""),
    ),
  );
  const known = Object.keys(VARIABLES);
  const wrong = [...new Set([...read, ...known])].filter((name) => !read.has(name) || !known.includes(name));
  if (wrong.length > 0)
    throw new Error(`tools/reference/configuration.ts and what is read differ: ${wrong.join(", ")}`);
  const root = resolvePaths({}, {}, 0);
  return `# Configuration

<!-- Made from ${READERS.join(", ")} and src/base/limits.ts by \`npm run generate\`. -->

There is no configuration file. What a sandbox is like is said when it is created; where things lie is said by these variables, which the
command line reads and the library does not (\`resolvePaths\` reads them for a program that wants that).

| variable | meaning |
| --- | --- |
${known.map((name) => `| \`${name}\` | ${VARIABLES[name]} |`).join("\n")}

## Places

| what | of root |
| --- | --- |
${Object.entries(root)
  .map(([name, path]) => `| ${name} | \`${path}\` |`)
  .join("\n")}

\`run\` ends in eight digits that stand for the root's path; the daemon's socket in it is \`belljard.sock\`. With a group \`belljar\` on the host, its
members may use that socket, which makes them as powerful as the root's owner.

## Daemon

A daemon that the command line started ends by itself when it has had no client and no VM for ${limits.apiLimits.idleExitMs / 1000} seconds, and writes to \`belljard.log\` in the
root; at ${limits.apiLimits.logMaxBytes / 2 ** 20} MiB that is put aside as \`belljard.log.old\`, and begun anew. \`packaging/\` has units for systemd, with a socket: copy both to \`/etc/systemd/system\` and enable \`belljard.socket\`. The API is served
over TCP only with TLS and tokens: \`belljar daemon run --tcp ADDR:PORT --tls-cert FILE --tls-key FILE --token-file FILE\`.
Metrics are read with \`GET /metrics\` on its socket; traces are sent to a collector with \`--otlp-endpoint\` or \`OTEL_EXPORTER_OTLP_ENDPOINT\`.

## Limits

Fixed in this version. Times are in milliseconds, sizes in bytes unless the name says otherwise.

${renderLimits(await readFile(join(repository, "src/base/limits.ts"), "utf8"))}
`;
}

function renderLimits(source: string): string {
  const groups = [
    ...source.matchAll(/((?:^\/\*\*(?:(?!\*\/)[\s\S])*\*\/\n)?)^export const (\w+) = \{\n([\s\S]*?)^\} as const;/gm),
  ];
  return groups
    .map(([, comment = "", group = "", body = ""]) => {
      const values: object = Object(Reflect.get(limits, group));
      const rows = [...body.matchAll(/((?:^ {2}\/\*\*(?:(?!\*\/)[\s\S])*\*\/\n)?)^ {2}(\w+):/gm)].map(
        ([, reason = "", name = ""]) => `| \`${name}\` | ${String(Reflect.get(values, name))} | ${textOf(reason)} |`,
      );
      const head = comment === "" ? "" : `${textOf(comment)}\n\n`;
      return `### ${group}\n\n${head}| limit | value | reason |\n| --- | --- | --- |\n${rows.join("\n")}`;
    })
    .join("\n\n");
}

function textOf(comment: string): string {
  return comment
    .replaceAll(/^\s*\/?\*+\/?/gm, "")
    .replaceAll("*/", "")
    .replaceAll(/\s+/g, " ")
    .replaceAll("|", "\\|")
    .trim();
}
