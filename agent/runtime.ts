/** What the agent needs of a program that runs containers. crun in the guest; plain processes in the agent's own tests. */
import type { Duplex } from "node:stream";

export interface Launch {
  readonly containerId: string;
  /** A directory of this process alone, for the runtime's files. */
  readonly dir: string;
  /** The OCI bundle of the container whose init process this is, or the file with an OCI process to run in a container. */
  readonly what: { readonly bundle: string } | { readonly processFile: string };
  /** Descriptors for the process; "ignore" is /dev/null. Closed by the caller. */
  readonly stdin: number | "ignore";
  readonly stdout: number;
  /** With a terminal, standard error is not used. */
  readonly stderr: number;
  readonly terminal: boolean;
  /** Descriptor of a program of the guest's own, which the process gets as its descriptor 3, with a line to the agent as 4. */
  readonly program?: number | undefined;
}

export interface Launched {
  /** In the guest's own pid namespace. */
  readonly pid: number;
  /** Settles, never rejects, when the process has ended and been reaped. */
  readonly exited: Promise<Exit>;
  /** The agent's end of the line; there when a program was given. */
  readonly line?: Duplex | undefined;
}

export interface Exit {
  /** As a shell has it: 128 + N when ended by signal N. */
  readonly exitCode: number;
  /** 0 for none. Of a process that ends itself with a status above 128 it is a guess. */
  readonly signal: number;
}

export interface ContainerRuntime {
  /**
   * Resolves when the process is about to execute its command.
   * @throws BelljarError `COMMAND_NOT_FOUND`, `COMMAND_NOT_EXECUTABLE`, `CONTAINER_START_FAILED`; nothing is left running
   */
  launch(launch: Launch): Promise<Launched>;
}
