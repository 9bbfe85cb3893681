/** `belljar guest`: the guest image that every VM boots. */
import type { Command } from "commander";
import { type CommonOptions, type ContextHolder, createContext, withCommonOptions } from "../context.ts";
import { formatBytes } from "../output.ts";
import { SignalRelay } from "../signals.ts";

export function addGuestCommand(program: Command, holder: ContextHolder): void {
  const guest = program.command("guest").summary("build, list and verify the guest image that VMs boot");

  withCommonOptions(
    guest
      .command("build")
      .summary("build the guest image; does nothing when its inputs have not changed")
      .option("--force", "build again although nothing has changed"),
  ).action(async (options: CommonOptions & { readonly force?: boolean }) => {
    const context = createContext(options, holder);
    using relay = new SignalRelay();
    const host = await context.host();
    const image = await host.buildGuestImage({
      force: options.force === true,
      signal: relay.signal,
      progress: (step) => context.output.progress(step),
    });
    context.output.endProgress();
    if (options.json === true) context.output.object({ digest: image.digest, dir: image.dir });
    else context.output.line(image.digest);
  });

  withCommonOptions(guest.command("ls").summary("list guest images")).action(async (options: CommonOptions) => {
    const context = createContext(options, holder);
    const host = await context.host();
    const infos = await host.guestImages.list();
    context.output.table(
      ["DIGEST", "CURRENT", "SIZE", "KERNEL", "NODE", "CREATED"],
      infos.map((info) => [
        info.digest.replace("sha256:", "").slice(0, 12),
        info.current ? "yes" : "no",
        formatBytes(info.sizeBytes),
        info.kernelVersion,
        info.nodeVersion,
        info.createdAt,
      ]),
      infos,
    );
  });

  withCommonOptions(
    guest
      .command("verify")
      .summary("hash every file of a guest image and compare it with its manifest")
      .argument("[digest]", "or the beginning of one; the current image when left out"),
  ).action(async (digest: string | undefined, options: CommonOptions) => {
    const context = createContext(options, holder);
    const host = await context.host();
    const image = await host.guestImages.verify(digest);
    if (options.json === true) context.output.object({ digest: image.digest, intact: true });
    else context.output.line(`${image.digest}: intact`);
  });
}
