/** The commands and options that people are told of: each is there, and says what it is for. */
import assert from "node:assert/strict";
import { join } from "node:path";
import type { Command } from "commander";
import { runCli, tempDir, test } from "../../test/support/harness.ts";
import { buildProgram } from "./program.ts";

const CONTAINER = `-i -t --name --sandbox -e -w -u -m --cpus -v --mount --tmpfs --network -p --hostname --read-only --cap-add --cap-drop
  --security-opt --pids-limit --annotation --stop-signal --no-template`;

/** What may not go, nor change its name: scripts have it. */
const promised: Readonly<Record<string, string>> = {
  run: `-d --rm ${CONTAINER}`,
  create: CONTAINER,
  start: "",
  stop: "-t",
  kill: "-s",
  rm: "-f",
  wait: "",
  rename: "",
  exec: "-d -i -t -e -w -u",
  attach: "",
  logs: "-f --since --tail",
  top: "",
  stats: "--no-stream",
  inspect: "-f --format",
  ps: "-a -q -f",
  events: "--since",
  pause: "",
  resume: "",
  update: "-m --cpus --pids-limit",
  cp: "",
  "checkpoint create": "--stop",
  "checkpoint ls": "",
  "checkpoint inspect": "",
  "checkpoint verify": "",
  "checkpoint rm": "",
  "checkpoint export": "",
  "checkpoint import": "",
  restore: "--name --dry-run -p --network",
  fork: "-n --name",
  "template ls": "",
  "template build": "",
  "template rm": "",
  "image pull": "",
  "image import": "",
  "image ls": "",
  "image rm": "",
  "image inspect": "",
  "volume create": "",
  "volume ls": "",
  "volume inspect": "",
  "volume rm": "",
  "network interface add": "",
  "network interface rm": "",
  "network interface ls": "",
  "network route ls": "",
  "network route set": "",
  "device add": "",
  "device rm": "",
  "device ls": "",
  "guest build": "",
  "guest ls": "",
  "guest verify": "",
  "daemon run": "",
  "daemon status": "",
  "daemon stop": "",
  doctor: "",
  version: "",
  completion: "",
};

const program = (): Command => buildProgram({ output: undefined }, () => {});

function leavesOf(command: Command, words: readonly string[]): [string, Command][] {
  return command.commands
    .filter((each) => !each.name().startsWith("_") && each.name() !== "help")
    .flatMap((each): [string, Command][] => {
      const deeper = [...words, each.name()];
      return each.commands.length > 0 ? leavesOf(each, deeper) : [[deeper.join(" "), each]];
    });
}

test("every command and option that was promised is there", async () => {
  const leaves = new Map(leavesOf(program(), []));
  for (const [words, options] of Object.entries(promised)) {
    const command = leaves.get(words);
    assert.ok(command !== undefined, words);
    const flags = new Set(command.options.flatMap(({ short, long }) => [short, long]));
    for (const flag of options.split(/\s+/).filter(Boolean)) assert.ok(flags.has(flag), `${words} ${flag}`);
  }
});

test("every command takes the common options and says what it is for, and what each of its options is", async () => {
  for (const [words, command] of leavesOf(program(), [])) {
    assert.ok(command.summary().length > 10, words);
    const flags = command.options.map(({ long }) => long);
    for (const flag of ["--root", "--json", "--log-level"]) assert.ok(flags.includes(flag), `${words} ${flag}`);
    assert.equal(new Set(flags).size, flags.length, words);
    const shorts = command.options.flatMap(({ short }) => short ?? []);
    assert.equal(new Set(shorts).size, shorts.length, words);
    for (const { flags: name, description } of command.options) assert.ok(description.length > 3, `${words} ${name}`);
  }
});

test("what every command takes can stand before its name; behind it, it counts more", async (t) => {
  const [one, other] = [await tempDir(t), join(await tempDir(t), "ü ☃")];
  const status = async (...args: string[]): Promise<unknown> => {
    const result = await runCli(t, args);
    assert.equal(result.status, 3, result.stderr);
    return JSON.parse(result.stdout.toString());
  };
  assert.deepEqual(await status("--json", "--root", one, "daemon", "status"), { running: false, root: one });
  assert.deepEqual(await status("daemon", "--json", "status", "--root", other), { running: false, root: other });
  assert.deepEqual(await status("--root", one, "daemon", "status", `--root=${other}`, "--json"), {
    running: false,
    root: other,
  });
});

test("help and what is wrong on the command line", async (t) => {
  for (const args of [["--help"], ["help"], ["run", "--help"], ["help", "checkpoint"], ["checkpoint", "ls", "-h"]]) {
    const { status, stdout, stderr } = await runCli(t, args);
    assert.deepEqual([status, stderr, /^Usage: belljar/.test(stdout.toString())], [0, "", true], args.join(" "));
  }
  for (const [args, message] of [
    [["nonesuch"], /^belljar: unknown command 'nonesuch'/],
    [["image", "nonesuch"], /^belljar: unknown command 'nonesuch'/],
    [["ps", "--nonesuch"], /^belljar: unknown option '--nonesuch'/],
    [["exec", "name"], /^belljar: missing required argument 'command'/],
    [["run", "--memory"], /^belljar: option '-m, --memory <size>' argument missing/],
    [["run", "--accel", "fast", "image"], /is invalid. Allowed choices are auto, kvm, tcg/],
    [["rename", "one", "two", "three"], /^belljar: too many arguments/],
    [["ps", "--log-level", "loud"], /Allowed choices are debug, info, warn, error/],
    [[], /^Usage: belljar/],
    [["checkpoint"], /^Usage: belljar checkpoint/],
  ] as const) {
    const { status, stdout, stderr } = await runCli(t, args);
    assert.deepEqual([status, stdout.length], [125, 0], args.join(" "));
    assert.match(stderr, message);
  }
});
