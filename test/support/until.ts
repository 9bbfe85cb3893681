/** Waits for what comes to be by itself; `what` is said when it does not. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  { timeoutMs = 10_000, what = "what is waited for" }: { readonly timeoutMs?: number; readonly what?: string } = {},
): Promise<void> {
  const endMs = performance.now() + timeoutMs;
  while (!(await condition())) {
    if (performance.now() > endMs) throw new Error(`it did not come to be: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}
