#!/usr/bin/env bash
# Installs what the tests need and passes them all: format, lints, every test of the workspace, a minute of fuzzing.
#
# Works on a bare Debian machine with a Rust toolchain; quick when everything is there already.
#   scripts/test.sh            everything
#   scripts/test.sh --setup    only install what is missing
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '==> %s\n' "$*"; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

missing_packages() {
  command -v mosquitto_pub >/dev/null && command -v mosquitto_sub >/dev/null || echo mosquitto-clients
  python3 -c 'import venv, ensurepip' 2>/dev/null || echo python3 python3-venv
  { command -v mosquitto_passwd && PATH="$PATH:/usr/sbin" command -v mosquitto; } >/dev/null || echo mosquitto
  command -v openssl >/dev/null || echo openssl
  PATH="$PATH:/sbin:/usr/sbin" ldconfig -p | grep -q libseccomp.so.2 || echo libseccomp2
  command -v chromium >/dev/null || echo chromium
  { command -v prometheus && command -v promtool; } >/dev/null || echo prometheus
  command -v node >/dev/null || echo nodejs
  command -v npm >/dev/null || echo npm
  command -v cc >/dev/null || echo gcc libc6-dev
  command -v c++ >/dev/null || echo g++
  [ -e /usr/include/MQTTClient.h ] || echo libpaho-mqtt-dev
}

# Brokers beside which RingMQ is compared: a test starts each from its folder. The others can be had without them.
missing_brokers() {
  PATH="$PATH:/usr/sbin" command -v rabbitmq-server >/dev/null || echo rabbitmq-server
  PATH="$PATH:/usr/sbin" command -v nats-server >/dev/null || echo nats-server
}

install_brokers() {
  local missing package
  missing=$(missing_brokers)
  [ -n "$missing" ] && [ -z "${updated:-}" ] && as_root apt-get update -q
  for package in $missing; do
    if [ -z "$(apt-cache policy "$package" | sed -n '/Candidate: *[^( ]/p')" ]; then
      say "skipping $package: apt does not have it"
    else
      say "installing $package"
      # RUNLEVEL: without starting it as a service.
      as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -qy --no-install-recommends "$package" ||
        say "skipping $package: it cannot be installed"
    fi
  done
}

install_packages() {
  local packages
  packages=$(missing_packages | tr '\n' ' ')
  if [ -n "${packages// /}" ]; then
    say "installing $packages"
    as_root apt-get update -q
    updated=yes
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -qy --no-install-recommends $packages
  fi
}

# Sets up one kind of client in target/clients; its stamp holds the list it was made from.
install_python_client() {
  local venv=target/clients/venv list=tests/clients/requirements.txt
  if ! cmp -s "$list" "$venv/installed"; then
    say "setting up Paho Python, schemathesis and an exporter"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$list"
    cp "$list" "$venv/installed"
  fi
}

install_js_client() {
  local place=target/clients/js list=tests/clients/package.json
  if ! cmp -s "$list" "$place/installed"; then
    say "setting up MQTT.js"
    rm -rf "$place"
    mkdir -p "$place"
    cp "$list" "$place/package.json"
    npm install --prefix "$place" --no-package-lock --no-audit --no-fund --loglevel=error
    cp "$list" "$place/installed"
  fi
}

install_c_client() {
  local place=target/clients/paho-c source=tests/clients/paho_c_client.c
  if ! cmp -s "$source" "$place/installed"; then
    say "setting up Paho C"
    mkdir -p "$place"
    cc -O1 -Wall -Werror -o "$place/client" "$source" -lpaho-mqtt3c
    cp "$source" "$place/installed"
  fi
}

raise_limits() {
  # The survival tests open thousands of connections from one process.
  ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
}

mkdir -p target/clients
install_packages
install_brokers
install_python_client
install_js_client
install_c_client
[ "${1:-}" = --setup ] && exit 0
raise_limits

say "format"
cargo fmt --all --check
cargo fmt --manifest-path fuzz/Cargo.toml --check
say "lints"
cargo clippy --quiet --workspace --all-targets -- -D warnings
say "tests"
# Many tests wait for the broker rather than compute, so more threads than cores are right.
RUST_TEST_THREADS="${RUST_TEST_THREADS:-8}" cargo test --workspace
say "fuzzing"
cargo test --quiet --manifest-path fuzz/Cargo.toml --no-default-features --target-dir target
scripts/fuzz.sh 60
say "all passed"
