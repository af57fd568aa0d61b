#!/usr/bin/env bash
# Makes sure that the programs which a target needs are there: `prerequisites.sh postgres`, `prerequisites.sh node java jdbc psycopg`.
# As root on Debian or Ubuntu what is missing is installed; otherwise it is named, and nothing is changed.
set -euo pipefail

has() {
  case $1 in
    gcc) command -v "${CC:-gcc}" >/dev/null && echo '#include <stdlib.h>' | "${CC:-gcc}" -E - >/dev/null 2>&1 ;;
    postgres) [ -n "$(postgres_bin_dir)" ] ;;
    node) command -v node >/dev/null && command -v npm >/dev/null ;;
    java) command -v javac >/dev/null && command -v java >/dev/null ;;
    jdbc) [ -e /usr/share/java/postgresql.jar ] ;;
    psycopg) [ -x /usr/bin/python3 ] && [ -d /usr/lib/python3/dist-packages/psycopg ] ;;
    *) echo "prerequisites.sh: $1 is not known; choose gcc, postgres, node, java, jdbc or psycopg" >&2; exit 2 ;;
  esac
}

postgres_bin_dir() {
  local dir
  for dir in "${HOWDAH_POSTGRES_BIN_DIR:-}" /usr/lib/postgresql/*/bin; do
    if [ -x "$dir/postgres" ] && [ -x "$dir/initdb" ] && [ -x "$dir/pg_basebackup" ]; then echo "$dir"; return; fi
  done
}

packages() {
  case $1 in
    gcc) echo gcc libc6-dev ;;
    postgres) echo postgresql ;;
    node) echo nodejs npm ;;
    java) echo default-jdk-headless ;;
    jdbc) echo libpostgresql-jdbc-java ;;
    psycopg) echo python3-psycopg ;;
  esac
}

if ! command -v go >/dev/null; then
  echo "go is missing: install Go 1.26 or newer from https://go.dev/dl/ and put its bin directory into PATH" >&2
  exit 1
fi

missing=()
for need in "$@"; do has "$need" || missing+=("$need"); done
[ ${#missing[@]} -gt 0 ] || exit 0

wanted=()
for need in "${missing[@]}"; do read -ra more <<<"$(packages "$need")"; wanted+=("${more[@]}"); done
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "missing: ${missing[*]}. On Debian or Ubuntu: sudo apt-get install ${wanted[*]}" >&2
  echo "PostgreSQL elsewhere than /usr/lib/postgresql/*/bin: set HOWDAH_POSTGRES_BIN_DIR to the directory of initdb and postgres." >&2
  exit 1
fi

export DEBIAN_FRONTEND=noninteractive
apt() { apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" </dev/null; }
echo "installing ${wanted[*]}"
apt update
case " ${missing[*]} " in
  *" postgres "*)
    # Debian would create and start a cluster of its own, on the port that people expect howdah's on.
    apt install -y --no-install-recommends postgresql-common >/dev/null
    sed -i -E 's/^#?[[:space:]]*create_main_cluster[[:space:]]*=.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
    grep -q '^create_main_cluster = false' /etc/postgresql-common/createcluster.conf ||
      echo 'create_main_cluster = false' >>/etc/postgresql-common/createcluster.conf
    ;;
esac
apt install -y --no-install-recommends "${wanted[@]}" >/dev/null
for need in "${missing[@]}"; do
  has "$need" || { echo "$need is still missing after apt-get install ${wanted[*]}" >&2; exit 1; }
done
