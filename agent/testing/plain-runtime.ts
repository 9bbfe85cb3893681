/** Runs a container's command as a plain process of this host: real pipes, real signals, real exit statuses, no container. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { constants } from "node:os";
import { join } from "node:path";
import { Duplex } from "node:stream";
import { BelljarError } from "../../src/base/errors.ts";
import type { ContainerRuntime, Exit, Launch, Launched } from "../runtime.ts";
import { asObject, type JsonObject, parseObject } from "../spec.ts";

export class PlainRuntime implements ContainerRuntime {
  /** Awaited before each launch: lets a test stand in the middle of a start. */
  beforeLaunch: () => Promise<void> = async () => {};

  lastPid = 0;
  launches = 0;

  async launch(launch: Launch): Promise<Launched> {
    await this.beforeLaunch();
    const process = await readProcess(launch);
    const [program = "", ...args] = strings(process["args"]);
    const env = Object.fromEntries(strings(process["env"]).map((entry) => splitOnce(entry)));
    const stdio: (number | "ignore" | "pipe")[] = [launch.stdin, launch.stdout, launch.stderr];
    if (launch.program !== undefined) stdio.push(launch.program, "pipe");
    const child = spawn(program, args, { stdio, env });
    const exited = new Promise<Exit>((resolve) => {
      child.on("exit", (code, name) => {
        const signal = name === null ? 0 : constants.signals[name];
        resolve({ exitCode: code ?? 128 + signal, signal });
      });
    });
    const error: unknown = await Promise.race([once(child, "spawn").then(() => undefined), once(child, "error")]).catch(
      (cause: unknown) => cause,
    );
    if (error !== undefined || child.pid === undefined) {
      throw new BelljarError("COMMAND_NOT_FOUND", `${program} cannot be run`, { cause: error });
    }
    this.lastPid = child.pid;
    this.launches += 1;
    const line = child.stdio[4];
    return { pid: child.pid, exited, line: line instanceof Duplex ? line : undefined };
  }
}

async function readProcess({ what }: Launch): Promise<JsonObject> {
  if ("processFile" in what) return parseObject(await readFile(what.processFile), "the process");
  const spec = parseObject(await readFile(join(what.bundle, "config.json")), "the configuration");
  return asObject(spec["process"], "the process");
}

function strings(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((item) => typeof item === "string") : [];
}

function splitOnce(entry: string): [string, string] {
  const at = entry.indexOf("=");
  return [entry.slice(0, at), entry.slice(at + 1)];
}
