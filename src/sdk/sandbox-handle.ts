/** What a program holds of a sandbox that it created. Disposing of it deletes the sandbox. */
import type { Container, ContainerConfig, Process, ProcessConfig, ProcessStartOptions } from "../container/index.ts";
import type { Sandbox, SandboxConfig, SandboxInfo } from "../sandbox/index.ts";

export interface SandboxCreateConfig extends SandboxConfig {
  /** Name of an image that is here (see `runtime.images`). */
  readonly image: string;
  readonly container: ContainerConfig;
  /** Size of the container's writable disk, in bytes; sparse. */
  readonly storageBytes?: number | undefined;
}

export interface ExecResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

export class SandboxHandle implements AsyncDisposable {
  readonly id: string;
  readonly name: string;
  readonly #sandbox: Sandbox;
  readonly #container: Container;
  readonly #onDeleted: () => void;

  constructor(sandbox: Sandbox, container: Container, onDeleted: () => void) {
    this.id = sandbox.id;
    this.name = sandbox.settings.name;
    this.#sandbox = sandbox;
    this.#container = container;
    this.#onDeleted = onDeleted;
  }

  /** Starts the container's own command. */
  start(options: ProcessStartOptions = {}): Promise<Process> {
    return this.#container.start(options);
  }

  /** Starts a further command in the container; its streams are the caller's to read. */
  spawn(command: readonly string[], config: ProcessConfig = {}, options: ProcessStartOptions = {}): Promise<Process> {
    return this.#container.exec({ ...config, command }, options);
  }

  /** Runs a command to its end and collects what it writes, as UTF-8. */
  async exec(
    command: readonly string[],
    config: ProcessConfig = {},
    options: ProcessStartOptions = {},
  ): Promise<ExecResult> {
    const child = await this.spawn(command, config, options);
    const [status, stdout, stderr] = await Promise.all([child.status, collect(child.stdout), collect(child.stderr)]);
    return { exitCode: status.exitCode, stdout, stderr };
  }

  info(): Promise<SandboxInfo> {
    return this.#sandbox.info();
  }

  async delete(): Promise<void> {
    await this.#sandbox.delete();
    this.#onDeleted();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.delete();
  }
}

async function collect(stream: AsyncIterable<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks).toString("utf8");
}
