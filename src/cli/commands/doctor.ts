/** `belljar doctor`: what this host can do, what it cannot, and the remedy for each. */
import type { Command } from "commander";
import { type CommonOptions, type ContextHolder, createContext, withCommonOptions } from "../context.ts";
import { EXIT_BELLJAR_FAILED } from "../exit-status.ts";
import { SignalRelay } from "../signals.ts";

export function addDoctorCommand(program: Command, holder: ContextHolder, setStatus: (status: number) => void): void {
  withCommonOptions(
    program
      .command("doctor")
      .summary("say what this host can do, what it cannot, and what to do about it")
      .description("Exits with 125 when something that Belljar cannot do without is missing."),
  ).action(async (options: CommonOptions) => {
    const context = createContext(options, holder);
    using relay = new SignalRelay();
    const host = await context.host();
    const findings = await host.doctor({ signal: relay.signal });
    context.output.table(
      ["CAPABILITY", "STATUS", "DETAIL"],
      findings.flatMap(({ name, status, detail, cost, remedy }) => [
        [name, status, detail],
        ...(cost === undefined ? [] : [["", "", `costs: ${cost}`]]),
        ...(remedy === undefined ? [] : [["", "", `remedy: ${remedy}`]]),
      ]),
      findings,
    );
    if (findings.some((finding) => finding.status === "no" && finding.required)) setStatus(EXIT_BELLJAR_FAILED);
  });
}
