/** Ports of the host: whether they are free, and which one is. */
import { createSocket } from "node:dgram";
import { createServer } from "node:net";
import { isDeepStrictEqual } from "node:util";
import { BelljarError, hasErrno, networkLimits } from "../base/index.ts";
import { collide, type PublishedPort, portText } from "./ports.ts";

/** Tries whether a port can be had, 0 for any, and lets go of it again. Answers its number. */
export type TryPort = (port: PublishedPort) => Promise<number>;

/**
 * Fills in the ports that were left to us.
 * @param taken those of other sandboxes of ours
 * @throws BelljarError `PORT_IN_USE`
 */
export async function choosePorts(
  wanted: readonly PublishedPort[],
  taken: readonly PublishedPort[],
  tryPort: TryPort = tryHostPort,
): Promise<readonly PublishedPort[]> {
  const chosen = [...wanted];
  const done: PublishedPort[] = [];
  const order = [...wanted.keys()].sort((a, b) => Number(isFree(wanted[a])) - Number(isFree(wanted[b])));
  for (const index of order) {
    const port = wanted[index];
    if (port === undefined) continue;
    chosen[index] = await choose(port, [...taken, ...done], tryPort);
    done.push(chosen[index]);
  }
  return chosen;
}

/**
 * The same; those that were left to us are the likely ones, if they are for the same and free.
 * @throws BelljarError `PORT_IN_USE`
 */
export async function likelyPorts(
  wanted: readonly PublishedPort[],
  likely: readonly PublishedPort[],
  taken: readonly PublishedPort[],
  tryPort: TryPort = tryHostPort,
): Promise<readonly PublishedPort[]> {
  const filled = wanted.map((port, index) => {
    const { hostPort = 0, ...found } = likely[index] ?? {};
    return isFree(port) && isDeepStrictEqual({ ...found, hostPort: 0 }, port) ? { ...port, hostPort } : port;
  });
  try {
    return await choosePorts(filled, taken, tryPort);
  } catch (error) {
    if (isDeepStrictEqual(filled, wanted)) throw error;
    return await choosePorts(wanted, taken, tryPort);
  }
}

async function choose(port: PublishedPort, taken: readonly PublishedPort[], tryPort: TryPort): Promise<PublishedPort> {
  for (let tries = 0; tries < networkLimits.portTries; tries += 1) {
    const found = { ...port, hostPort: await tried(port, tryPort) };
    if (!taken.some((each) => collide(each, found))) return found;
    if (isFree(port)) continue;
    throw new BelljarError("PORT_IN_USE", `the port ${portText(port)} of the host is another sandbox's`);
  }
  throw new BelljarError("PORT_IN_USE", `no free port was found on ${port.hostAddress}`);
}

async function tried(port: PublishedPort, tryPort: TryPort): Promise<number> {
  try {
    return await tryPort(port);
  } catch (error) {
    const text = portText(port);
    const facts = { hostAddress: port.hostAddress, hostPort: port.hostPort, protocol: port.protocol };
    if (hasErrno(error, "EADDRINUSE")) {
      throw new BelljarError("PORT_IN_USE", `the port ${text} of the host is in use`, { facts, cause: error });
    }
    if (hasErrno(error, "EADDRNOTAVAIL")) {
      throw new BelljarError("INVALID_ARGUMENT", `${port.hostAddress} is no address of this host`, {
        facts,
        cause: error,
      });
    }
    if (hasErrno(error, "EACCES")) {
      throw new BelljarError("PERMISSION_DENIED", `this user may not use the port ${text}`, { facts, cause: error });
    }
    throw error;
  }
}

/** Left to us. */
function isFree(port: PublishedPort | undefined): boolean {
  return port?.hostPort === 0;
}

export const tryHostPort: TryPort = ({ hostAddress, hostPort, protocol }) =>
  new Promise((resolve, reject) => {
    if (protocol === "udp") {
      const socket = createSocket("udp4");
      socket.once("error", reject);
      socket.bind({ address: hostAddress, port: hostPort, exclusive: true }, () => {
        const { port } = socket.address();
        socket.close(() => resolve(port));
      });
      return;
    }
    const server = createServer();
    server.once("error", reject);
    server.listen({ host: hostAddress, port: hostPort, exclusive: true }, () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address !== null ? address.port : hostPort));
    });
  });
