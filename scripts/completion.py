#!/usr/bin/env python3
"""Completion for bash, made of what --help says: commands, options, words that an option takes, else files.

    scripts/completion.py [PROGRAM] > ~/.local/share/bash-completion/completions/switchyard
    source <(scripts/completion.py)                                    in this shell alone
"""

import pathlib
import re
import sys

from command_lines import Program

ROOT = pathlib.Path(__file__).resolve().parent.parent
FUNCTION = """# Made by scripts/completion.py.
_switchyard() {
  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} call= place
  for place in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    [[ $place == -* ]] && break
    case "$call $place" in @commands@) call="$call $place" ;; *) break ;; esac
  done
  COMPREPLY=()
  case "$call $before" in
@values@
  esac
  case "$call" in
@words@
  esac
  [[ $word != -* ]] && COMPREPLY+=($(compgen -f -- "$word"))
}
complete -o filenames -F _switchyard switchyard
"""


def main() -> None:
    program = Program(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build/release/switchyard"))
    text, calls, seen, values, words = FUNCTION, [[]], [], [], []
    while calls:
        call = calls.pop(0)
        known = program.help_of(call)
        calls += [[*call, command] for command in known.commands]
        name = "".join(" " + word for word in call)
        if call:
            seen.append(f'"{name}"')
        offered = " ".join([*known.commands, *(option for option in known.options if option.startswith("--"))])
        words.append(f'    "{name}") COMPREPLY=($(compgen -W "{offered}" -- "$word")) ;;')
        for option, argument in known.options.items():
            if choice := re.search(r"\{([\w,-]+)\}", argument.limits):
                listed = choice[1].replace(",", " ")
                values.append(f'    "{name} {option}") COMPREPLY=($(compgen -W "{listed}" -- "$word")); return ;;')
    for mark, lines in (("@commands@", [" | ".join(seen)]), ("@values@", values), ("@words@", words)):
        text = text.replace(mark, "\n".join(lines))
    print(text, end="")


if __name__ == "__main__":
    main()
