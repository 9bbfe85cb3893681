/** Waits for what comes to be by itself, and soon. */
const TIMEOUT_MS = 10_000;

export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const endMs = performance.now() + TIMEOUT_MS;
  while (!(await condition())) {
    if (performance.now() > endMs) throw new Error("it did not come to be");
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}
