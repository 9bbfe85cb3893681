/** Hooks of containers that are directories of this host, with plain processes in their place. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { identifyProcess } from "../src/base/index.ts";
import { findHooks, type HookPlace, runHooks } from "./hooks.ts";
import { PipeMaker } from "./pipes.ts";
import { GuestProcess } from "./process.ts";
import { PlainRuntime } from "./testing/plain-runtime.ts";
import { runTool } from "./tools.ts";

interface Containers extends AsyncDisposable {
  readonly runtime: PlainRuntime;
  /** Makes a container with these hooks: the shell's words of each. */
  add(containerId: string, hooks: Readonly<Record<string, string>>): Promise<HookPlace>;
}

async function makeContainers(): Promise<Containers> {
  const dir = await mkdtemp(join(tmpdir(), "belljar-hooks-"));
  const runtime = new PlainRuntime();
  const pipes = new PipeMaker(join(dir, "pipes"), runTool);
  return {
    runtime,
    add: async (containerId, hooks) => {
      const root = join(dir, containerId);
      const hooksDir = join(root, "etc/belljar/hooks");
      await mkdir(hooksDir, { recursive: true });
      for (const [name, body] of Object.entries(hooks)) {
        await writeFile(join(hooksDir, name), `#!/bin/sh\n${body}\n`, { mode: 0o755 });
      }
      return {
        containerId,
        root,
        launch: async (program, environment) => {
          const processDir = await mkdtemp(join(root, "process-"));
          const processFile = join(processDir, "process.json");
          const env = [`ROOT=${root}`, ...Object.entries(environment).map(([name, value]) => `${name}=${value}`)];
          await writeFile(processFile, JSON.stringify({ args: [root + program], env }));
          return await GuestProcess.start(
            { pipes, runtime, oomKills: async () => 0 },
            { containerId, dir: processDir, what: { processFile }, terminal: false, stdin: false },
          );
        },
      };
    },
    [Symbol.asyncDispose]: async () => await rm(dir, { recursive: true, force: true }),
  };
}

test("each container's own hook is run, and told what happens", async () => {
  await using containers = await makeContainers();
  const one = await containers.add("one", { "after-resume": "echo $EVENT >$ROOT/said", "before-save": "exit 1" });
  const none = await containers.add("none", {});
  const many = ["a", "b", "c", "d", "e"].map((id) => containers.add(id, { "after-resume": "echo $EVENT >$ROOT/said" }));
  const found = await findHooks([none, one, ...(await Promise.all(many))]);
  assert.deepEqual(
    found.map(({ place, names }) => [place.containerId, names.size]),
    [["one", 2], ...["a", "b", "c", "d", "e"].map((id) => [id, 1])],
  );
  assert.deepEqual(await runHooks(found, "after-resume", { EVENT: "resumed" }), []);
  for (const { place } of found) assert.equal(await readFile(join(place.root, "said"), "utf8"), "resumed\n");
});

test("only what can be executed is a hook; a link is one for the container to follow", async () => {
  await using containers = await makeContainers();
  const place = await containers.add("one", {});
  const dir = join(place.root, "etc/belljar/hooks");
  await writeFile(join(dir, "before-save"), "no program", { mode: 0o644 });
  await mkdir(join(dir, "after-resume"));
  assert.deepEqual(await findHooks([place]), []);
  await symlink("/nowhere/at/all", join(dir, "after-restore"));
  const found = await findHooks([place]);
  const [failure, ...others] = await runHooks(found, "after-restore", {});
  assert.deepEqual([failure?.containerId, failure?.hook, others], ["one", "after-restore", []]);
  assert.match(failure?.message ?? "", /cannot be run/);
});

test("a hook that fails says why, and one that does not end is killed; the others run all the same", async () => {
  await using containers = await makeContainers();
  const places = await Promise.all([
    containers.add("fails", { "before-save": "echo out; echo the disk is full >&2; exit 3" }),
    containers.add("hangs", { "before-save": "echo $$ >$ROOT/pid; exec sleep 1000" }),
    containers.add("works", { "before-save": "echo done >$ROOT/said" }),
  ]);
  const failures = await runHooks(await findHooks(places), "before-save", {}, 500);
  assert.deepEqual(
    failures.map(({ containerId, message }) => [containerId, message]),
    [
      ["fails", "it ended with status 3: the disk is full"],
      ["hangs", "it did not end in time, and was killed"],
    ],
  );
  assert.equal(await readFile(join(places[2].root, "said"), "utf8"), "done\n");
  const pid = Number(await readFile(join(places[1].root, "pid"), "utf8"));
  while ((await identifyProcess(pid)) !== undefined) await new Promise((resolve) => setTimeout(resolve, 5));
});

test("a hook whose start takes too long is told, and ended when it has started", async () => {
  await using containers = await makeContainers();
  const place = await containers.add("slow", { "before-save": "exec sleep 1000" });
  const goOn = Promise.withResolvers<void>();
  containers.runtime.beforeLaunch = () => goOn.promise;
  const failures = await runHooks(await findHooks([place]), "before-save", {}, 100);
  assert.deepEqual(
    failures.map(({ message }) => message),
    ["it could not be started in time"],
  );
  goOn.resolve();
  while (containers.runtime.lastPid === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  const { lastPid } = containers.runtime;
  while ((await identifyProcess(lastPid)) !== undefined) await new Promise((resolve) => setTimeout(resolve, 5));
});
