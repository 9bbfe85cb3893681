#!/usr/bin/env zsh
# Sits at a terminal with a shell in it, types each LINE and Tab, and has the shell say what has become of the line.
#
#   complete.zsh SHELL LINE WANTED [LINE WANTED]...
#
# Ends with 0 when each line became what was wanted, and otherwise says what it saw instead. Whoever starts it has the deadline.
zmodload zsh/zpty

case $1 in
  bash) start='bash --norc --noprofile -i' load="source <(belljar completion bash); PS1=\$'rea''dy\\n> '" ;;
  zsh)
    start='zsh -f -i'
    load="bindkey -e; zle-line-init() { print rea'dy' }; zle -N zle-line-init; autoload -U compinit; compinit -u -D; source <(belljar completion zsh)"
    ;;
  fish) start='fish --no-config -i' load="belljar completion fish | source; function fish_prompt; echo rea'dy'; echo -n '> '; end" ;;
esac
shift

seen=
await() {
  local piece
  until [[ $seen == *$1* ]]; do
    if ! zpty -r terminal piece; then
      print -u2 -r -- "the shell has ended: ${(V)seen}"
      exit 1
    fi
    seen+=$piece
  done
}

# What is typed before the shell has taken the terminal over is the terminal's, and not edited: it does so before it prompts. Whole
# lines are read, so the prompt has one; zsh makes none of its own, and edits as vi does where EDITOR says so (npm does).
zpty terminal $start
zpty -w terminal "$load"

for line wanted in "$@"; do
  await ready
  seen=
  # The line and Tab; then, from its beginning, what makes it be printed, and a mark behind it.
  zpty -n -w terminal "$line"$'\t\C-a'"echo now: "$'\C-e'"; echo en''d"$'\n'
  await end
  if [[ $seen != *"now: $wanted"[[:space:]]* ]]; then
    print -u2 -r -- "$line became: ${(V)seen}"
    exit 1
  fi
  seen=${seen##*end}
done
zpty -d terminal
