/**
 * What everything stands on: errors, ids, limits, time, process identity, log; and what handles of the library have in common, whether they
 * are of this process or of a daemon. Imports nothing of Belljar.
 */
export { type Clock, systemClock } from "./clock.ts";
export { type CollectOptions, collectResult } from "./collect-result.ts";
export { cancelledError, type DeadlineOptions, throwIfAborted, withDeadline } from "./deadline.ts";
export {
  type Decode,
  decodeField,
  Field,
  type ListLimits,
  type NumberRange,
  parseJson,
  type StringLimits,
} from "./decode.ts";
export { deleteIfThere } from "./delete-if-there.ts";
export { Ending } from "./ending.ts";
export { type ErrorCode, type ErrorReason, errorReasons } from "./error-reasons.ts";
export { BelljarError, type ErrorFacts, type ErrorOptions, hasErrno, isSystemError, messageChain } from "./errors.ts";
export { checkName, isId, machineIdOf, newId } from "./ids.ts";
export {
  allowedMoves,
  type ContainerOperation,
  checkContainerOperation,
  checkSandboxOperation,
  type EndCause,
  type LifecycleKind,
  type LifecycleState,
  lifecycleOperations,
  lifecycleStates,
  type SandboxOperation,
  type ShownState,
  shownStates,
  transition,
} from "./lifecycle.ts";
export {
  apiLimits,
  checkpointLimits,
  decodeLimits,
  deviceLimits,
  eventLimits,
  fileLimits,
  guestDeviceLimits,
  hibernationLimits,
  imageLimits,
  linkLimits,
  logLimits,
  mountLimits,
  networkLimits,
  poolLimits,
  resourceLimits,
  sandboxLimits,
  standstillLimits,
  storeLimits,
  streamLimits,
  toolLimits,
  traceLimits,
  vmmLimits,
} from "./limits.ts";
export { createLog, type Log, type LogFields, type LogLevel, logLevels, silentLog } from "./log.ts";
export { type OutputEnds, outputUntil } from "./output-ends.ts";
export { linesOf, type OutputLine } from "./output-lines.ts";
export { Places } from "./places.ts";
export { goBeforeGuests, goWithGuests } from "./priority.ts";
export {
  decodeProcessIdentity,
  identifyProcess,
  isAlive,
  type ProcessIdentity,
  signalProcess,
} from "./process-identity.ts";
export { type EndedProcess, StartedProcess } from "./started-process.ts";
export { publishStep, STEP_CHANNEL, type Step } from "./steps.ts";
export { runTool, type ToolOptions, type ToolResult } from "./tool.ts";
export { VERSION } from "./version.ts";
