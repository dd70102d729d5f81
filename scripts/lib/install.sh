# shellcheck shell=bash
# Installs what the client checks need, once, into a cache outside the clone. To be sourced.
#
# How it works:
# 1. Every need is a folder in the cache named by the hash of the file that pins it, so that a changed pin installs anew and an unchanged
#    one costs a stat.
# 2. A folder is filled under a temporary name and renamed when whole: a broken download never looks installed. A lock file keeps two
#    scripts that start at once from doing the work twice.
# 3. Debian packages are asked for by the program or header they bring, and installed by root or by sudo only when it is missing.
#
# Gives: need_debian, need_python, need_node, need_java; each prints the folder (or nothing) on stdout and talks on stderr.
# Knows nothing of: brokers, checks.

LIB_DIR="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
SCRIPTS_DIR="$(dirname "$LIB_DIR")"
CLIENTS_DIR="$SCRIPTS_DIR/clients"
CACHE_DIR="${MILLRACE_CACHE:-$HOME/.cache/millrace}"

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 2; }

# need_debian PATH_OR_PROGRAM PACKAGE...: PATH_OR_PROGRAM is what the packages bring.
need_debian() {
    local proof="$1"; shift
    if [[ "$proof" == /* ]]; then [[ -e "$proof" ]] && return; else command -v "$proof" >/dev/null && return; fi
    local as_root=()
    [[ "$(id -u)" == 0 ]] || as_root=(sudo)
    say "installing Debian packages: $*"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >&2 ||
        { "${as_root[@]}" apt-get update -qq >&2 &&
          "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >&2; } ||
        die "cannot install $*; install it by hand and run again"
}

# cached NAME PIN_FILE FUNCTION: prints the folder; FUNCTION is called with a temporary folder to fill when it is not there yet.
cached() {
    local name="$1" pin="$2" fill="$3" hash target
    hash="$(sha256sum < "$pin" | cut -c1-12)"
    target="$CACHE_DIR/$name-$hash"
    if [[ ! -d "$target" ]]; then
        mkdir -p "$CACHE_DIR"
        (
            flock 9
            [[ -d "$target" ]] && exit 0
            say "installing $name into $target (once)"
            rm -rf "$target.part"
            mkdir -p "$target.part"
            "$fill" "$target.part" "$pin" >&2 || exit 1
            mv "$target.part" "$target"
        ) 9>"$CACHE_DIR/$name.lock" || die "installing $name failed"
    fi
    printf '%s\n' "$target"
}

# A virtual environment holds absolute paths, so only its packages live in the folder; the system's interpreter runs them.
fill_python() { python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$1" -r "$2"; }
fill_node() { cp "$2" "$(dirname "$2")/package.json" "$1"/ && (cd "$1" && npm ci --silent --no-audit --no-fund); }
fill_java() { mvn -q -B -f "$2" dependency:copy-dependencies -DoutputDirectory="$1" -DincludeScope=runtime; }

# need_python [PINS]: a folder for PYTHONPATH; PINS is a file in clients/python (default requirements.txt).
need_python() {
    local pins="${1:-requirements.txt}"
    python3 -m pip --version >/dev/null 2>&1 || need_debian /usr/share/doc/python3-pip python3-pip
    cached "python-${pins%.txt}" "$CLIENTS_DIR/python/$pins" fill_python
}

# need_node: a folder that holds node_modules.
need_node() {
    need_debian npm nodejs npm
    cached node "$CLIENTS_DIR/node/package-lock.json" fill_node
}

# need_java broker|tools: a folder of jars. The two are of different versions and must never share a class path.
need_java() {
    need_debian javac openjdk-17-jdk-headless
    need_debian mvn maven
    cached "java-$1" "$LIB_DIR/peer/$1.xml" fill_java
}

# For `cached`: compiles one Java program against the tools' jars.
compile_java() { javac -cp "$(need_java tools)/*" -d "$1" "$2"; }
