#!/bin/sh
# Removes .venv and every cache; the data of the embedded database stays.
#
# Refuses while anything runs out of .venv: a service would lose the modules under its feet, and a
# database its programs. Plain sh and the .venv's own Python: slim images have no ps, macOS no /proc.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
environment=$root/.venv
python=$environment/bin/python

# Prints a line for each process whose program is in .venv.
running() {
    "$python" -I - "$environment/" <<'PYTHON_END'
import os, pathlib, subprocess, sys

def processes():
    if not os.path.exists("/proc/self/cmdline"):
        listed = ["ps", "-ww", "-ax", "-o", "pid=,command="]
        for line in subprocess.run(listed, capture_output=True, text=True).stdout.splitlines():
            pid, _, command = line.strip().partition(" ")
            yield int(pid), command, command
        return
    for place in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = os.fsdecode((place / "cmdline").read_bytes()).rstrip("\0").split("\0")
        except OSError:
            continue
        try:
            # make starts Python by a relative path.
            program = os.path.join(os.readlink(place / "cwd"), words[0])
        except OSError:
            program = words[0]
        yield int(place.name), program, " ".join(words)

for pid, program, command in sorted(processes()):
    if program.startswith(sys.argv[1]) and pid != os.getpid():
        print(f"  process {pid}: {command[:100]}")
PYTHON_END
}

if [ -x "$python" ]; then
    found=$(running)
    if [ -n "$found" ]; then
        printf 'clean: .venv is in use by\n%s\n%s %s\n' "$found" \
            "End it first, with Ctrl-C in its terminal or kill and its number; \`make stop\` stops" \
            "a database that was left running." >&2
        exit 1
    fi
fi
cd "$root"
rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build ./*.egg-info
find . -name __pycache__ -type d -prune -exec rm -rf {} +
