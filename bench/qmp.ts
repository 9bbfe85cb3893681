/** Just enough QMP to tell a QEMU of the benchmark's own what to do. */
import { connect, type Socket } from "node:net";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { type Field, parseJson } from "../src/base/index.ts";

const CONNECT_TIMEOUT_MS = 10_000;

export class Qmp implements Disposable {
  readonly #socket: Socket;
  readonly #answers: AsyncIterator<string>;

  private constructor(socket: Socket) {
    this.#socket = socket;
    // Of a QEMU that was killed; who waits for an answer is told by its end.
    socket.on("error", () => {});
    this.#answers = createInterface({ input: socket })[Symbol.asyncIterator]();
  }

  /** Waits until somebody listens there. */
  static async connect(path: string): Promise<Qmp> {
    const untilMs = performance.now() + CONNECT_TIMEOUT_MS;
    for (;;) {
      const socket = connect(path);
      const isThere = await new Promise<boolean>((resolve) => {
        socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
      });
      if (isThere) {
        const qmp = new Qmp(socket);
        await qmp.#answers.next();
        await qmp.execute("qmp_capabilities");
        return qmp;
      }
      if (performance.now() > untilMs) throw new Error(`nobody listens at ${path}`);
      await sleep(1);
    }
  }

  async execute(command: string, args: Readonly<Record<string, unknown>> = {}): Promise<Field> {
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    for (;;) {
      const { value, done } = await this.#answers.next();
      if (done === true) throw new Error(`${command}: QEMU has gone`);
      const answer = parseJson(value, "QMP", "INTERNAL");
      const error = answer.field("error").optional((each) => each.field("desc").string());
      if (error !== undefined) throw new Error(`${command}: ${error}`);
      const found = answer.field("return").optional((each) => each);
      if (found !== undefined) return found;
    }
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }
}
