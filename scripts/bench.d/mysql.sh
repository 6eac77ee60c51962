# shellcheck shell=bash
# Sourced by scripts/bench: dumps and loads of the mall.

# What a dump is made of: each does what those before it do, and more.
STAGES="read encode seal store"

bench_mysql() {
  bench_dump
  [ ${#stages[@]} -gt 0 ] || bench_load
}

bench_dump() {
  local round stage
  need_mall
  for ((round = 0; round < rounds; round++)); do
    fresh_policy db "$(mysql_source)"
    for stage in $STAGES; do
      if is_wanted "$stage"; then "stage_$stage"; fi
    done
    [ ${#stages[@]} -gt 0 ] || bench_dumpers
  done
  du -sm "$work/db/repository" "$work"/mydumper* "$work/mall.sql.zst" 2>/dev/null |
    awk '{ sub(/.*\//, "", $2); print "  stored: " $1 " MiB  " $2 }' >&2
}

# Without --stage, all are.
is_wanted() {
  [ ${#stages[@]} = 0 ] || [[ " ${stages[*]} " = *" $1 "* ]]
}

# By all connections, as they come: what the server and the socket take.
stage_read() {
  measure dump "floor: rows read, dropped" "$bin/examples/floor" rows --socket "$source_socket" --connections "$connections"
}

stage_encode() {
  measure dump "floor: encoded, dropped" "$bin/examples/floor" encode --policy "$work/db/policy.toml" --source db1
}

stage_seal() {
  measure dump "floor: sealed, dropped" "$bin/examples/floor" seal --policy "$work/db/policy.toml" --source db1
}

stage_store() {
  measure dump bkp "$bin/bkp" backup "$work/db/policy.toml" --quiet
}

bench_dumpers() {
  rm -rf "${work:?}/mydumper"
  # shellcheck disable=SC2046
  measure dump "$(mydumper_name)" "$BKP_BENCH_MYDUMPER" $(mydumper_options) --socket "$source_socket" --user root --database mall \
    --threads "$connections" --outputdir "$work/mydumper" --triggers --routines --events
  measure dump "mariadb-dump, zstd" bash -c 'set -o pipefail
    mariadb-dump --no-defaults -uroot -S "$1" --single-transaction --quick --routines --events --databases mall |
      zstd -q -T0 >"$2"' - "$source_socket" "$work/mall.sql.zst"
  measure "dump again" bkp "$bin/bkp" backup "$work/db/policy.toml" --quiet
}

bench_load() {
  local round
  need_mall
  [ -d "$work/db/repository" ] && [ -d "$work/mydumper" ] && [ -e "$work/mall.sql.zst" ] || rounds=1 bench_dump
  dump_for_load_data
  eval "$(start_mariadb target)"
  for ((round = 0; round < rounds; round++)); do
    empty_target
    # Into the target's binlog nobody writes: myloader never does by itself.
    measure load bkp "$bin/bkp" restore "$work/db/policy.toml" --to-mysql "mysql://root@localhost?socket=$target_socket" --no-users \
      --no-binlog --connections "$connections" --yes --quiet
    bench_myloader "$(myloader_name)" mydumper
    if [ -d "$work/mydumper-load-data" ]; then bench_myloader "$(myloader_name), LOAD DATA" mydumper-load-data; fi
    # These take several times as long: one turn tells it.
    [ "$round" = 0 ] || continue
    empty_target
    measure load "client, LOAD DATA" bash -c "$(declare -f load_files); load_files \"\$@\"" - "$work/plain" "$target_socket" "$connections"
    empty_target
    measure load "zstd, mariadb" bash -c 'set -o pipefail; { echo "SET sql_log_bin = 0;"; zstd -dcq "$2"; } | mariadb --no-defaults -uroot -S "$1"' - \
      "$target_socket" "$work/mall.sql.zst"
  done
}

# What a dump stores after one row in a hundred of a table has changed, by where those rows lie, day by day at the same places.
bench_changes() {
  local all stored where day
  need_mall
  fresh_policy db "$(mysql_source)"
  all=$(bytes_stored)
  all=$((all * $(sql "SELECT data_length FROM information_schema.tables WHERE table_schema = 'mall' AND table_name = 'orders'") /
    $(sql "SELECT SUM(data_length) FROM information_schema.tables WHERE table_schema = 'mall'")))
  for where in "in one stretch" "each shop's newest" "scattered one by one"; do
    for day in 1 2 3; do
      sql "$(change_of "$where")"
      stored=$(bytes_stored)
      awk -v where="$where" -v day="$day" -v stored="$stored" -v all="$all" 'BEGIN {
        printf "  1 %% of the orders changed, %-22s day %d: %5.1f %% of the table stored anew\n", where ",", day, 100 * stored / all }' >&2
    done
  done
}

change_of() {
  local change="UPDATE mall.orders SET note = CONCAT(COALESCE(note, ''), '.')"
  case $1 in
    "in one stretch") echo "$change ORDER BY shop_id, id LIMIT $(($(sql "SELECT COUNT(*) FROM mall.orders") / 100))" ;;
    "each shop's newest") echo "UPDATE mall.orders JOIN (SELECT shop_id, MAX(id) AS last, COUNT(*) AS rows_there FROM mall.orders
      GROUP BY shop_id) AS shop USING (shop_id) SET note = CONCAT(COALESCE(note, ''), '.') WHERE id > last - rows_there / 100" ;;
    "scattered one by one") echo "$change WHERE id % 100 = 7" ;;
  esac
}

sql() {
  mariadb --no-defaults -uroot -S "$source_socket" -BNe "$1"
}

# Dumps, and prints the bytes that were new to the repository.
bytes_stored() {
  "$bin/bkp" backup "$work/db/policy.toml" --json --quiet 2>/dev/null | sed -n 's/.*"bytes_stored": *\([0-9]*\).*/\1/p' | head -n 1
}

# What the contestants of a load that send files want: a dump of mydumper's in that form, and bkp's row files themselves.
dump_for_load_data() {
  if is_new_mydumper && [ ! -d "$work/mydumper-load-data" ]; then
    # shellcheck disable=SC2046
    "$BKP_BENCH_MYDUMPER" $(mydumper_options) --format LOAD_DATA --socket "$source_socket" --user root --database mall \
      --threads "$connections" --outputdir "$work/mydumper-load-data" --triggers --routines --events
  fi
  rm -rf "${work:?}/plain"
  "$BKP_TEST_RESTIC019" -r "$work/db/repository" --password-file "$work/db/key" --quiet restore latest --target "$work/plain"
}

# Its own way: secondary keys after the rows of each table.
bench_myloader() {
  empty_target
  # shellcheck disable=SC2046
  measure load "$1" "$BKP_BENCH_MYLOADER" --socket "$target_socket" --user root --threads "$connections" --directory "$work/$2" \
    $(if is_new_mydumper; then echo --local-infile; fi)
}

# Loads row files with the plain client: the definitions first, then a session for each table, so many at once. (Several that load
# into one table would wait for the first, which finds it empty and locks it whole, or deadlock.)
load_files() {
  local dir mariadb=(mariadb --no-defaults -uroot -S "$2" --local-infile=1 --init-command="SET sql_log_bin = 0")
  dir=$(dirname "$(find "$1" -name restore.sql)")
  cd "$dir" || return 1
  sed '/^LOAD DATA/d' restore.sql | "${mariadb[@]}" || return 1
  grep '^SET SESSION' restore.sql >settings.sql
  # restore.sql has the tables by size, the largest first.
  sed -n "s/^LOAD DATA LOCAL INFILE '\([^']*\)\/[^/]*' .*/\1/p" restore.sql | uniq |
    xargs -d '\n' -P "$3" -I{} bash -c '{ cat settings.sql; grep -F "INFILE '"'"'$0/" restore.sql; } | "$@"' {} "${mariadb[@]}"
}

# Debian has mydumper 0.10, which knows gzip only; BKP_BENCH_MYDUMPER and BKP_BENCH_MYLOADER may name newer ones.
mydumper_name() {
  echo "mydumper $("$BKP_BENCH_MYDUMPER" --version | sed 's/^mydumper v\?\([0-9.]*\).*/\1/')"
}

myloader_name() {
  mydumper_name | sed 's/dumper/loader/'
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
