# shellcheck shell=bash
# Sourced by scripts/bench: dumps and loads of the mall.

bench_dump() {
  local round dumper
  dumper=$(mydumper_name)
  need_mall
  for ((round = 0; round < rounds; round++)); do
    measure dump "floor: rows dropped" "$bin/examples/floor" rows --socket "$source_socket" --connections "$connections"
    fresh_policy db "$(mysql_source)"
    measure dump "floor: encoded, dropped" "$bin/examples/floor" encode --policy "$work/db/policy.toml" --source db1
    measure dump bkp "$bin/bkp" backup "$work/db/policy.toml" --quiet
    rm -rf "${work:?}/mydumper"
    # shellcheck disable=SC2046
    measure dump "$dumper" "$BKP_BENCH_MYDUMPER" $(mydumper_options) --socket "$source_socket" --user root --database mall \
      --threads "$connections" --outputdir "$work/mydumper" --triggers --routines --events
    measure dump "mariadb-dump, zstd" bash -c 'set -o pipefail
      mariadb-dump --no-defaults -uroot -S "$1" --single-transaction --quick --routines --events --databases mall |
        zstd -q -T0 >"$2"' - "$source_socket" "$work/mall.sql.zst"
    measure "dump again" bkp "$bin/bkp" backup "$work/db/policy.toml" --quiet
  done
  du -sm "$work/db/repository" "$work/mydumper" "$work/mall.sql.zst" | awk '{ sub(/.*\//, "", $2); print "  stored: " $1 " MiB  " $2 }' >&2
}

bench_load() {
  local round dumper
  dumper=$(mydumper_name)
  need_mall
  [ -d "$work/db/repository" ] && [ -d "$work/mydumper" ] && [ -e "$work/mall.sql.zst" ] || rounds=1 bench_dump
  eval "$(start_mariadb target)"
  for ((round = 0; round < rounds; round++)); do
    empty_target
    measure load bkp "$bin/bkp" restore "$work/db/policy.toml" --to-mysql "mysql://root@localhost?socket=$target_socket" --no-users \
      --connections "$connections" --yes --quiet
    empty_target
    measure load "${dumper/mydumper/myloader}" "$BKP_BENCH_MYLOADER" --socket "$target_socket" --user root --threads "$connections" \
      --directory "$work/mydumper"
    empty_target
    measure load "zstd, mariadb" bash -c 'set -o pipefail; zstd -dcq "$2" | mariadb --no-defaults -uroot -S "$1"' - \
      "$target_socket" "$work/mall.sql.zst"
  done
}

# Debian has mydumper 0.10, which knows gzip only; BKP_BENCH_MYDUMPER and BKP_BENCH_MYLOADER may name newer ones.
mydumper_name() {
  echo "mydumper $("$BKP_BENCH_MYDUMPER" --version | sed 's/^mydumper v\?\([0-9.]*\).*/\1/')"
}

mydumper_options() {
  if is_new_mydumper; then echo --compress=zstd --trx-tables; else echo --compress; fi
}

is_new_mydumper() {
  "$BKP_BENCH_MYDUMPER" --help | grep -q -- --trx-tables
}

# Drops the mall and waits until the server has cleaned up behind it.
empty_target() {
  mariadb --no-defaults -uroot -S "$target_socket" -e 'DROP DATABASE IF EXISTS mall; DROP DATABASE IF EXISTS mall2; SET GLOBAL innodb_max_dirty_pages_pct=0'
  local deadline=$((SECONDS + 60))
  while [ "$(mariadb --no-defaults -uroot -S "$target_socket" -BNe \
    "SELECT variable_value > 100 FROM information_schema.global_status WHERE variable_name = 'innodb_buffer_pool_pages_dirty'")" = 1 ] &&
    [ $SECONDS -lt $deadline ]; do sleep 0.2; done
  mariadb --no-defaults -uroot -S "$target_socket" -e 'SET GLOBAL innodb_max_dirty_pages_pct=90'
}
