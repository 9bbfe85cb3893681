/** The README's examples, run as they stand there. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { cliEnvironment, tempDir, test } from "../support/harness.ts";

const run = promisify(execFile);
const repository = join(import.meta.dirname, "../..");

/** The code blocks of one language below a heading. */
async function blocks(heading: string, language: string): Promise<string[]> {
  const text = await readFile(join(repository, "README.md"), "utf8");
  const section = text.split(/^## /m).find((part) => part.startsWith(heading)) ?? "";
  return [...section.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\``, "gms"))].map((match) => match[1] ?? "");
}

test("the commands under 'Try it' do what they say", async (t) => {
  const [first = ""] = await blocks("Try it", "console");
  const commands = first.split("\n").filter((line) => line.startsWith("$ "));
  const outcomes: { status: number; stdout: string; stderr: string }[] = [];
  for (const command of commands) {
    const options = { cwd: repository, env: cliEnvironment(t) };
    const outcome = await run("sh", ["-c", command.slice(2)], options).then(
      ({ stdout, stderr }) => ({ status: 0, stdout, stderr }),
      (error: { code: number; stdout: string; stderr: string }) => ({
        status: error.code,
        stdout: error.stdout,
        stderr: error.stderr,
      }),
    );
    outcomes.push(outcome);
  }
  assert.match(outcomes[0]?.stdout ?? "", /^6\.\d+\./);
  assert.deepEqual(outcomes.slice(1), [
    { status: 7, stdout: "out\n", stderr: "err\n" },
    { status: 0, stdout: "abc", stderr: "" },
    { status: 0, stdout: `${process.version}\n`, stderr: "" },
  ]);
});

test("the commands for a container in the background work in their order", async (t) => {
  const [, second = ""] = await blocks("Try it", "console");
  const commands = second.split("\n").filter((line) => line.startsWith("$ "));
  assert.equal(commands.length, 5);
  const outputs: string[] = [];
  for (const command of commands) {
    const options = { cwd: repository, env: cliEnvironment(t) };
    outputs.push((await run("sh", ["-c", command.slice(2)], options)).stdout);
  }
  assert.match(outputs[1] ?? "", /demo.*running/);
  assert.match(outputs[3] ?? "", /sh -c/);
});

test("the commands that freeze and fork work in their order", async (t) => {
  const [, , third = ""] = await blocks("Try it", "console");
  const commands = third.split("\n").filter((line) => line.startsWith("$ "));
  const outputs: string[] = [];
  for (const command of commands) {
    const options = { cwd: repository, env: cliEnvironment(t) };
    outputs.push((await run("sh", ["-c", command.slice(2)], options)).stdout);
  }
  const running = (outputs[4] ?? "").split("\n").filter((line) => line.includes("running"));
  assert.deepEqual(running.map((line) => line.split(/ +/)[1]).sort(), ["again", "counter", "f1", "f2", "f3"]);
  assert.equal(outputs.at(-1), "before\n");
});

test("the program under 'From a program' runs", async (t) => {
  const [code = ""] = await blocks("From a program", "ts");
  assert.match(code, /from "belljar"/);
  const file = join(await tempDir(t), "example.ts");
  const sdk = join(repository, "src/sdk/index.ts");
  // `Runtime.connect()` takes the host's directories; the test has its own.
  const source = code
    .replace('"belljar"', JSON.stringify(sdk))
    .replace("import { Runtime }", "import { Runtime, resolvePaths }")
    .replace("Runtime.connect()", "Runtime.connect({ paths: resolvePaths({}, process.env, 0) })");
  await writeFile(file, `${source}\nprocess.stdout.write(JSON.stringify({ exitCode, stdout }));\n`);
  const { stdout } = await run(process.execPath, [file], { env: cliEnvironment(t) });
  assert.deepEqual(JSON.parse(stdout), { exitCode: 0, stdout: "42\n" });
});
