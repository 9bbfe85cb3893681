/** The methods of the protocol, each bound to the handler that answers it: bytes in, bytes out. */
import {
  create,
  type DescMessage,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { BelljarError } from "../src/base/errors.ts";
import { AgentService, type BulkField, PROTOCOL_VERSION } from "../src/protocol/index.ts";

type Methods = (typeof AgentService)["method"];

export interface CallContext {
  /** Fires when nobody waits for the answer any more: deadline, lost connection, a new connection. */
  readonly signal: AbortSignal;
  /** Resolves when an answer with much data in it may be made; throws when nobody waits for it any more. */
  roomToSend(): Promise<void>;
}

export type Handlers = {
  readonly [M in keyof Methods]: (
    request: MessageShape<Methods[M]["input"]>,
    context: CallContext,
  ) => Promise<MessageInitShape<Methods[M]["output"]>>;
};

export interface Answer {
  readonly message: Uint8Array;
  readonly bulk?: BulkField;
}

export type Handle = (payload: Uint8Array, context: CallContext) => Promise<Answer>;

/** Written out, so that the compiler checks each method's messages. */
export function methodsOf(handlers: Handlers): ReadonlyMap<string, Handle> {
  const methods = AgentService.method;
  return new Map([
    bind(methods.hello, async (request, context) => {
      if (request.protocolVersion !== PROTOCOL_VERSION) {
        throw new BelljarError(
          "AGENT_VERSION",
          `the host speaks version ${request.protocolVersion} of the protocol, the agent in this guest version ${PROTOCOL_VERSION}`,
        );
      }
      return await handlers.hello(request, context);
    }),
    bind(methods.configureSandbox, handlers.configureSandbox),
    bind(methods.freeze, handlers.freeze),
    bind(methods.thaw, handlers.thaw),
    bind(methods.rehearse, handlers.rehearse),
    bind(methods.configureNetwork, handlers.configureNetwork),
    bind(methods.getNetwork, handlers.getNetwork),
    bind(methods.fitResources, handlers.fitResources),
    bind(methods.getGuestStats, handlers.getGuestStats),
    bind(methods.findDevice, handlers.findDevice),
    bind(methods.createContainer, handlers.createContainer),
    bind(methods.startContainer, handlers.startContainer),
    bind(methods.removeContainer, handlers.removeContainer),
    bind(methods.listContainers, handlers.listContainers),
    bind(methods.pauseContainer, handlers.pauseContainer),
    bind(methods.resumeContainer, handlers.resumeContainer),
    bind(methods.updateContainer, handlers.updateContainer),
    bind(methods.growStorage, handlers.growStorage),
    bind(methods.getContainerStats, handlers.getContainerStats),
    bind(methods.execProcess, handlers.execProcess),
    bind(methods.prepareProcess, handlers.prepareProcess),
    bind(methods.signalProcess, handlers.signalProcess),
    bind(methods.waitProcess, handlers.waitProcess),
    bind(methods.resizeTerminal, handlers.resizeTerminal),
    bind(methods.releaseProcess, handlers.releaseProcess),
    bindReadOutput(handlers),
    bind(methods.writeInput, handlers.writeInput),
    bind(methods.statFile, handlers.statFile),
    bind(methods.listDirectory, handlers.listDirectory),
    bind(methods.openFile, handlers.openFile),
    bindReadFile(handlers),
    bind(methods.writeFile, handlers.writeFile),
    bind(methods.commitFile, handlers.commitFile),
    bind(methods.closeFile, handlers.closeFile),
    bind(methods.makeDirectory, handlers.makeDirectory),
    bind(methods.makeLink, handlers.makeLink),
    bind(methods.removeFile, handlers.removeFile),
    bind(methods.renameFile, handlers.renameFile),
    bind(methods.setFileAttributes, handlers.setFileAttributes),
    bind(methods.watchFile, handlers.watchFile),
    bind(methods.copyIn, handlers.copyIn),
    bind(methods.shutdown, handlers.shutdown),
  ]);
}

function bind<I extends DescMessage, O extends DescMessage>(
  method: { readonly name: string; readonly input: I; readonly output: O },
  handler: (request: MessageShape<I>, context: CallContext) => Promise<MessageInitShape<O>>,
): [string, Handle] {
  return [
    method.name,
    async (payload, context) => {
      const request = decodeArguments(method.name, () => fromBinary(method.input, payload));
      return { message: toBinary(method.output, create(method.output, await handler(request, context))) };
    },
  ];
}

/** Its data goes into the frame without being copied on the way. */
function bindReadOutput(handlers: Handlers): [string, Handle] {
  const { name, input, output } = AgentService.method.readOutput;
  return [
    name,
    async (payload, context) => {
      const request = decodeArguments(name, () => fromBinary(input, payload));
      const { data, offset = 0n, end = false } = await handlers.readOutput(request, context);
      const message = toBinary(output, create(output, { offset, end }));
      return data === undefined || data.length === 0
        ? { message }
        : { message, bulk: { field: output.field.data.number, data } };
    },
  ];
}

/** As above. */
function bindReadFile(handlers: Handlers): [string, Handle] {
  const { name, input, output } = AgentService.method.readFile;
  return [
    name,
    async (payload, context) => {
      const request = decodeArguments(name, () => fromBinary(input, payload));
      const { data, end = false } = await handlers.readFile(request, context);
      const message = toBinary(output, create(output, { end }));
      return data === undefined || data.length === 0
        ? { message }
        : { message, bulk: { field: output.field.data.number, data } };
    },
  ];
}

/** A well-formed call with arguments that are not is the caller's mistake; the connection itself is in order. */
function decodeArguments<T>(method: string, decode: () => T): T {
  try {
    return decode();
  } catch (cause) {
    throw new BelljarError("INVALID_ARGUMENT", `the arguments of ${method} cannot be decoded`, { cause });
  }
}
