# shellcheck shell=bash
# Sourced by scripts/bench: peak memory at one size and at twice that size.

bench_memory() {
  need_mall
  need_images
  backup_and_restore "$size"
  backup_and_restore_files "$images"
  echo "bench: and twice as much" >&2
  # A second mall of the same size, in a schema of its own on the same server.
  "$bin/examples/mall" fill --socket "$source_socket" --user root --size "$size" --schema mall2 --seed 2 >&2
  schemas='"mall", "mall2"'
  "$bin/examples/mall" images --dir "$work/images/twice" --count "$images" --seed 2 >&2
  backup_and_restore "2 x $size"
  backup_and_restore_files "2 x $images"
}

# Peak memory and time of a dump and a load of many small tables, and how much memory the servers have taken by the end.
bench_tables() {
  local server
  end_server source
  end_server target
  # One tablespace for all: a file for each would make the filesystem what is measured.
  eval "$(start_server mariadb source --innodb-file-per-table=0 --table-open-cache=2000 --table-definition-cache=2000)"
  eval "$(start_server mariadb target --innodb-file-per-table=0 --table-open-cache=2000 --table-definition-cache=2000)"
  echo "bench: making $tables tables" >&2
  {
    echo 'CREATE DATABASE mall; USE mall; SET sql_log_bin = 0;'
    seq "$tables" | sed "s/.*/CREATE TABLE shop& (id INT PRIMARY KEY, name VARCHAR(40), KEY (name)); INSERT INTO shop& VALUES (1, 'one'), (2, 'two');/"
  } | mariadb --no-defaults -uroot -S "$source_socket"
  fresh_policy db "$(mysql_source)"
  measure "$tables tables, dump" bkp "$bin/bkp" backup "$work/db/policy.toml" --quiet
  measure "$tables tables, load" bkp "$bin/bkp" restore "$work/db/policy.toml" --to-mysql \
    "mysql://root@localhost?socket=$target_socket" --no-users --no-binlog --connections "$connections" --yes --quiet
  for server in source target; do
    echo "  peak of the $server's server: $(awk '/^VmHWM/ { printf "%.0f MiB", $2 / 1024 }' "/proc/$(cat "$work/$server/server.pid")/status")" >&2
  done
}

backup_and_restore() {
  fresh_policy db "$(mysql_source)"
  measure "memory: database $1, backup" bkp "$bin/bkp" backup "$work/db/policy.toml" --quiet
  [ -n "${target_socket-}" ] || eval "$(start_mariadb target)"
  empty_target
  measure "memory: database $1, restore" bkp "$bin/bkp" restore "$work/db/policy.toml" --to-mysql \
    "mysql://root@localhost?socket=$target_socket" --no-users --connections "$connections" --yes --quiet
  empty_target
}

backup_and_restore_files() {
  fresh_policy files "$(files_source "$work/images")"
  measure "memory: $1 images, backup" bkp "$bin/bkp" backup "$work/files/policy.toml" --quiet
  rm -rf "${work:?}/restored"
  measure "memory: $1 images, restore" bkp "$bin/bkp" restore "$work/files/policy.toml" --to-dir "$work/restored" --yes --quiet
  rm -rf "${work:?}/restored"
}
