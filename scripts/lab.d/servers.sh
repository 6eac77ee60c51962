# shellcheck shell=bash
# Sourced by scripts/lab: throwaway servers on 127.0.0.1, each in a directory of its own.

# A cold server on a busy two-core machine has needed 40 s.
START_SECONDS_MAX=120
# A server with a full buffer pool writes it back before it ends.
STOP_SECONDS_MAX=60

up_mariadb() {
  local dir port program client
  take_dir "$1"; take_port "$2"; shift 2
  program=$(program_of BKP_TEST_MARIADBD) || die "no mariadbd: run scripts/lab install --for quickstart"
  client=$(program_of BKP_TEST_MARIADB) || die "no mariadb client: run scripts/lab install --for quickstart"
  if [ ! -d "$dir/data/mysql" ]; then
    # A server that starts elsewhere removes temporary tables in a directory that both share.
    TMPDIR="$dir/tmp" mariadb-install-db --no-defaults "${AS_ROOT[@]}" --datadir="$dir/data" --skip-test-db \
      --auth-root-authentication-method=normal >"$dir/install.log" 2>&1 || die "mariadb-install-db failed, see $dir/install.log"
  fi
  start_server "$program" --no-defaults --basedir=/usr --binlog-format=ROW "$@"
  wait_for "$client" --no-defaults
}

up_mysql() {
  local dir port program client
  take_dir "$1"; take_port "$2"; shift 2
  program=$(program_of BKP_TEST_MYSQLD) || die "no mysqld: run scripts/lab install --for test"
  client=$(program_of BKP_TEST_MYSQL) || die "no mysql client: run scripts/lab install --for test"
  if [ ! -d "$dir/data/mysql" ]; then
    "$program" --no-defaults "${AS_ROOT[@]}" --initialize-insecure --datadir="$dir/data" --mysqlx=OFF >"$dir/install.log" 2>&1 ||
      die "mysqld --initialize-insecure failed, see $dir/install.log"
  fi
  start_server "$program" --no-defaults --mysqlx=OFF --gtid-mode=ON --enforce-gtid-consistency=ON "$@"
  wait_for "$client" --no-defaults
}

AS_ROOT=()
if [ "$(id -u)" = 0 ]; then AS_ROOT=(--user=root); fi

# Sets `dir` to an absolute path in which nothing runs.
take_dir() {
  mkdir -p "$1"
  dir=$(cd "$1" && pwd)
  # A socket's path may have 107 bytes.
  [ ${#dir} -le 95 ] || die "the path $dir is too long for a socket"
  ! lab_pid "$dir" >/dev/null || die "something already runs in $dir: scripts/lab down $dir"
  mkdir -p "$dir/tmp"
}

# Sets `port`, for 0 to one on which nobody listens.
take_port() {
  port=$1
  while [ "$port" = 0 ]; do
    port=$((20000 + RANDOM % 12000))
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then port=0; fi
  done
}

program_of() {
  local path
  path=$(lab_env | sed -n "s/^$1=//p")
  [ -n "$path" ] && eval "echo $path"
}

# Starts a database server with the options of every lab server; those of the caller come last and win.
start_server() {
  local program=$1
  shift
  cat >"$dir/init.sql" <<'SQL'
SET SESSION sql_log_bin=0;
CREATE USER IF NOT EXISTS 'bkp'@'%' IDENTIFIED BY 'bkp';
GRANT ALL PRIVILEGES ON *.* TO 'bkp'@'%' WITH GRANT OPTION;
SQL
  setsid "$program" "$1" "${AS_ROOT[@]}" --datadir="$dir/data" --socket="$dir/s.sock" --port="$port" \
    --pid-file="$dir/server.pid" --log-error="$dir/error.log" --tmpdir="$dir/tmp" --init-file="$dir/init.sql" \
    --bind-address=127.0.0.1 --skip-name-resolve --server-id=$((port % 60000 + 1)) --log-bin=binlog \
    --character-set-server=utf8mb4 --innodb-buffer-pool-size=256M --innodb-flush-log-at-trx-commit=2 --sync-binlog=0 \
    --local-infile=1 --max-allowed-packet=256M --max-connections=200 "${@:2}" \
    >"$dir/stdout.log" 2>&1 </dev/null 9>&- &
  note_pid $!
}

wait_for() {
  local deadline=$((SECONDS + START_SECONDS_MAX))
  until "$@" --socket="$dir/s.sock" --user=root -e 'SELECT 1' >/dev/null 2>&1; do
    if ! lab_pid "$dir" >/dev/null; then
      tail -n 8 "$dir/error.log" >&2 || true
      die "the server ended while it started, see $dir/error.log"
    fi
    [ $SECONDS -lt $deadline ] || die "no answer after $START_SECONDS_MAX s, see $dir/error.log"
    sleep 0.1
  done
  lab_pid "$dir" >/dev/null || die "another server answers on $dir/s.sock"
  printf 'socket=%q\nport=%q\n' "$dir/s.sock" "$port"
}

up_s3() {
  local dir port program
  take_dir "$1"
  port=$2
  shift 2
  program=${BKP_LAB_S3:-$(cargo_target)/debug/examples/s3}
  [ -x "$program" ] || die "no $program: run cargo build --example s3"
  mkdir -p "$dir/data"
  setsid "$program" --root "$dir/data" --port "$port" "$@" >"$dir/stdout.log" 2>"$dir/error.log" </dev/null 9>&- &
  note_pid $!
  until port=$(sed -n 's/^listening on 127\.0\.0\.1://p' "$dir/stdout.log") && [ -n "$port" ]; do
    lab_pid "$dir" >/dev/null || { cat "$dir/error.log" >&2; die "the S3 server ended while it started"; }
    sleep 0.05
  done
  printf 'endpoint=http://127.0.0.1:%q\nport=%q\n' "$port" "$port"
}

note_pid() {
  echo "$1 $(start_of "$1")" >"$dir/lab.pid"
}

# Prints when a process began, in the kernel's ticks.
start_of() {
  local stat
  # The name in parentheses may hold anything, so fields count from behind it.
  stat=$(cat "/proc/$1/stat" 2>/dev/null) && awk '{ print $20 }' <<<"${stat##*) }"
}

# Prints the pid of what `up` started in a directory, if that very process still runs: its number may have gone to
# another one since, which began at another time.
lab_pid() {
  local pid start
  read -r pid start 2>/dev/null <"$1/lab.pid" || return 1
  [ -n "$start" ] && [ "$(start_of "$pid")" = "$start" ] && ! is_zombie "$pid" || return 1
  echo "$pid"
}

is_zombie() {
  grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null
}

lab_down() {
  local dir pid deadline=$((SECONDS + STOP_SECONDS_MAX))
  dir=$(cd "$1" && pwd)
  if pid=$(lab_pid "$dir"); then
    kill -TERM "$pid" 2>/dev/null || true
    while lab_pid "$dir" >/dev/null; do
      if [ $SECONDS -ge $deadline ]; then
        say "pid $pid did not stop in $STOP_SECONDS_MAX s: killed"
        kill -KILL "$pid" 2>/dev/null || true
      fi
      sleep 0.1
    done
  fi
  rm -f "$dir/lab.pid"
}
