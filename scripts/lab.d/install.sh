# shellcheck shell=bash
# Sourced by scripts/lab: what each purpose needs, and getting it.

QUICKSTART_PACKAGES="ca-certificates gcc libc6-dev mariadb-server mariadb-client restic"
TEST_PACKAGES="$QUICKSTART_PACKAGES chromium g++ iproute2 python3-venv systemd util-linux"
BENCH_PACKAGES="$QUICKSTART_PACKAGES zstd time"

lab_install() {
  local purpose=test
  case $# in
    0) ;;
    2) [ "$1" = --for ] || usage; purpose=$2 ;;
    *) usage ;;
  esac
  case $purpose in
    quickstart) install_packages "$QUICKSTART_PACKAGES" ;;
    bench) install_packages "$BENCH_PACKAGES"; install_unstable ;;
    test) install_packages "$TEST_PACKAGES"; install_unstable; install_newest_mariadb; install_moto ;;
    *) usage ;;
  esac
}

# Installs those of the named Debian packages that are missing.
install_packages() {
  local missing
  missing=$(missing_of "$1")
  [ -n "$missing" ] || return 0
  command -v apt-get >/dev/null || die "this needs Debian's apt-get to install:$missing"
  [ "$(id -u)" = 0 ] || die "not root, and these packages are missing:$missing
lab: hint: as root run: apt-get install --no-install-recommends$missing"
  say "installing$missing"
  without_services apt_install "$missing"
}

missing_of() {
  local package
  for package in $1; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || printf ' %s' "$package"
  done
}

apt_install() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get -q -o DPkg::Lock::Timeout=300 update >&2
  # shellcheck disable=SC2086
  apt-get -q -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 install -y --no-install-recommends $1 >&2
}

# Runs a command while no package may start its service. A policy that was there before is left alone.
without_services() (
  policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
  fi
  "$@"
)

# Prints the paths that tests and scripts read. A program that is missing is left out.
lab_env() {
  printf 'BKP_LAB=%q\n' "$BKP_LAB"
  print_program BKP_TEST_MARIADBD mariadbd
  print_program BKP_TEST_MARIADB mariadb
  print_program BKP_TEST_MARIADB_INSTALL_DB mariadb-install-db
  print_program BKP_TEST_MARIADB_BINLOG mariadb-binlog
  print_program BKP_TEST_MARIADBD_NEWEST "$BKP_LAB/mariadb/usr/sbin/mariadbd"
  print_program BKP_TEST_MARIADB_INSTALL_DB_NEWEST "$BKP_LAB/mariadb/usr/bin/mariadb-install-db"
  print_program BKP_TEST_MYSQLD "$BKP_LAB/mysql/bin/mysqld"
  print_program BKP_TEST_MYSQL "$BKP_LAB/mysql/bin/mysql"
  print_program BKP_TEST_MYSQLADMIN "$BKP_LAB/mysql/bin/mysqladmin"
  print_program BKP_TEST_MYSQLBINLOG "$BKP_LAB/mysql/bin/mysqlbinlog"
  print_program BKP_TEST_RESTIC restic
  print_program BKP_TEST_RESTIC019 "$BKP_LAB/restic/bin/restic"
  print_program BKP_TEST_MYLOADER "$BKP_LAB/mydumper/bin/myloader"
  print_program BKP_BENCH_MYDUMPER "$BKP_LAB/mydumper/bin/mydumper"
  print_program BKP_BENCH_MYLOADER "$BKP_LAB/mydumper/bin/myloader"
  print_program BKP_TEST_MOTO "$BKP_LAB/moto/bin/moto_server"
  print_program BKP_TEST_CHROMIUM chromium
  print_program BKP_TEST_IP ip
}

print_program() {
  local path
  # A root without /usr/sbin in PATH is common in containers and crontabs.
  path=$(PATH=$PATH:/usr/sbin:/sbin command -v "$2") || return 0
  printf '%s=%q\n' "$1" "$path"
}
