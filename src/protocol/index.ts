/** What host and guest say to each other: definitions, generated code, the ttrpc codec, the version. Shared with agent/. */

export * as api from "./api.ts";
export * from "./generated/belljar/agent/v1/agent_pb.js";
export {
  confusesScanner,
  EchoScanner,
  encodeEcho,
  encodeHello,
  HANDSHAKE_LINE_BYTES,
  type HandshakeLine,
  type HelloEvent,
  HelloScanner,
  NONCE_LENGTH,
} from "./handshake.ts";
export { AGENT_PORT, WAKE_PORT } from "./ports.ts";
export {
  addressRequest,
  type LinkAddress,
  type LinkChange,
  type LinkNeighbour,
  type LinkRoute,
  linkRequest,
  neighbourRequest,
  routeRequest,
} from "./rtnetlink.ts";
export {
  type BulkField,
  decodeEnvelope,
  decodeRequest,
  decodeResponse,
  encodeErrorResponse,
  encodeRequest,
  encodeResponse,
  type Request,
} from "./ttrpc-envelope.ts";
export { encodeFrame, encodeReset, type Frame, FrameDecoder, REQUEST, RESPONSE, STREAM_ID_MAX } from "./ttrpc-frame.ts";
export { cleanMessage, decodeStatus, encodeStatus } from "./ttrpc-status.ts";
export { API_VERSION, API_VERSION_HEADER, PROTOCOL_VERSION } from "./version.ts";
export {
  decodeWakeAnswer,
  encodeWake,
  type PlannedFile,
  type PlannedInterface,
  type PlannedWake,
  WAKE_ANSWER_BYTES,
  WAKE_ENTROPY_BYTES,
  WAKE_MESSAGE_BYTES_MAX,
  type WakeAnswer,
  type WakeMessage,
  type WakeStep,
} from "./wake.ts";
