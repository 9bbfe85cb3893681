/**
 * A host of the test's own: a network namespace with loopback, one address, and a default route to nowhere. Nothing that a test sends
 * leaves it. Servers in it are programs of their own, since a process is in one namespace only.
 */
import { spawn } from "node:child_process";
import { runTool } from "../../src/base/index.ts";
import type { TestScope } from "./scope.ts";

export interface NetworkHost {
  readonly name: string;
  /** A command in front of another one that runs that one in it. */
  readonly within: readonly string[];
  /** Its own address. */
  readonly address: string;
  /** Runs a program in it to its end, and answers what it printed; undefined when it failed. */
  run(...command: readonly string[]): Promise<string | undefined>;
  /** An HTTP server that answers with what it was asked, and by whom; in the host, or wherever this command leads. */
  serve(address: string, port: number, where?: readonly string[]): Promise<void>;
}

const ADDRESS = "10.99.0.1";

export async function networkHost(t: TestScope): Promise<NetworkHost> {
  const name = `t-${t.testId}`;
  const ip = async (...args: readonly string[]): Promise<void> => void (await runTool("ip", args));
  await ip("netns", "add", name);
  t.after(() => ip("netns", "delete", name));
  const links = [
    "link set lo up",
    "link add out0 type veth peer name out1",
    "link set out1 up",
    "link set out0 up",
    `address add ${ADDRESS}/24 dev out0`,
    "route add default via 10.99.0.254",
  ];
  await runTool("ip", ["-n", name, "-batch", "-"], { input: Buffer.from(`${links.join("\n")}\n`) });
  const within = ["nsenter", `--net=/run/netns/${name}`, "--"];
  const [program, ...words] = within;
  const run = async (...command: readonly string[]): Promise<string | undefined> => {
    try {
      return (await runTool(program ?? "", [...words, ...command], { timeoutMs: 20_000 })).stdout.toString();
    } catch {
      return undefined;
    }
  };
  const serve = async (address: string, port: number, where: readonly string[] = within): Promise<void> => {
    const script = `require("http").createServer((q, r) => r.end("served " + q.url + " to " + q.socket.remoteAddress.replace("::ffff:", "")))
      .listen(${port}, "${address}", () => console.log("up"))`;
    const [first = "", ...others] = [...where, process.execPath, "-e", script];
    const child = spawn(first, others, {
      stdio: ["ignore", "pipe", "inherit"],
    });
    t.after(async () => {
      const ended = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGKILL");
      await ended;
    });
    await new Promise((resolve, reject) => {
      child.stdout.once("data", resolve);
      child.once("exit", () => reject(new Error(`no server on ${address}:${port}`)));
    });
  };
  return { name, within, address: ADDRESS, run, serve };
}
