/**
 * gVisor's `runsc`, as Debian packages it, beside: the same programs run, checkpointed and restored. Its platform is `ptrace`, the only one
 * of that version that needs no KVM. The package is unpacked, not installed.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdir, open, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { runTool } from "../src/base/index.ts";
import { fillScript } from "./checkpoints.ts";
import { type Measurement, repeat } from "./measure.ts";

const REPEATS = 20;
const FILLS_MB = [1, 8, 64];
const TIMEOUT_MS = 60_000;
const POLL_MS = 1;
const NAMES = ["sh", "true", "head", "cat", "rm", "usleep", "echo"];

/** Fills memory, and counts. */
const program = (fillMb: number): string =>
  `${fillScript(fillMb)}; i=0; while :; do i=$((i+1)); echo $i; usleep 10000; done`;

export interface RunscOptions {
  /** State and bundles go below it. */
  readonly dir: string;
  /** Where the packages are unpacked, and kept. */
  readonly cache: string;
}

export async function measureRunsc({ dir, cache }: RunscOptions): Promise<Measurement[]> {
  const { runsc, busybox } = await unpack(cache);
  const peer = new Runsc(runsc, join(dir, "runsc"));
  const found: Measurement[] = [];
  await peer.bundle(busybox, ["true"]);
  const runMs = await repeat(REPEATS, async () => {
    const start = performance.now();
    await peer.call(["run", "--bundle", peer.bundleDir, peer.newName()]);
    return performance.now() - start;
  });
  found.push({ name: "runsc run true, whole process", unit: "ms", values: runMs });
  for (const fillMb of FILLS_MB) {
    await peer.bundle(busybox, ["sh", "-c", program(fillMb)]);
    const restoreMs: number[] = [];
    let sizeMb = 0;
    const checkpointMs = await repeat(REPEATS, async () => {
      const name = peer.newName();
      const image = join(dir, "runsc", `image-${name}`);
      const output = await peer.start(["run", "--bundle", peer.bundleDir, "--detach", name]);
      await peer.untilLine(output, 5);
      const start = performance.now();
      await peer.call(["checkpoint", "--image-path", image, name]);
      const tookMs = performance.now() - start;
      await peer.call(["delete", "--force", name]);
      for (const file of await readdir(image)) sizeMb = (await stat(join(image, file))).size / 1e6;
      const copy = peer.newName();
      const restoreStart = performance.now();
      const restored = await peer.start([
        "restore",
        "--image-path",
        image,
        "--bundle",
        peer.bundleDir,
        "--detach",
        copy,
      ]);
      await peer.untilLine(restored, 1);
      restoreMs.push(performance.now() - restoreStart);
      await peer.call(["kill", copy, "KILL"]);
      while ((await peer.state(copy)) !== "stopped") await sleep(POLL_MS);
      await peer.call(["delete", "--force", copy]);
      await rm(image, { recursive: true });
      return tookMs;
    });
    const what = `runsc, ${fillMb} MB written`;
    found.push(
      { name: `${what}: checkpoint, whole command, container stopped`, unit: "ms", values: checkpointMs },
      { name: `${what}: restore to its container's next output`, unit: "ms", values: restoreMs },
      { name: `${what}: image on disk`, unit: "MB", values: [sizeMb] },
    );
  }
  await rm(join(dir, "runsc"), { recursive: true, force: true });
  return found;
}

class Runsc {
  readonly bundleDir: string;
  readonly #program: string;
  readonly #dir: string;
  #last = 0;

  constructor(path: string, dir: string) {
    this.#program = path;
    this.#dir = dir;
    this.bundleDir = join(dir, "bundle");
  }

  newName(): string {
    this.#last += 1;
    return `c${this.#last}`;
  }

  async bundle(busybox: string, args: readonly string[]): Promise<void> {
    await rm(this.bundleDir, { recursive: true, force: true });
    const bin = join(this.bundleDir, "rootfs/bin");
    await mkdir(bin, { recursive: true });
    await cp(busybox, join(bin, "busybox"));
    for (const name of NAMES) await symlink("busybox", join(bin, name));
    const config = {
      ociVersion: "1.0.2",
      process: { user: { uid: 0, gid: 0 }, args, cwd: "/", env: ["PATH=/bin"] },
      root: { path: "rootfs" },
      hostname: "runsc",
      mounts: [
        { destination: "/proc", type: "proc", source: "proc" },
        { destination: "/fill", type: "tmpfs", source: "tmpfs" },
      ],
      linux: { namespaces: ["pid", "network", "ipc", "uts", "mount"].map((type) => ({ type })) },
    };
    await writeFile(join(this.bundleDir, "config.json"), JSON.stringify(config));
  }

  /** Its output goes to a file, as that of a container that is left running does. Answers the file. */
  async start(args: readonly string[]): Promise<string> {
    const output = join(this.#dir, `output-${this.newName()}`);
    await using file = await open(output, "w");
    await this.#run(args, file.fd);
    return output;
  }

  async call(args: readonly string[]): Promise<void> {
    await this.#run(args, "ignore");
  }

  async state(name: string): Promise<string> {
    const { stdout } = await runTool(this.#program, [...this.#globals(), "state", name], { timeoutMs: TIMEOUT_MS });
    return /"status": "(\w+)"/.exec(stdout.toString())?.[1] ?? "";
  }

  async untilLine(output: string, count: number): Promise<void> {
    const untilMs = performance.now() + TIMEOUT_MS;
    while ((await readFile(output, "latin1")).split("\n").length <= count) {
      if (performance.now() > untilMs) throw new Error("a container of runsc writes nothing");
      await sleep(POLL_MS);
    }
  }

  #globals(): string[] {
    return ["--root", join(this.#dir, "state"), "--platform=ptrace", "--network=none"];
  }

  async #run(args: readonly string[], output: number | "ignore"): Promise<void> {
    const child = spawn(this.#program, [...this.#globals(), ...args], { stdio: ["ignore", output, output] });
    const [status] = await once(child, "exit", { signal: AbortSignal.timeout(TIMEOUT_MS) });
    if (status !== 0) throw new Error(`runsc ${args[0]} ended with ${status}`);
  }
}

async function unpack(cache: string): Promise<{ readonly runsc: string; readonly busybox: string }> {
  const found = { runsc: join(cache, "usr/bin/runsc"), busybox: join(cache, "bin/busybox") };
  const isThere = await Promise.all([stat(found.runsc), stat(found.busybox)]).then(
    () => true,
    () => false,
  );
  if (isThere) return found;
  await mkdir(cache, { recursive: true });
  const cwd = cache;
  await runTool("apt-get", ["download", "runsc", "busybox-static"], { cwd, timeoutMs: 600_000 });
  for (const name of await readdir(cache)) {
    if (name.endsWith(".deb")) await runTool("dpkg-deb", ["-x", name, "."], { cwd });
  }
  return found;
}
