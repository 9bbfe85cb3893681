/*
 * The guest's first process: starts the program that its arguments name, by its path, with the environment that it has itself, and takes
 * the exit status of every process that nobody else waits for. When that program ends, so does this one, and with it the guest: the kernel
 * takes the end of its first process for a panic.
 *
 * It sleeps until the kernel has something for it. tini, which it replaces, looks every second, and an idle guest under emulation notices.
 */
#include "system.h"

enum { FORK = 57, EXECVE = 59, EXIT = 60, WAIT4 = 61 };
enum { EINTR = 4 };

void _start(void) {
  /* Above the frame's own word: how many arguments, they themselves and a zero, the environment and a zero. */
  long *stack = (long *)__builtin_frame_address(0) + 1;
  char **arguments = (char **)(stack + 1);
  char **environment = arguments + stack[0] + 1;
  long child = call(FORK, 0, 0, 0, 0);
  if (child == 0) {
    call(EXECVE, (long)arguments[1], (long)(arguments + 1), (long)environment, 0);
    call(EXIT, 127, 0, 0, 0);
  }
  for (;;) {
    int status = 0;
    long ended = call(WAIT4, -1, (long)&status, 0, 0);
    if (ended == child) call(EXIT, status >> 8 & 255, 0, 0, 0);
    /* None is left, and the one that counts was not seen. */
    if (ended < 0 && ended != -EINTR) call(EXIT, 1, 0, 0, 0);
  }
}
