# shellcheck shell=bash
# Sourced by scripts/bench: binlogs, captured while a shop sells and replayed after its dump.

# How long the shop sells (--seconds), and how much it had before.
PITR_SECONDS=90
PITR_SIZE=200MB

bench_pitr() {
  local product restored binlogs dumped_at
  for product in mariadb mysql; do
    end_server source
    end_server target
    mall_bytes=0
    capture_of
    replay_of
    capture_of_copies
    end_server source
    end_server target
  done
}

# Fills a mall, dumps it, and lets it sell as fast as it can while the daemon captures.
capture_of() {
  # As a new server of either product is: each commit is on the disk before it is answered.
  eval "$(start_server "$product" source --innodb-flush-log-at-trx-commit=1 --sync-binlog=1)"
  "$bin/examples/mall" fill --socket "$source_socket" --user root --size "$PITR_SIZE" >&2
  fresh_policy pitr "$(whole_mysql_source)
[mysql.db1.binlog]
capture = true"
  "$bin/bkp" backup "$work/pitr/policy.toml" --quiet
  "$bin/bkp" binlog capture "$work/pitr/policy.toml" --quiet
  captured_while "a shop that sells" "$bin/examples/mall" busy --socket "$source_socket" --user root --connections "$connections" \
    --seconds "$PITR_SECONDS"
}

# Captures what comes as fast as one session can write: whole tables in single transactions.
capture_of_copies() {
  captured_while "tables that are copied" client source -e "USE mall; $(printf 'CREATE TABLE copy%s AS SELECT * FROM orders; ' {1..8})"
}

# Lets a program write while the daemon captures, and tells what that costs and how far it lags.
#
#   captured_while WHAT PROGRAM ARGUMENT...
captured_while() {
  local what=$1 daemon sampling bytes began=$SECONDS
  shift
  bytes=$(binlog_bytes)
  /usr/bin/time -o "$work/daemon.txt" -f '%U %S %M' "${contestants_on[@]}" "$bin/bkp" daemon "$work/pitr/policy.toml" >"$work/daemon.log" 2>&1 &
  daemon=$!
  touch "$work/writes"
  sample_lag "$work/pitr/state/binlog/db1" >"$work/lag.txt" &
  sampling=$!
  "$@" | sed -n 's/^committed/  the mall committed/p' >&2
  rm "$work/writes"
  wait "$sampling"
  # The program that measures is the daemon's parent.
  kill -TERM "$(pgrep -P "$daemon")"
  wait "$daemon" || { cat "$work/daemon.log" >&2; exit 1; }
  bytes=$(($(binlog_bytes) - bytes))
  sort -n "$work/lag.txt" | awk -v what="$product, $what" -v bytes="$bytes" -v seconds=$((SECONDS - began)) -v used="$(cat "$work/daemon.txt")" '
    { lag[NR] = $1 }
    END {
      split(used, of)
      printf "  capture of %s: %.1f MB/s, %.2f %% of a core for each 10 MB/s, peak %.0f MiB, lag p50 %.0f ms, p99 %.0f ms (%d samples)\n",
        what, bytes / seconds / 1e6, 100 * (of[1] + of[2]) / (bytes / 1e7), of[3] / 1024, lag[int(NR / 2) + 1], lag[int(NR * 0.99) + 1], NR
    }' >&2
}

# Prints how many bytes of binlog the source has written.
binlog_bytes() {
  client source -BNe 'SHOW BINARY LOGS' | awk '{ sum += $2 } END { print sum }'
}

# While something writes: how many milliseconds pass from when the source says that it has written a byte until the spool's file has it.
# Small events come together for up to 200 ms, and are synced as they are written.
sample_lag() {
  local began file place
  sleep 2
  while [ -e "$work/writes" ]; do
    read -r file place _ < <(client source -BNe "$(binlog_status)")
    began=$(date +%s%N)
    while [ "$(stat -c %s "$1"/*/"$file" 2>/dev/null || echo 0)" -lt "$place" ]; do sleep 0.01; done
    echo $((($(date +%s%N) - began) / 1000000))
    sleep 0.2
  done
}

