# shellcheck shell=bash
# Sourced by scripts/bench: the servers, trees and policies that are measured with.

clean_up() {
  local status=$? dir
  for dir in "$work"/source "$work"/target "$work"/s3; do
    if [ -d "$dir" ]; then scripts/lab down "$dir" >/dev/null 2>&1 || true; fi
  done
  if [ "$keep" = 1 ] || [ $status != 0 ]; then echo "bench: everything lies in $work" >&2; else rm -rf "$work"; fi
}

# Starts a server whose settings suit a machine of this size, for the source and for the target alike.
start_mariadb() {
  start_server mariadb "$1" --innodb-log-file-size=1G
}

#   start_server PRODUCT NAME OPTION...
start_server() {
  "${servers_on[@]}" scripts/lab up "$1" "$work/$2" 0 --innodb-buffer-pool-size=4G --innodb-io-capacity=2000 "${@:3}" | sed "s/^/$2_/"
}

# Stops a server and forgets what it held.
end_server() {
  if [ -d "$work/$1" ]; then scripts/lab down "$work/$1"; rm -rf "${work:?}/$1"; fi
  unset "${1}_socket" "${1}_port"
}

# Sets source_socket and mall_bytes; fills the mall once.
need_mall() {
  [ -z "${source_socket-}" ] || return 0
  eval "$(start_mariadb source)"
  echo "bench: filling a mall of $size" >&2
  "$bin/examples/mall" fill --socket "$source_socket" --user root --size "$size" | tee "$work/filled.txt" >&2
  mall_bytes=$(sed -n 's/.* with \([0-9]*\) bytes of rows.*/\1/p' "$work/filled.txt")
}

# Fills an image tree once.
need_images() {
  [ ! -d "$work/images" ] || return 0
  echo "bench: making $images images" >&2
  "$bin/examples/mall" images --dir "$work/images" --count "$images" >&2
}

# Writes a policy with a repository of its own and makes that; `$2` is the source's table.
fresh_policy() {
  rm -rf "${work:?}/$1"
  mkdir -p "$work/$1"
  cat >"$work/$1/policy.toml" <<TOML
version = 1
name = "$1"
state_dir = "$work/$1/state"

[repository]
path = "$work/$1/repository"
password_file = "$work/$1/key"

$2

[schedule]
backup = "15 2 * * *"

[retention]
last = 3
TOML
  "$bin/bkp" init "$work/$1/policy.toml" --quiet >"$work/log.txt" 2>&1 || { cat "$work/log.txt" >&2; exit 1; }
}

mysql_source() {
  whole_mysql_source
  printf 'schemas = [%s]\n' "${schemas-\"mall\"}"
}

whole_mysql_source() {
  printf '[mysql.db1]\nsocket = "%s"\nuser = "root"\nconnections = %s\n' "$source_socket" "$connections"
}

files_source() {
  printf '[files.images]\npath = "%s"\n' "$1"
}
