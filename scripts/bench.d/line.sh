# shellcheck shell=bash
# Sourced by scripts/bench: whether a copy's bandwidth holds, seen from the wire. It needs a network of its own, so that nothing else
# is on its loopback, and with it root.

LINE_RATE=$((4 << 20))
LINE_MIB=96

bench_line() {
  mkdir -p "$work/line-images"
  for ((n = 0; n < LINE_MIB; n++)); do head -c 1048576 /dev/urandom >"$work/line-images/$n"; done
  (umask 077; echo bench-secret >"$work/s3.key")
  fresh_policy line "$(files_source "$work/line-images")"
  "$bin/bkp" backup "$work/line/policy.toml" --quiet
  export -f line_inside line_windows
  LINE_RATE=$LINE_RATE bin=$bin work=$work unshare -n bash -euc line_inside
}

# Copies while the bytes on the loopback are read every 50 ms.
line_inside() {
  local server copy
  ip link set lo up
  "$bin/examples/s3" --root "$work/line/s3" --port 9000 --bucket line --access-key bench --secret-key bench-secret >/dev/null &
  server=$!
  until (exec 3<>/dev/tcp/127.0.0.1/9000) 2>/dev/null; do sleep 0.05; done
  cat >>"$work/line/policy.toml" <<POLICY
[[copy]]
name = "line"
bandwidth = "${LINE_RATE}B/s"
s3 = { bucket = "line", region = "r", endpoint = "http://127.0.0.1:9000", access_key_id = "bench", secret_access_key_file = "$work/s3.key" }
POLICY
  "$bin/bkp" copy "$work/line/policy.toml" --quiet &
  copy=$!
  while kill -0 $copy 2>/dev/null; do
    awk '/lo:/ { print systime_ns, $2 }' systime_ns="$(date +%s%N)" /proc/net/dev
    sleep 0.05
  done >"$work/line/bytes.txt"
  wait $copy
  kill $server
  line_windows <"$work/line/bytes.txt"
}

# Prints the most and the least that passed in any window of three seconds, as shares of the limit. The first and the last second
# are left out: there the copy lists, and ends.
line_windows() {
  awk -v rate="$LINE_RATE" '
    { at[NR] = $1 / 1e9; bytes[NR] = $2 }
    END {
      least = 1e9
      for (i = 1; i <= NR; i++) {
        if (at[i] < at[1] + 1) continue
        for (j = i; j <= NR && at[j] < at[i] + 3; j++);
        if (j > NR || at[j] > at[NR] - 1) break
        share = (bytes[j] - bytes[i]) / (at[j] - at[i]) / rate
        if (share > most) most = share
        if (share < least) least = share
        windows++
      }
      printf "  line             %d windows of 3 s: from %.3f to %.3f of the limit\n", windows, least, most
    }' >&2
}
