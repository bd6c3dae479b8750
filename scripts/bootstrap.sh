#!/bin/sh
# Makes .venv from the hash-locked packages and puts this project and its "hq" command into it.
#
# Every make target starts here, so the second run has to be instant: a stamp in .venv, written
# last, names what the environment was made from. Without it a set-up was interrupted and is redone.
#
#   PYTHON=...   the interpreter to use, instead of the first fitting one that is found
#
# POSIX sh only: macOS has no flock(1), timeout(1) or readlink -f, and slim images have no ps.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
environment=$root/.venv
python=$environment/bin/python
lock=$root/requirements/development.lock
stamp=$environment/.hq-bootstrap
# Raise it when this script makes something different out of the same lock.
layout=1
# The interpreter that uv is asked for when there is none: it fetches one by itself.
from_uv=3.13

say() { printf 'bootstrap: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# The place belongs to the key because a virtual environment cannot be moved.
wanted_stamp() { printf '%s %s %s\n' "$layout" "$(cksum <"$lock")" "$root"; }

# What a program says of its success is noise (pip warns of root, of its age, of PATH, of caches);
# of a failure everything is shown.
quietly() {
    said=$("$@" 2>&1) && return
    code=$?
    printf '%s\n' "$said" >&2
    return "$code"
}

is_ready() {
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(wanted_stamp)" ] || return 1
    # An upgrade of the system's Python, or another user's private one, leaves a dangling link.
    "$python" -c '' 2>/dev/null
}

# Prints the interpreter's own path when its version fits. Out of an activated .venv that is the one
# behind it, since .venv itself may have to be removed.
resolve() {
    found=$("$1" -c '
import sys
if not (3, 11) <= sys.version_info[:2] < (3, 15):
    sys.exit(1)
print(getattr(sys, "_base_executable", None) or sys.executable)
' 2>/dev/null) && [ -n "$found" ] && printf '%s\n' "$found"
}

find_interpreter() {
    if [ -n "${PYTHON:-}" ]; then
        resolve "$PYTHON" && return
        fail "PYTHON=$PYTHON is not a working Python 3.11 to 3.14: unset PYTHON to have one" \
            "searched, or name another."
    fi
    for candidate in python3 python3.13 python3.12 python3.14 python3.11; do
        resolve "$candidate" && return
    done
    command -v uv >/dev/null 2>&1 || fail "no Python 3.11 to 3.14 found: install one" \
        "(Debian, Ubuntu: apt-get install python3 python3-venv; macOS: brew install python@3.13)," \
        "or name it: PYTHON=/path/to/python3 make"
    printf '%s\n' "$from_uv"
}

# Two first runs at once must not build the same directory. The lock sits on this very file, so that
# nothing is left behind, and passes through exec; the kernel drops it however the script ends.
run_under_lock() {
    HQ_BOOTSTRAP_LOCKED=1 exec "$1" -c '
import fcntl, os, sys
try:
    descriptor = os.open(sys.argv[1], os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
except OSError as error:  # some network file systems cannot lock
    print(f"bootstrap: working without a lock: {error}", file=sys.stderr)
os.execv("/bin/sh", ["/bin/sh", sys.argv[1]])
' "$root/scripts/bootstrap.sh"
}

remove_environment() {
    rm -rf "$environment" 2>/dev/null || fail "cannot replace $environment: it belongs to another" \
        "user. Remove it first (sudo rm -rf '$environment'), then try again."
}

install_with_uv() {
    command -v uv >/dev/null 2>&1 || return 1
    remove_environment
    quietly uv venv --python "$1" "$environment" &&
        quietly uv pip install --python "$python" --require-hashes --no-deps -r "$lock" && return
    [ "$1" != "$from_uv" ] || fail "uv could not set up Python $from_uv (see above): install a" \
        "Python 3.11 to 3.14 and try again."
    say "uv could not do it, trying pip (which knows other settings, such as pip.conf)."
    return 1
}

# Debian and Ubuntu cut ensurepip out of python3; "python3 -m venv --help" works there all the same.
has_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

install_venv_package() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 || return 1
    version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    say "python3-venv is missing: installing it with apt-get."
    # A new machine has no package lists yet.
    quietly apt-get update -qq || true
    for package in "python$version-venv" python3-venv; do
        quietly env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends "$package" && has_venv "$1" && return
    done
    return 1
}

make_environment() {
    remove_environment
    if has_venv "$1"; then
        quietly "$1" -m venv "$environment"
    elif "$1" -m virtualenv --version >/dev/null 2>&1; then
        quietly "$1" -m virtualenv "$environment"
    elif "$1" -m pip --version >/dev/null 2>&1 &&
        quietly "$1" -m venv --without-pip "$environment"; then
        # The pip outside fills the environment.
        outer_pip=$1
    elif install_venv_package "$1"; then
        quietly "$1" -m venv "$environment"
    else
        fail "this Python cannot make a virtual environment. Install its venv package" \
            "(Debian, Ubuntu: sudo apt-get install python3-venv), then try again."
    fi
}

install_with_pip() {
    outer_pip=
    make_environment "$1"
    set -- install --quiet --disable-pip-version-check --no-input \
        --require-hashes --no-deps --no-user -r "$lock"
    if [ -n "$outer_pip" ]; then
        quietly "$outer_pip" -m pip --python "$python" "$@"
    else
        quietly "$python" -m pip "$@"
    fi || fail "the packages could not be installed. Behind a mirror or a proxy, configure pip" \
        "for it (pip config, or PIP_* variables), then try again."
}

# Not an editable install: a path file needs no build backend, and a change of pyproject.toml needs
# no second set-up. "hq" is a shell script because a path with a space cannot stand in a "#!" line.
install_project() {
    "$python" - "$root" <<'PYTHON_END'
import os, pathlib, shlex, sys, sysconfig

root = pathlib.Path(sys.argv[1])
pathlib.Path(sysconfig.get_path("purelib"), "hq_service.pth").write_bytes(os.fsencode(root) + b"\n")
command = root / ".venv/bin/hq"
python = shlex.quote(str(root / ".venv/bin/python"))
command.write_bytes(os.fsencode(f'#!/bin/sh\nexec {python} -m hq_service "$@"\n'))
command.chmod(0o755)
PYTHON_END
}

main() {
    [ -f "$lock" ] || fail "requirements/development.lock is missing: restore it (git checkout)."
    if is_ready; then exit 0; fi
    interpreter=$(find_interpreter)
    if [ -z "${HQ_BOOTSTRAP_LOCKED:-}" ] && [ "$interpreter" != "$from_uv" ]; then
        run_under_lock "$interpreter"
    fi
    # These would send the packages elsewhere than into .venv.
    unset HQ_BOOTSTRAP_LOCKED PYTHONHOME PYTHONPATH PIP_USER PIP_TARGET PIP_PREFIX VIRTUAL_ENV
    say "setting up $environment (once; up to a minute)"
    rm -f "$stamp" 2>/dev/null || true
    install_with_uv "$interpreter" || install_with_pip "$interpreter"
    "$python" -c 'import flask, orjson, psycopg, sqlalchemy' ||
        fail "the installed packages do not load on this system (see above): use another Python," \
            "PYTHON=/path/to/python3 make"
    install_project
    # Under another name first: a stamp that is there is whole.
    wanted_stamp >"$stamp.new"
    mv "$stamp.new" "$stamp"
    say "done"
}

main
