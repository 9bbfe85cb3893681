/**
 * What `belljar completion` prints: a few lines for each shell that ask the program itself. Where it has no answer, the shell
 * completes file names.
 */

export const shells = ["bash", "zsh", "fish"] as const;
export type Shell = (typeof shells)[number];

/** The hidden command that answers, one candidate a line. */
export const COMPLETE_COMMAND = "__complete";

const scripts: Readonly<Record<Shell, string>> = {
  bash: `# source <(belljar completion bash)
_belljar() {
  local IFS=$'\\n'
  COMPREPLY=($("\${COMP_WORDS[0]}" ${COMPLETE_COMMAND} -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _belljar belljar
`,
  zsh: `#compdef belljar
# source <(belljar completion zsh)
_belljar() {
  local -a candidates
  candidates=("\${(@f)$("\${words[1]}" ${COMPLETE_COMMAND} -- "\${(@)words[2,CURRENT]}" 2>/dev/null)}")
  candidates=("\${(@)candidates:#}")
  if (( \${#candidates} )); then compadd -a candidates; else _files; fi
}
if [ "\${funcstack[1]}" = "_belljar" ]; then _belljar; else compdef _belljar belljar; fi
`,
  fish: `# belljar completion fish | source
function __belljar_complete
  set -l words (commandline -opc) (commandline -ct)
  $words[1] ${COMPLETE_COMMAND} -- $words[2..-1] 2>/dev/null
end
complete -c belljar -f -n 'test -n "$(__belljar_complete)"' -a '(__belljar_complete)'
`,
};

export function completionScript(shell: Shell): string {
  return scripts[shell];
}
