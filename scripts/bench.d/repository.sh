# shellcheck shell=bash
# Sourced by scripts/bench: the repository itself, on an image tree, on the text of tables, and with a large index.

# Bytes of the tables' text.
TEXT_SIZE=2147MB

bench_repository() {
  local round what
  local -A programs=()
  echo "bench: each primitive on one thread" >&2
  "$bin/examples/floor" hardware | sed 's/^/  /' >&2
  need_images
  need_text
  find_contestants
  for ((round = 0; round < rounds; round++)); do
    bench_tree images "$work/images"
    bench_tree text "$work/text" --compress
  done
  for what in images text; do
    du -sm "$work/on-$what/repository" "$work/on-$what".* | sed 's/\t.*\(on-[^\/]*\).*/ MiB  \1/; s/^/  stored: /' >&2
  done
  rm -rf "$work"/restored.*
  bench_index
}

# One round of all contestants on a tree. `$3` tells the floor that its bytes compress.
bench_tree() {
  local what=$1 place=on-$1 tree=$2 primitives=("$bin/examples/floor" primitives ${3+"$3"} "$2") contestant command
  fresh_policy "$place" "$(files_source "$tree")"
  measure "$what, first" "floor: primitives" "${primitives[@]}"
  measure "$what, first" "floor: written, read back" "${primitives[@]}" --to "$work/floor"
  rm -rf "${work:?}/floor"
  measure "$what, first" bkp "$bin/bkp" backup "$work/$place/policy.toml" --quiet
  for contestant in "${!programs[@]}"; do
    rm -rf "${work:?}/$place.${contestant// /}"
    command_of "$contestant" init "$place"
    "${command[@]}" >/dev/null
    measure_contestant "$what, first" backup "$tree"
  done
  measure "$what, unchanged" bkp "$bin/bkp" backup "$work/$place/policy.toml" --quiet
  for contestant in "${!programs[@]}"; do measure_contestant "$what, unchanged" backup "$tree"; done
  measure "$what, every byte checked" bkp "$bin/bkp" verify "$work/$place/policy.toml" --level data --quiet
  for contestant in "${!programs[@]}"; do measure_contestant "$what, every byte checked" check; done
  # Each into a place of its own, and none is deleted before all are done: ext4 searches long for an inode where many were
  # freed in the last minute, and the next contestant would pay for it.
  measure "$what, restored" "floor: cp" cp -a "$tree" "$work/restored.$what.cp.$round"
  measure "$what, restored" bkp "$bin/bkp" restore "$work/$place/policy.toml" --to-dir "$work/restored.$what.bkp.$round" --yes --quiet
  for contestant in "${!programs[@]}"; do
    measure_contestant "$what, restored" restore "$work/restored.$what.${contestant// /}.$round"
  done
}

# Measures an act of `$contestant` on its repository at `$place`.
measure_contestant() {
  command_of "$contestant" "$2" "$place" "${3-}"
  measure "$1" "$contestant" "${command[@]}"
}

# Sets `command` to what makes a contestant do an act on its repository of something.
command_of() {
  local repository="$work/$3.${1// /}" path=${4-}
  command=("${programs[$1]}" --no-cache --password-file "$work/restic.key" -r "$repository")
  case $1 in
    restic*) command+=(-q) ;;
    rustic*) command+=(--log-level warn --no-progress) ;;
  esac
  case $2 in
    init) command+=(init) ;;
    backup) command+=(backup "$path") ;;
    check) command+=(check --read-data) ;;
    restore)
      case $1 in
        restic*) command+=(restore latest --target "$path") ;;
        rustic*) command+=(restore latest "$path") ;;
      esac
      ;;
  esac
}

# Sets `programs`, by name and version.
find_contestants() {
  local program
  echo bench >"$work/restic.key"
  for program in "$BKP_TEST_RESTIC019" "$BKP_TEST_RESTIC"; do
    programs["restic $("$program" version | cut -d' ' -f2)"]=$program
  done
  if [ -n "${BKP_BENCH_RUSTIC-}" ]; then programs[rustic]=$BKP_BENCH_RUSTIC; fi
}

# Writes the text of tables once.
need_text() {
  [ ! -d "$work/text" ] || return 0
  echo "bench: writing $TEXT_SIZE of rows" >&2
  "$bin/examples/mall" text --dir "$work/text" --size "$TEXT_SIZE" >&2
}

# Opens an index of so many blobs and looks a million of them up; restic opens the same and looks one up.
bench_index() {
  local round program
  echo "bench: writing an index of $blobs blobs" >&2
  "$bin/examples/floor" index make "$work/index" --blobs "$blobs" >&2
  du -sm "$work/index" | sed 's/\t.*/ MiB of index/; s/^/  stored: /' >&2
  for ((round = 0; round < rounds; round++)); do
    measure "index of $blobs blobs" bkp "$bin/examples/floor" index open "$work/index" --blobs "$blobs"
    sed 's/^/    /' "$work/log.txt" >&2
    for program in "$BKP_TEST_RESTIC019" "$BKP_TEST_RESTIC"; do
      measure "index of $blobs blobs" "restic $("$program" version | cut -d' ' -f2)" "$program" -q --no-cache --no-lock \
        --password-file "$work/restic.key" -r "$work/index" stats --mode raw-data
    done
  done
}
