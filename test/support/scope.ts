/** The harness as a test sees it. */

/** What a test is handed. */
export interface TestScope {
  readonly testId: string;
  /** Everything that the test makes is below this directory. */
  readonly dir: string;
  /** Runs after the test, the last one first, whatever the test's outcome. */
  after(cleanUp: () => unknown): void;
  diagnostic(message: string): void;
}
