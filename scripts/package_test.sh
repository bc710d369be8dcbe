#!/usr/bin/env bash
# Installs the Debian package in a fresh root, boots that, and looks: the broker serves under its unit's settings,
# an upgrade keeps configuration and messages, a removal keeps the configuration, a purge nothing.
#
# As root, with debootstrap and systemd-container; takes about a minute once target/package/root has been made.
#   scripts/package_test.sh                      of release builds
#   RINGMQ_PROFILE=dev scripts/package_test.sh   of development builds
set -euo pipefail
cd "$(dirname "$0")/.."

base=target/package/root
root=target/package/root-test

say() { printf '==> %s\n' "$*"; }

if [ ! -e "$base/made" ]; then
  say "a root of Debian"
  rm -rf "$base"
  debootstrap --variant=minbase --include=systemd,systemd-sysv,mosquitto-clients bookworm "$base" >target/package/root.log
  touch "$base/made"
fi
rm -rf "$root"
cp -a "$base" "$root"
trap 'rm -rf "$root"' EXIT

say "two packages"
for version in 0.1.0-1 0.1.0-2; do
  RINGMQ_DEB_VERSION="$version" scripts/package.sh deb >/dev/null
  mv "target/package/ringmq_${version}_$(dpkg --print-architecture).deb" "$root/root/$version.deb"
  export RINGMQ_BUILT=yes
done
# As if the example had changed with the second one.
mkdir "$root/root/unpacked"
dpkg-deb -R "$root/root/0.1.0-2.deb" "$root/root/unpacked"
echo '# another remark' >>"$root/root/unpacked/etc/ringmq/ringmq.toml"
dpkg-deb -b -Znone "$root/root/unpacked" "$root/root/0.1.0-2.deb" >/dev/null

cat >"$root/root/look.sh" <<'LOOK'
#!/bin/bash
# Runs in the booted root; each step says what it has found.
set -euxo pipefail
exec >/root/log 2>&1
export DEBIAN_FRONTEND=noninteractive
trap 'systemctl status ringmq; journalctl -u ringmq --no-pager | tail -30' EXIT
of_package() { systemctl show ringmq --value -p "$1"; }

dpkg -i /root/0.1.0-1.deb
systemctl is-active ringmq
systemctl is-enabled ringmq
[ "$(of_package User)" = ringmq ]
[ "$(ps -o user= -p "$(of_package MainPID)" 2>/dev/null || stat -c %U "/proc/$(of_package MainPID)")" = ringmq ]
[ "$(stat -c '%U:%G %a' /etc/ringmq/ringmq.toml)" = 'root:ringmq 640' ]
grep -q '^Seccomp:.*2' "/proc/$(of_package MainPID)/status"
runuser -u ringmq -- ringmq check-config /etc/ringmq/ringmq.toml
[ -e /usr/bin/ringmq-loadgen ]
mosquitto_pub -h 127.0.0.1 -t kept -q 1 -r -m before
first=$(of_package MainPID)

echo '# mine' >>/etc/ringmq/ringmq.toml
dpkg --force-confdef --force-confold -i /root/0.1.0-2.deb
systemctl is-active ringmq
[ "$(of_package MainPID)" != "$first" ]
grep -q '^# mine' /etc/ringmq/ringmq.toml
[ "$(mosquitto_sub -h 127.0.0.1 -t kept -C 1 -W 10)" = before ]
systemctl reload ringmq
systemctl is-active ringmq

dpkg -r ringmq
! systemctl is-active ringmq
[ ! -e /usr/bin/ringmq ]
grep -q '^# mine' /etc/ringmq/ringmq.toml
[ -e /var/lib/ringmq ]
dpkg -P ringmq
[ ! -e /etc/ringmq ]
[ ! -e /var/lib/ringmq ]
echo good >/root/verdict
LOOK
chmod +x "$root/root/look.sh"
cat >"$root/etc/systemd/system/look.service" <<'UNIT'
[Unit]
After=basic.target
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
ExecStart=/root/look.sh
[Install]
WantedBy=multi-user.target
UNIT
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -sf ../look.service "$root/etc/systemd/system/multi-user.target.wants/look.service"

say "installing, upgrading and removing in it"
# A root that is booted forbids io_uring, as containers do, unless it is allowed.
timeout 240 systemd-nspawn --quiet -D "$root" --boot --register=no --keep-unit --private-network \
  --system-call-filter='@io-event io_uring_setup io_uring_enter io_uring_register' >target/package/boot.log 2>&1 || true
if [ "$(cat "$root/root/verdict" 2>/dev/null)" != good ]; then
  cat "$root/root/log" 2>/dev/null || tail -50 target/package/boot.log
  say "failed"
  exit 1
fi
say "passed"
