/** Structured log: one line per event, JSON or text, to standard error. Nothing is logged twice on its way up. */

export const logLevels = ["debug", "info", "warn", "error"] as const;
export type LogLevel = (typeof logLevels)[number];
export type LogFields = Readonly<Record<string, string | number | boolean | undefined>>;

export interface Log {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
  /** A log that adds these fields to every line. */
  with(fields: LogFields): Log;
}

export interface LogDeps {
  readonly level: LogLevel;
  readonly json: boolean;
  readonly write: (line: string) => void;
  readonly now?: () => Date;
}

export function createLog(deps: LogDeps, bound: LogFields = {}): Log {
  const threshold = logLevels.indexOf(deps.level);
  const emit = (level: LogLevel, message: string, fields: LogFields = {}): void => {
    if (logLevels.indexOf(level) < threshold) return;
    const time = (deps.now?.() ?? new Date()).toISOString();
    const all = { ...bound, ...fields };
    if (deps.json) {
      deps.write(`${JSON.stringify({ time, level, message, ...all })}\n`);
      return;
    }
    const tail = Object.entries(all)
      .filter(([, value]) => value !== undefined)
      .map(([key, value]) => ` ${key}=${typeof value === "string" ? JSON.stringify(value) : value}`)
      .join("");
    deps.write(`${time} ${level} ${message}${tail}\n`);
  };
  return {
    debug: (message, fields) => emit("debug", message, fields),
    info: (message, fields) => emit("info", message, fields),
    warn: (message, fields) => emit("warn", message, fields),
    error: (message, fields) => emit("error", message, fields),
    with: (fields) => createLog(deps, { ...bound, ...fields }),
  };
}

export const silentLog: Log = createLog({ level: "error", json: false, write: () => {} });
