#!/bin/sh
# Create the virtual environment and install sage-obs into it: `tools/setup.sh DIR [dev|bench]`.
# What a plain Debian lacks (ensurepip; curl for the tests) is installed if we are root, else the one line to type is shown.
set -eu

venv=${1:?usage: tools/setup.sh DIR [dev]}
kind=${2:-}
minor=11

# Install a Debian package if we are root, else say what to type.
need() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "$1 is needed and is not there. Type: sudo apt-get install -y $1" >&2
        exit 2
    fi
    echo "Installing $1 ..." >&2
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y "$1" >/dev/null
}

python=""
for candidate in ${PYTHON:-} python3 python3.11; do
    if "$candidate" -c "import sys; sys.exit(sys.version_info < (3, $minor))" 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "Python 3.$minor or newer is needed and was not found. Install it, or name it: make PYTHON=/path/to/python3" >&2
    exit 2
fi

if [ -e "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ] && [ -n "$(ls -A "$venv")" ]; then
    echo "$venv exists and is not a virtual environment. Remove it, or name another folder: make VENV=DIR" >&2
    exit 2
fi

if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    "$python" -c "import ensurepip" 2>/dev/null || need python3-venv
    echo "Creating $venv with $("$python" --version) ..." >&2
    "$python" -m venv --clear "$venv"
fi

echo "Installing sage-obs into $venv ..." >&2
pip="$venv/bin/python -m pip --quiet --disable-pip-version-check"
$pip install --upgrade "pip>=25.1"
if [ "$kind" = dev ]; then
    command -v curl >/dev/null || need curl # the README's lines are run as they stand
    $pip install --editable ".[all]" --group dev
elif [ "$kind" = bench ]; then
    $pip install --editable ".[all]" --group bench
else
    $pip install --editable ".[all]"
fi
