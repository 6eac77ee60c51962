# shellcheck shell=bash
# Sourced by scripts/bench: one measurement is one line, and the table is made of the lines.

# Runs a command and notes its wall and processor seconds, its peak memory, and what the database server spent on it.
#
#   measure CASE CONTESTANT COMMAND...
measure() {
  local case=$1 who=$2 before after note=$work/time.txt log=$work/log.txt
  shift 2
  sync
  before=$(server_ticks)
  if ! /usr/bin/time -o "$note" -f '%e %U %S %M' "${contestants_on[@]}" "$@" >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "bench: $case, $who: failed: $*" >&2
    exit 1
  fi
  after=$(server_ticks)
  awk -v what="$case" -v who="$who" -v ticks=$((after - before)) -v hertz="$(getconf CLK_TCK)" '
    NF == 4 { printf "%s\t%s\t%.3f\t%.3f\t%d\t%.3f\n", what, who, $1, $2 + $3, $4, ticks / hertz }' "$note" |
    tee -a "$results" |
    awk -F'\t' '{ printf "  %-16s %-26s %9.2f s wall %9.2f s cpu %7.0f MiB %9.2f s server\n", $1, $2, $3, $4, $5 / 1024, $6 }' >&2
}

# Prints the processor time of the database servers so far, in clock ticks.
server_ticks() {
  local dir pid sum=0 stat
  for dir in "$work"/source "$work"/target; do
    [ -r "$dir/server.pid" ] && pid=$(cat "$dir/server.pid") && stat=$(cat "/proc/$pid/stat" 2>/dev/null) || continue
    # The name in parentheses may hold anything, so fields count from behind it.
    sum=$((sum + $(awk '{ print $12 + $13 }' <<<"${stat##*) }")))
  done
  echo "$sum"
}

# Prints the median of each case and contestant, and its ratio to bkp's. The server's time is also that for each GB of the mall's rows.
print_table() {
  sort -t"$(printf '\t')" -k1,1 -k2,2 "$1" | awk -F'\t' -v gb="${mall_bytes:-0}e-9" '
    function median(list, n,   i, j, keep) {
      for (i = 2; i <= n; i++) for (j = i; j > 1 && list[j] < list[j - 1]; j--) {
        keep = list[j]; list[j] = list[j - 1]; list[j - 1] = keep
      }
      return n % 2 ? list[(n + 1) / 2] : (list[n / 2] + list[n / 2 + 1]) / 2
    }
    function close_group() {
      if (!n) return
      key = ++rows
      case_of[key] = group_case; who_of[key] = group_who
      wall_of[key] = median(wall, n); cpu_of[key] = median(cpu, n); rss_of[key] = median(rss, n); server_of[key] = median(server, n)
      if (group_who == "bkp") { base_wall[group_case] = wall_of[key]; base_cpu[group_case] = cpu_of[key] }
      n = 0
    }
    $1 != group_case || $2 != group_who { close_group(); group_case = $1; group_who = $2 }
    { n++; wall[n] = $3; cpu[n] = $4; rss[n] = $5; server[n] = $6 }
    function per_gb(number) { return number > 0 && gb > 0 ? sprintf("%.2f", number / gb) : "" }
    function seconds(number) { return number > 0 ? sprintf("%.2f", number) : "" }
    function ratio(base, mine) { return mine > 0 && base > 0 ? sprintf("%.2f", base / mine) : "-" }
    END {
      close_group()
      print "| case | program | wall s | cpu s | peak MiB | server cpu s | server cpu s/GB | bkp wall / its | bkp cpu / its |"
      print "| --- | --- | --: | --: | --: | --: | --: | --: | --: |"
      for (key = 1; key <= rows; key++) {
        what = case_of[key]
        printf "| %s | %s | %.2f | %.2f | %.0f | %s | %s | %s | %s |\n", what, who_of[key], wall_of[key], cpu_of[key], rss_of[key] / 1024,
          seconds(server_of[key]), per_gb(server_of[key]), ratio(base_wall[what], wall_of[key]), ratio(base_cpu[what], cpu_of[key])
      }
    }'
}

print_machine() {
  printf '\n%s, %s cores, %s GiB, %s; medians of %s rounds%s; bkp %s\n\n' "$(date -u +%F)" "$(nproc)" \
    "$(awk '/^MemTotal/ { printf "%.0f", $2 / 1048576 }' /proc/meminfo)" "$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)" \
    "$rounds" "${contestants_on:+, servers and contestants each on half of the cores}" "$("$bin/bkp" --version | cut -d' ' -f2)"
}
