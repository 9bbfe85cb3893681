/**
 * Starts the program that brings a copy of this guest back (guest-image/programs/wake.c), once: it waits on its port in every copy that is
 * made from then on, and needs nothing of the agent.
 */
import { spawn } from "node:child_process";
import { openPort, WAKE_PORT_NAME } from "./port.ts";

const PROGRAM = "/bin/belljar-wake";

/** A VM of an older host has no port for it: its copies are brought back by the agent alone. */
export async function startWaker(): Promise<void> {
  const port = await openPort(WAKE_PORT_NAME);
  if (port === undefined) return;
  const child = spawn(PROGRAM, [], { stdio: [port.fd, "ignore", "ignore"], detached: true });
  child.on("error", (error) => process.stderr.write(`belljar agent: ${PROGRAM}: ${error.message}\n`));
  child.unref();
  await port.close();
}
