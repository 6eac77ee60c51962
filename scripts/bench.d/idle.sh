# shellcheck shell=bash
# Sourced by scripts/bench: what a crontab costs that starts `bkp run` every minute.

# Runs by which a start is averaged: one takes milliseconds.
STARTS=200

bench_idle() {
  local round
  mkdir -p "$work/tree"
  echo bench >"$work/tree/file"
  fresh_policy idle "$(files_source "$work/tree")"
  # Stamped as done for today: nothing is due from now on.
  "$bin/bkp" run "$work/idle/policy.toml" --quiet >"$work/log.txt" 2>&1 || { cat "$work/log.txt" >&2; exit 1; }
  for ((round = 0; round < rounds; round++)); do
    measure "idle ($STARTS starts)" floor bash -c 'for ((i = 0; i < $1; i++)); do /bin/true; done' - $STARTS
    measure "idle ($STARTS starts)" bkp bash -c 'for ((i = 0; i < $1; i++)); do "$2" run "$3" --quiet || exit; done' - $STARTS \
      "$bin/bkp" "$work/idle/policy.toml"
  done
}
