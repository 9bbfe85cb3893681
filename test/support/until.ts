/** Waits for what comes to be by itself. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  { timeoutMs = 10_000 }: { readonly timeoutMs?: number } = {},
): Promise<void> {
  const endMs = performance.now() + timeoutMs;
  while (!(await condition())) {
    if (performance.now() > endMs) throw new Error("it did not come to be");
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}
