/** `belljar prune`: what was found of processes that died, and what became of it. Whoever takes the root cleans it up. */
import type { Command } from "commander";
import type { GarbageReport } from "../../sdk/index.ts";
import { type CommonOptions, type ContextHolder, createContext, withCommonOptions } from "../context.ts";
import { garbageLines } from "./image.ts";

function isClean({ layersRemoved, stagingRemoved, keptFor, isPostponed }: GarbageReport): boolean {
  return layersRemoved === 0 && stagingRemoved === 0 && keptFor.length === 0 && !isPostponed;
}

export function addPruneCommand(program: Command, holder: ContextHolder): void {
  withCommonOptions(
    program
      .command("prune")
      .summary("have the root recovered, and say what was found")
      .description(
        "A daemon does this when it starts: it goes on with sandboxes that run, finishes or undoes what was half done, and " +
          "removes what belongs to nobody. This command starts one if there is none. Then layers of images go that no image " +
          "has and no container uses.",
      ),
  ).action(async (options: CommonOptions) => {
    const context = createContext(options, holder);
    await using runtime = await context.connect();
    for (const each of await runtime.recovered()) {
      if (options.json === true) context.output.object(each);
      else context.output.line(`${each.kind} ${each.name}: ${each.what}`);
    }
    const report = await runtime.images.collectGarbage();
    if (options.json === true) context.output.object({ kind: "images", ...report });
    else if (!isClean(report)) for (const line of garbageLines(report)) context.output.line(line);
  });
}
