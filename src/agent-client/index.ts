/** The host's end of the link to the agent in the guest. */
export { AgentClient } from "./client.ts";
export { type AgentHello, type AgentLink, type ConnectAgent, type ConnectOptions, connectAgent } from "./connect.ts";
export { InputWriter, inputStream } from "./input.ts";
export { keptLink } from "./kept-link.ts";
export type { AgentCaller, AgentMethod, AgentRequest, AgentResponse, CallOptions } from "./link.ts";
export { type OutputOptions, OutputReader, outputStream, type ProcessAddress } from "./output.ts";
