/** Calls and phrases that the project does without, each with its reason and its exceptions. */
import type { Finding, SourceFile, SourceTree } from "./source-tree.ts";

interface Ban {
  readonly rule: string;
  readonly pattern: RegExp;
  readonly message: string;
  /** Top folders in which it holds. */
  readonly folders: readonly string[];
  readonly inTests: boolean;
  /** Paths (a folder ends with a slash) where it is allowed, and why. */
  readonly except: Readonly<Record<string, string>>;
  /** Look in comments as well as in code. */
  readonly inComments?: boolean;
  /** Look in strings as well as in code. */
  readonly inStrings?: boolean;
}

const PRODUCT = ["src", "agent"];
const EVERYWHERE = ["src", "agent", "tools", "test", "bench", "fuzz", "examples"];

const BANS: readonly Ban[] = [
  {
    rule: "no-sync-calls",
    pattern: /\b[a-z]\w*Sync\b/,
    message: "a synchronous call stops every sandbox of this process; use the promise form",
    folders: PRODUCT,
    inTests: false,
    except: {
      "agent/": "alone in its guest, and only at start-up",
      "src/checkpoint/memory/memory-worker.ts": "threads of their own, while a guest stands still",
      "src/checkpoint/memory/own-pages.ts": "as above",
      "src/checkpoint/memory/copy-out.ts": "as above",
    },
  },
  {
    rule: "no-any",
    pattern: /\bas\s+any\b|:\s*any\b|<any\b|\bany\[\]/,
    message: "`any` turns the type checker off; use `unknown` and decode",
    folders: EVERYWHERE,
    inTests: true,
    except: {},
  },
  {
    rule: "belljar-error-only",
    pattern: /\bnew\s+(?:Error|TypeError|RangeError)\s*\(/,
    message: "errors of the product are BelljarError, with a reason",
    folders: PRODUCT,
    inTests: false,
    except: { "src/store/disk.ts": "makes errors in the form of Node's own, for tests that inject them" },
  },
  {
    rule: "no-process-env",
    // PATH is needed wherever a program of the host is started.
    pattern: /\bprocess\s*\.\s*env\b(?!\["PATH"\])/,
    message: "the environment, but for PATH, is read by the command line alone and handed down as an argument",
    folders: PRODUCT,
    inTests: false,
    except: {
      "src/cli/": "it is the command line",
      "agent/main.ts": "sets the environment of the whole guest",
      "src/images/pull.ts": "proxies and certificates, for skopeo",
    },
    inStrings: true,
  },
  {
    rule: "no-unchecked-json",
    pattern: /\bJSON\s*\.\s*parse\s*\([^;]*?\)\s*as\s+(?!unknown\b)/,
    message: "parsed data is `unknown` until it has been decoded field by field",
    folders: PRODUCT,
    inTests: false,
    except: {},
  },
  {
    rule: "no-todo",
    pattern: /\b(?:TO)DO\b|\b(?:FIX)ME\b|\bXX[X]\b/,
    message: "unfinished work belongs into an issue",
    folders: EVERYWHERE,
    inTests: true,
    except: {},
    inComments: true,
  },
  {
    rule: "no-fixed-tmp",
    pattern: /["'`]\/tmp(?:\/|["'`])/,
    message: "temporary files go to os.tmpdir(), which tests replace",
    folders: ["src", "test", "tools"],
    inTests: false,
    except: {
      "tools/rules/": "names the rule",
      "src/sdk/paths.ts": "where systems without XDG_RUNTIME_DIR keep sockets of a user",
    },
    inStrings: true,
  },
];

export function checkBanned(tree: SourceTree): Finding[] {
  return BANS.flatMap((ban) =>
    tree
      .sources(ban.folders)
      .filter((file) => applies(ban, file))
      .flatMap((file) => findIn(ban, file)),
  );
}

function applies(ban: Ban, file: SourceFile): boolean {
  if (file.isTest && !ban.inTests) return false;
  return !Object.keys(ban.except).some((path) =>
    path.endsWith("/") ? file.path.startsWith(path) : file.path === path,
  );
}

function findIn(ban: Ban, file: SourceFile): Finding[] {
  const pattern = new RegExp(ban.pattern, "g");
  const finding = (offset: number): Finding => ({
    rule: ban.rule,
    path: file.path,
    line: file.lineAt(offset),
    message: ban.message,
  });
  const text = ban.inStrings === true ? withoutComments(file) : file.scanned.code;
  const findings = [...text.matchAll(pattern)].map((match) => finding(match.index));
  if (ban.inComments !== true) return findings;
  for (const comment of file.scanned.comments) {
    for (const match of comment.text.matchAll(pattern)) findings.push(finding(comment.offset + match.index));
  }
  return findings;
}

function withoutComments(file: SourceFile): string {
  let text = file.text;
  for (const comment of file.scanned.comments) {
    const blank = comment.text.replaceAll(/[^\n]/g, " ");
    text = text.slice(0, comment.offset) + blank + text.slice(comment.offset + comment.text.length);
  }
  return text;
}
