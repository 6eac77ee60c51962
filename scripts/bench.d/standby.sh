# shellcheck shell=bash
# Sourced by scripts/bench: how long a promotion takes beside a restore, after a shop has sold for a while.

# A mall of SIZE sells for --seconds while the daemon captures and a standby follows; then its server is killed, the standby
# promoted, and its rows compared with those that the source had.
bench_standby() {
  local product
  for product in mariadb mysql; do
    standby_of
    end_server source
    end_server target
  done
}

standby_of() {
  local daemon follower wanted to
  end_server source
  end_server target
  eval "$(start_server "$product" source $(gtids_of "$product"))"
  echo "bench: filling a mall of $size on $product" >&2
  "$bin/examples/mall" fill --socket "$source_socket" --user root --size "$size" >&2
  fresh_policy standby "$(whole_mysql_source)
[mysql.db1.binlog]
capture = true"
  "$bin/bkp" backup "$work/standby/policy.toml" --quiet
  "$bin/bkp" daemon "$work/standby/policy.toml" >"$work/daemon.log" 2>&1 &
  daemon=$!
  eval "$(start_server "$product" target $(gtids_of "$product"))"
  to=("$work/standby/policy.toml" --source db1 --to-mysql "mysql://root@localhost?socket=$target_socket")
  "$bin/bkp" standby start "${to[@]}" --connections "$connections" >"$work/follower.log" 2>&1 &
  follower=$!
  until "$bin/bkp" standby status "${to[@]}" --quiet >/dev/null 2>&1; do
    kill -0 "$follower" 2>/dev/null || { cat "$work/follower.log" >&2; exit 1; }
    sleep 1
  done
  "$bin/examples/mall" busy --socket "$source_socket" --user root --connections "$connections" --seconds "$PITR_SECONDS" |
    sed -n 's/^committed/  the mall committed/p' >&2
  wanted=$(rows_of source)
  kill -KILL "$(cat "$work/source/server.pid")"
  measure "promotion, $product" bkp "$bin/bkp" standby promote "${to[@]}"
  sed 's/^/  /' "$work/log.txt" >&2
  refuse_other_rows "$wanted"
  wait "$follower" || { cat "$work/follower.log" >&2; exit 1; }
  kill -TERM "$daemon"
  wait "$daemon" || { cat "$work/daemon.log" >&2; exit 1; }
}

# A standby goes by GTIDs, which a MariaDB always has.
gtids_of() {
  if [ "$1" = mysql ]; then echo --gtid-mode=ON --enforce-gtid-consistency=ON; fi
}
