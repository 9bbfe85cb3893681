/**
 * A VM with its agent and nothing of the runtime around it: QEMU, disks and calls, as directly as they can be had. It is killed
 * with the test.
 */
import { mkdir, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { AgentClient } from "../../src/agent-client/index.ts";
import { runTool, silentLog } from "../../src/base/index.ts";
import type { ContainerConfig } from "../../src/container/config.ts";
import { buildProcess, buildSpec } from "../../src/container/spec.ts";
import { openGuestImages } from "../../src/guest/index.ts";
import { createQemu, type DiskConfig, type Vm } from "../../src/hypervisor/index.ts";
import { type ImageStore, openImageStore } from "../../src/images/index.ts";
import { resolvePaths } from "../../src/sdk/paths.ts";
import { type TestScope, tempDir } from "./harness.ts";

const MIB = 1024 * 1024;
const BOOT_TIMEOUT_MS = 60_000;
const WAIT_MS = 20_000;

export interface GuestContainerOptions extends ContainerConfig {
  readonly image?: string;
  readonly shareMemory?: boolean;
  readonly sharePids?: boolean;
  /** Serial number of a disk that was plugged. */
  readonly swap?: string;
  readonly swappiness?: number;
}

export interface CommandResult {
  readonly exitCode: number;
  readonly stdout: string;
}

export class TestGuest {
  readonly agent: AgentClient;
  readonly #vm: Vm;
  readonly #dir: string;
  readonly #images: ImageStore;
  readonly #plugged = new Set<string>();
  #execs = 0;

  private constructor(vm: Vm, dir: string, images: ImageStore) {
    this.#vm = vm;
    this.#dir = dir;
    this.#images = images;
    this.agent = new AgentClient({ socketPath: vm.agentSocketPath, timeoutMs: BOOT_TIMEOUT_MS, log: silentLog });
  }

  static async boot(t: TestScope): Promise<TestGuest> {
    const dir = await tempDir(t);
    const runDir = await tempDir(t);
    const paths = resolvePaths({}, process.env, process.getuid?.() ?? 0);
    const image = await openGuestImages({ dir: paths.guest, log: silentLog }).current();
    const { kernelPath, initrdPath, kernelArguments } = image;
    const vm = await createQemu({ log: silentLog }).start({
      id: "0123456789ab",
      runDir,
      acceleration: "tcg",
      memoryMib: 256,
      cpus: 1,
      boot: { kernelPath, initrdPath, kernelArguments },
      disks: [{ serial: "root", path: image.rootPath, format: "raw", readOnly: true }],
    });
    t.after(() => vm.kill());
    const images = await openImageStore({ dir: join(dir, "images"), guestDir: paths.guest, log: silentLog });
    const guest = new TestGuest(vm, dir, images);
    t.after(() => guest.agent.close());
    await guest.agent.hello();
    return guest;
  }

  /** Makes an image of what `fill` puts into an empty directory. */
  async makeImage(name: string, fill: (root: string) => Promise<void>): Promise<void> {
    const root = join(this.#dir, `root-${name}`);
    await mkdir(root);
    await fill(root);
    await this.#images.import(root, { kind: "rootfs", name });
  }

  /** Plugs an empty disk; answers its serial number. */
  async plugEmptyDisk(name: string, sizeMib: number): Promise<string> {
    const path = join(this.#dir, `${name}.raw`);
    await writeFile(path, Buffer.alloc(sizeMib * MIB));
    await this.#plug({ serial: name, path, format: "raw", readOnly: false });
    return name;
  }

  /** Creates a container; one of the same id that was removed finds its disk as it was. */
  async create(id: string, options: GuestContainerOptions): Promise<void> {
    const image = await this.#images.resolve(options.image ?? "busybox");
    const layers = image.layers.map(({ diffId, path }) => ({ serial: `l-${diffId.slice(-18)}`, path }));
    for (const layer of layers) await this.#plug({ ...layer, format: "raw", readOnly: true });
    await this.#plugWritable(id);
    await this.agent.call("createContainer", {
      containerId: id,
      specJson: Buffer.from(JSON.stringify(buildSpec(image.config, { ...options, hostname: "jar" }))),
      rootfs: { layers: layers.map(({ serial }) => ({ serial })), writable: { serial: `w-${id}` } },
      user: options.user ?? "",
      shareMemory: options.shareMemory === true,
      sharePids: options.sharePids === true,
      keepAlive: options.keepAlive === true,
      ...(options.swap === undefined ? {} : { swap: { serial: options.swap } }),
      ...(options.swappiness === undefined ? {} : { swappiness: options.swappiness }),
    });
  }

  /** Creates and starts a container. */
  async run(id: string, options: GuestContainerOptions): Promise<void> {
    await this.create(id, options);
    await this.agent.call("startContainer", { containerId: id });
  }

  /** Starts a further process, and answers its id. */
  async spawn(containerId: string, command: readonly string[]): Promise<string> {
    this.#execs += 1;
    const processId = `e${this.#execs}`;
    const spec = buildProcess({}, { command, hostname: "jar" });
    const processJson = Buffer.from(JSON.stringify(spec));
    await this.agent.call("execProcess", { containerId, processId, processJson });
    return processId;
  }

  /** Runs a shell's words in a container to their end. */
  async shell(containerId: string, script: string): Promise<CommandResult> {
    return await this.exec(containerId, ["sh", "-c", script]);
  }

  async exec(containerId: string, command: readonly string[]): Promise<CommandResult> {
    const processId = await this.spawn(containerId, command);
    const address = { containerId, processId };
    const pieces: Uint8Array[] = [];
    for (let offset = 0n, end = false; !end; ) {
      const answer = await this.agent.call("readOutput", {
        ...address,
        stream: 1,
        offset,
        maxBytes: 65_536,
        waitMs: WAIT_MS,
      });
      pieces.push(answer.data);
      offset = answer.offset + BigInt(answer.data.length);
      end = answer.end;
    }
    const { exitCode } = await this.agent.call("waitProcess", { ...address, waitMs: WAIT_MS });
    await this.agent.call("releaseProcess", address);
    return { exitCode, stdout: Buffer.concat(pieces).toString() };
  }

  async #plugWritable(id: string): Promise<void> {
    const path = join(this.#dir, `${id}.raw`);
    if (!this.#plugged.has(`w-${id}`)) {
      await writeFile(path, "");
      await truncate(path, 64 * MIB);
      await runTool("mke2fs", ["-q", "-F", "-t", "ext4", path]);
    }
    await this.#plug({ serial: `w-${id}`, path, format: "raw", readOnly: false });
  }

  async #plug(disk: DiskConfig): Promise<void> {
    if (this.#plugged.has(disk.serial)) return;
    this.#plugged.add(disk.serial);
    await this.#vm.plugDisk(disk);
  }
}
