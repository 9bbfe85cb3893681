/** An owner of a root in a process of its own (`test/programs/owner.ts`), told what to do, and killed. */
import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { decodeField, type Field, parseJson, withDeadline } from "../../src/base/index.ts";
import type { Command } from "../programs/owner-commands.ts";

const PROGRAM = join(import.meta.dirname, "../programs/owner.ts");
const ANSWER_TIMEOUT_MS = 120_000;
/** Of what the owner writes to its log; the end of it. */
const LOG_TAIL_LENGTH = 16_384;

export interface OwnerOptions {
  readonly rootDir: string;
  readonly runDir: string;
  readonly environment?: Readonly<Record<string, string>> | undefined;
  readonly nodeOptions?: readonly string[] | undefined;
}

/** The owner answered with an error. */
export class OwnerError extends Error {}

export class OwnerProcess {
  /** Answers how it ended: by a signal, or with a status. */
  readonly ended: Promise<NodeJS.Signals | number>;
  readonly #child: ChildProcess;
  readonly #lines: string[] = [];
  #wake = Promise.withResolvers<void>();
  #hasEnded = false;
  #log = "";

  constructor({ rootDir, runDir, environment = {}, nodeOptions = [] }: OwnerOptions) {
    const child = spawn(process.execPath, [...nodeOptions, PROGRAM, rootDir, runDir], {
      stdio: ["pipe", "pipe", "pipe"],
      env: { ...process.env, ...environment },
    });
    this.#child = child;
    this.ended = new Promise((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (code, signal) => {
        this.#hasEnded = true;
        this.#wake.resolve();
        resolve(signal ?? code ?? -1);
      });
    });
    // What is written to one that has just died is lost.
    child.stdin?.on("error", () => {});
    child.stderr?.on("data", (chunk: Buffer) => {
      this.#log = (this.#log + chunk.toString("utf8")).slice(-LOG_TAIL_LENGTH);
    });
    if (child.stdout === null) throw new Error("the owner has no standard output");
    createInterface({ input: child.stdout }).on("line", (line) => {
      this.#lines.push(line);
      this.#wake.resolve();
    });
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  get log(): string {
    return this.#log;
  }

  /** @throws OwnerError what it answered, or that it died */
  async ask(command: Command): Promise<Field> {
    const answer = await this.askUnlessKilled(command);
    if (answer !== undefined) return answer;
    throw new OwnerError(`the owner died of ${await this.ended} while it was to ${command.do}:\n${this.#log}`);
  }

  /** Undefined when it died by SIGKILL instead of answering. */
  async askUnlessKilled(command: Command): Promise<Field | undefined> {
    this.#child.stdin?.write(`${JSON.stringify(command)}\n`);
    const limit = { timeoutMs: ANSWER_TIMEOUT_MS, what: `the owner, told to ${command.do},` };
    const line = await withDeadline(limit, () => this.#nextLine());
    if (line === undefined) {
      if ((await this.ended) === "SIGKILL") return undefined;
      throw new OwnerError(`the owner ended with ${await this.ended}:\n${this.#log}`);
    }
    const field = parseJson(line, "answer", "INTERNAL");
    const error = field.field("error").optional((text) => text.string());
    if (error !== undefined) throw new OwnerError(`the owner could not ${JSON.stringify(command)}: ${error}`);
    return decodeField(field.field("answer").raw, command.do, "INTERNAL");
  }

  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.ended;
  }

  async #nextLine(): Promise<string | undefined> {
    for (;;) {
      const line = this.#lines.shift();
      if (line !== undefined || this.#hasEnded) return line;
      this.#wake = Promise.withResolvers();
      await this.#wake.promise;
    }
  }
}
