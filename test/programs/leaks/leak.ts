/** A test file that passes and leaves one thing behind, the kind that LEAK names: the harness must fail it. */
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, openSync, watch, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { test as ownedTest } from "../../support/harness.ts";

const run = (program: string, ...args: string[]): string => execFileSync(program, args).toString("utf8");

const leaks: Readonly<Record<string, () => Promise<void> | void>> = {
  nothing: () => {},
  child: () => {
    spawn("sleep", ["300"], { stdio: "ignore" });
  },
  "detached process": () => {
    spawn("sh", ["-c", "sleep 300 & exit"], { stdio: "ignore", detached: true }).unref();
  },
  "process without environment": () => {
    const env = { PATH: "/usr/bin:/bin" };
    spawn("tail", ["-f", "/dev/null", join(tmpdir(), "x")], { stdio: "ignore", detached: true, env }).unref();
  },
  "pid file of virtiofsd": () => {
    mkdirSync("/run/virtiofsd", { recursive: true, mode: 0o700 });
    writeFileSync(join("/run/virtiofsd", `${join(tmpdir(), "s").replaceAll("/", ".")}.pid`), "1\n");
  },
  "temporary file": () => writeFileSync(join(tmpdir(), "left"), "x"),
  "state of a root": () => {
    mkdirSync(join(process.env["BELLJAR_ROOT"] ?? "", "sandboxes"), { recursive: true });
  },
  "open file": () => {
    openSync(tmpdir(), "r");
  },
  "unix socket": () => listen(join(tmpdir(), "s")),
  "TCP port": () => listen(0),
  "watched file": () => {
    watch(tmpdir());
  },
  mount: () => {
    mkdirSync(join(tmpdir(), "m"));
    run("mount", "-t", "tmpfs", "none", join(tmpdir(), "m"));
  },
  "loop device": () => {
    writeFileSync(join(tmpdir(), "disk"), Buffer.alloc(1024 * 1024));
    run("losetup", "--find", join(tmpdir(), "disk"));
  },
  "network device": () => {
    run("ip", "link", "add", "bj-leak0", "type", "dummy");
  },
  "network namespace": () => {
    run("ip", "netns", "add", "bj-leak");
  },
};

async function listen(where: string | number): Promise<void> {
  await new Promise<void>((resolve) =>
    createServer().listen(
      { ...(typeof where === "number" ? { port: where, host: "127.0.0.1" } : { path: where }) },
      resolve,
    ),
  );
}

if (process.env["LEAK"] === "test that leaves a process") {
  ownedTest("leaves a process behind", async () => {
    spawn("sleep", ["300"], { stdio: "ignore", detached: true }).unref();
  });
} else {
  test("leaves something behind", async () => {
    const leak = leaks[process.env["LEAK"] ?? ""];
    if (leak === undefined) throw new Error(`there is no leak of this kind: ${process.env["LEAK"]}`);
    await leak();
  });
}
