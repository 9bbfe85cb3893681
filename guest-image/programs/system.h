/* What the guest's programs have in common: they are freestanding, without a library, and ask the kernel by themselves. */
static long call(long number, long a, long b, long c, long d) {
  long result;
  __asm__ volatile("mov %5, %%r10\n\tsyscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(d)
                   : "rcx", "r11", "r10", "memory");
  return result;
}
