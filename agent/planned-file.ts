/** A file as it is to be in a copy; see WakeFile in agent.proto for the words in it. */
export interface PlannedFile {
  readonly path: string;
  readonly text: string;
}
