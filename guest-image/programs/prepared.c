/*
 * Waits in a container for its command, and becomes it: everything else that a further process of the container needs was done when this
 * one was started (namespaces, groups, user, capabilities, streams), and starting is what takes long.
 *
 * Descriptors: 0 to 2, the command's; 3, this program's own file, by which it was executed; 4, the agent's line. A command comes on it as
 *
 *     length of what follows | number of arguments | 1 when it has an input | directory 0 | argument 0 ... | variable=value 0 ...
 *
 * in words of 32 bits and strings that end with a zero byte. It answers `+` when it has found the command, and executes it, or `-` when it
 * cannot, and ends: the agent starts the command in the ordinary way then, and learns why.
 */
#include "system.h"

typedef unsigned int u32;

/* Numbers of Linux's interface on x86-64, from its headers. */
enum { READ = 0, WRITE = 1, OPEN = 2, STAT = 4, ACCESS = 21, DUP2 = 33, EXECVE = 59, EXIT = 60, FCNTL = 72, CHDIR = 80, PRCTL = 157 };
enum { EINTR = 4, ENOTDIR = 20, ENOENT = 2, ENOEXEC = 8, EACCES = 13, X_OK = 1, F_SETFD = 2, FD_CLOEXEC = 1, PR_SET_NAME = 15 };
enum { OWN_FILE = 3, LINE = 4, FAILED = 1, MODE_WORD = 6, TYPE_MASK = 0170000, REGULAR = 0100000 };
/* As the agent has them (src/base/limits.ts): it sends nothing larger. */
enum { MESSAGE_MAX = 65536, STRINGS_MAX = 4096, PATH_MAX = 4096 };

static char message[MESSAGE_MAX];
static char *strings[STRINGS_MAX + 2];
static char candidate[PATH_MAX];

static void refuse(void) {
  call(WRITE, LINE, (long)"-", 1, 0);
  call(EXIT, FAILED, 0, 0, 0);
}

static void read_all(void *into, u32 length) {
  for (char *at = into, *end = at + length; at < end;) {
    long got = call(READ, LINE, (long)at, end - at, 0);
    if (got == -EINTR) continue;
    /* Nobody has a command for it any more. */
    if (got <= 0) call(EXIT, FAILED, 0, 0, 0);
    at += got;
  }
}

enum found { ABSENT, PROGRAM, UNCLEAR };

/* What this user may not reach or execute is unclear: crun looks with other rights. */
static enum found look(const char *path) {
  u32 about[36];
  long error = call(ACCESS, (long)path, X_OK, 0, 0);
  if (error == -ENOENT || error == -ENOTDIR) return ABSENT;
  if (error != 0 || call(STAT, (long)path, (long)about, 0, 0) != 0) return UNCLEAR;
  return (about[MODE_WORD] & TYPE_MASK) == REGULAR ? PROGRAM : UNCLEAR;
}

static int has(const char *text, char wanted) {
  for (; *text != 0; text++)
    if (*text == wanted) return 1;
  return 0;
}

/* Where the command is, as a shell finds it: 0 for nowhere, or in a way that is left to the agent. */
static const char *find(const char *command, char **environment) {
  if (has(command, '/')) return look(command) == PROGRAM ? command : 0;
  for (; *environment != 0; environment++) {
    const char *at = *environment;
    if (at[0] != 'P' || at[1] != 'A' || at[2] != 'T' || at[3] != 'H' || at[4] != '=') continue;
    for (at += 5; *at != 0;) {
      u32 length = 0;
      while (*at != 0 && *at != ':' && length < PATH_MAX - 2) candidate[length++] = *at++;
      if (length == 0 || (*at != 0 && *at != ':')) return 0;
      candidate[length++] = '/';
      for (const char *name = command; *name != 0; name++) {
        if (length >= PATH_MAX - 1) return 0;
        candidate[length++] = *name;
      }
      candidate[length] = 0;
      enum found found = look(candidate);
      if (found != ABSENT) return found == PROGRAM ? candidate : 0;
      if (*at == ':') at++;
    }
    return 0;
  }
  return 0;
}

static void say(const char *text) {
  long length = 0;
  while (text[length] != 0) length++;
  call(WRITE, 2, (long)text, length, 0);
}

void _start(void) {
  u32 head[3];
  u32 count = 0;
  call(PRCTL, PR_SET_NAME, (long)"belljar-waits", 0, 0);
  call(FCNTL, OWN_FILE, F_SETFD, FD_CLOEXEC, 0);
  call(FCNTL, LINE, F_SETFD, FD_CLOEXEC, 0);
  read_all(head, sizeof head);
  if (head[0] < 8 + 2 || head[0] - 8 > MESSAGE_MAX) refuse();
  u32 length = head[0] - 8;
  read_all(message, length);
  if (message[length - 1] != 0) refuse();
  for (u32 at = 0; at < length; at++) {
    if (at != 0 && message[at - 1] != 0) continue;
    if (count >= STRINGS_MAX) refuse();
    strings[count++] = message + at;
  }
  if (head[1] == 0 || head[1] >= count) refuse();

  /* The arguments end with a zero where the environment begins: it moves by one. */
  char **arguments = strings + 1;
  char **environment = arguments + head[1] + 1;
  for (u32 index = count; index > head[1] + 1; index--) strings[index] = strings[index - 1];
  arguments[head[1]] = 0;
  strings[count + 1] = 0;

  if (call(CHDIR, (long)strings[0], 0, 0, 0) != 0) refuse();
  const char *path = find(arguments[0], environment);
  if (path == 0) refuse();
  if (head[2] == 0) {
    long nothing = call(OPEN, (long)"/dev/null", 0, 0, 0);
    if (nothing < 0 || call(DUP2, nothing, 0, 0, 0) != 0) refuse();
    call(FCNTL, nothing, F_SETFD, FD_CLOEXEC, 0);
  }
  if (call(WRITE, LINE, (long)"+", 1, 0) != 1) call(EXIT, FAILED, 0, 0, 0);
  long failure = -call(EXECVE, (long)path, (long)arguments, (long)environment, 0);
  /* In the words of crun, which the agent knows. */
  say(failure == ENOENT    ? "exec: No such file or directory\n"
      : failure == ENOEXEC ? "exec: Exec format error\n"
      : failure == EACCES  ? "exec: Permission denied\n"
                           : "exec: the kernel refuses it\n");
  call(EXIT, FAILED, 0, 0, 0);
}
