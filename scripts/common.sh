# Sourced by the other scripts: where things are, and steps that say what they do and how long.
# shellcheck shell=bash disable=SC2034  # the variables are for those who source this

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV=.venv
TEST_VENV=.venv-test
ADAPTERS_VENV=.venv-adapters
TORCH_VERSION=2.13.0
export PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '%s\n' "$*"; }
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# step "what it does" command...   runs the command and prints how long it took
step() {
  local what=$1 start=$SECONDS status
  shift
  say "==> $what"
  # In a subshell of its own: after "command ||" a function would not stop at its first failure.
  set +e
  (set -e; "$@")
  status=$?
  set -e
  [ "$status" -eq 0 ] || fail "$what: failed (see above)"
  say "    done in $((SECONDS - start)) s"
}

# retry command...   up to three times, ten seconds apart: for downloads
retry() {
  local attempt
  for attempt in 1 2 3; do
    if "$@"; then return 0; fi
    if [ "$attempt" -lt 3 ]; then
      say "    attempt $attempt failed, trying again in 10 s" >&2
      sleep 10
    fi
  done
  return 1
}

# pip_install python package...   FINETUNE_PIP_ARGS holds further options, such as an index.
# What pip says is shown only when it fails: it warns of every package of torch that we leave out.
pip_install() {
  local python=$1 log
  shift
  log=$(mktemp)
  # shellcheck disable=SC2086  # options are words
  if ! retry timeout 3600 "$python" -m pip install --no-input ${FINETUNE_PIP_ARGS:-} "$@" >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
}

# torch_folder python   prints the torch folder of that Python when it holds a usable LibTorch
torch_folder() {
  "$1" - <<'PYTHON' 2>/dev/null
import importlib.metadata as metadata, importlib.util, pathlib, sys
if importlib.util.find_spec("torch") is None: sys.exit(1)
package = metadata.distribution("torch")
folder = pathlib.Path(str(package.locate_file("torch")))
version = tuple(int(part) for part in package.version.split("+")[0].split(".")[:2])
if version < (2, 11) or not (folder / "lib/libtorch_cpu.so").exists(): sys.exit(1)
if package.read_text("RECORD") is None: sys.exit(1)  # an installation that was interrupted
print(folder)
PYTHON
}

# given_libtorch   prints the LibTorch folder that CMAKE_PREFIX_PATH names, if any
given_libtorch() {
  local prefix folder
  local IFS=:\;
  for prefix in ${CMAKE_PREFIX_PATH:-}; do
    for folder in "$prefix" "$prefix/libtorch" "$prefix/torch" "$prefix/../.."; do
      if [ -e "$folder/lib/libtorch_cpu.so" ]; then
        say "$folder"
        return 0
      fi
    done
  done
  return 1
}