# Replays what was captured on a target that has the dump, each contestant in turn, and compares the rows with the source's.
replay_of() {
  local round wanted
  # The rows as they were dumped, and as they are to become.
  wanted=$(rows_of source)
  # What came since the daemon sealed last.
  "$bin/bkp" binlog capture "$work/pitr/policy.toml" --quiet
  rm -rf "${work:?}/binlogs"
  "$bin/bkp" binlog export "$work/pitr/policy.toml" "$work/binlogs" --quiet
  for ((round = 0; round < rounds; round++)); do
    target_with_dump
    measure "replay, $product" bkp "$bin/bkp" restore "${restored[@]}" --point-in-time latest --go-further
    refuse_other_rows "$wanted"
    target_with_dump
    measure "replay, $product" "mysqlbinlog, client" bash -c 'set -o pipefail
      "$1" --no-defaults --start-position="$2" "${@:5}" | "$3" --no-defaults -uroot -S "$4"' - "$(binlog_reader)" "$dumped_at" \
      "$(client_program)" "$target_socket" "${binlogs[@]}"
    refuse_other_rows "$wanted"
  done
}

# Starts a new server and loads the dump, up to its own place in the binlog: both contestants begin there. Sets `restored`, and
# `dumped_at` and `binlogs` for whoever reads files.
target_with_dump() {
  local first plan
  end_server target
  eval "$(start_server "$product" target --innodb-flush-log-at-trx-commit=1 --sync-binlog=1)"
  restored=("$work/pitr/policy.toml" --source db1 --to-mysql "mysql://root@localhost?socket=$target_socket" --no-users
    --connections "$connections" --yes --quiet)
  plan=$("$bin/bkp" restore "${restored[@]}" --point-in-time latest --dry-run --json | tr -d ' \n')
  # The replay's own; each transaction that the plan names has one, too.
  read -r first dumped_at < <(grep -o '"begin":{"file":"[^"]*","offset":[0-9]*}' <<<"$plan" | head -n 1 | sed 's/.*"file":"\(.*\)","offset":\(.*\)}/\1 \2/')
  sed 's/.*"transactions":\([0-9]*\).*/  to be replayed: \1 transactions/' <<<"$plan" >&2
  "$bin/bkp" restore "${restored[@]}" --point-in-time "position:$first:$dumped_at" >"$work/log.txt" 2>&1 || { cat "$work/log.txt" >&2; exit 1; }
  mapfile -t binlogs < <(find "$work/binlogs" -name 'binlog.[0-9]*' | sort | sed -n "/\/$first\$/,\$p")
}

rows_of() {
  local socket=${1}_socket
  # The binlogs bring rows; how the dump says a definition is no matter here.
  "$bin/examples/mall" checksum --socket "${!socket}" --user root | grep -v '^definitions'
}

refuse_other_rows() {
  [ "$(rows_of target)" = "$1" ] || { echo "bench: pitr, $product: the rows are not the source's" >&2; exit 1; }
}

client() {
  local socket=${1}_socket
  "$(client_program)" --no-defaults -uroot -S "${!socket}" "${@:2}"
}

client_program() {
  if [ "$product" = mysql ]; then echo "$BKP_TEST_MYSQL"; else echo "$BKP_TEST_MARIADB"; fi
}

binlog_reader() {
  if [ "$product" = mysql ]; then echo "$BKP_TEST_MYSQLBINLOG"; else echo "$BKP_TEST_MARIADB_BINLOG"; fi
}

binlog_status() {
  if [ "$product" = mysql ]; then echo "SHOW BINARY LOG STATUS"; else echo "SHOW MASTER STATUS"; fi
}
