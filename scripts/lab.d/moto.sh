# shellcheck shell=bash
# Sourced by scripts/lab: moto, an S3 server in Python that keeps versions and enforces Object Lock.
#
# It lives in a Python environment of its own under $BKP_LAB; the versions are those of moto.txt. Some 15 s and 140 MB.

install_moto() {
  local list=$ROOT/scripts/lab.d/moto.txt tree=$BKP_LAB/moto
  cmp -s "$list" "$tree/installed.txt" && return 0
  mkdir -p "$BKP_LAB"
  (
    flock 9
    cmp -s "$list" "$tree/installed.txt" && exit 0
    say "installing moto into $tree"
    rm -rf "$tree"
    python3 -m venv "$tree" >&2
    "$tree/bin/pip" install -q --disable-pip-version-check --no-deps -r "$list" >&2
    "$tree/bin/moto_server" --help >/dev/null || die "$tree/bin/moto_server does not run"
    cp "$list" "$tree/installed.txt"
  ) 9>"$BKP_LAB/lock"
}

# Its buckets are in memory and end with it.
up_moto() {
  local dir port program deadline=$((SECONDS + START_SECONDS_MAX))
  take_dir "$1"; take_port "$2"; shift 2
  program=$(program_of BKP_TEST_MOTO) || die "no moto_server: run scripts/lab install --for test"
  setsid env -u AWS_CA_BUNDLE "$program" -H 127.0.0.1 -p "$port" "$@" >"$dir/stdout.log" 2>"$dir/error.log" </dev/null 9>&- &
  note_pid $!
  until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    lab_pid "$dir" >/dev/null || { cat "$dir/error.log" >&2; die "moto ended while it started"; }
    [ $SECONDS -lt $deadline ] || die "no answer after $START_SECONDS_MAX s, see $dir/error.log"
    sleep 0.1
  done
  printf 'endpoint=http://127.0.0.1:%q\nport=%q\n' "$port" "$port"
}
