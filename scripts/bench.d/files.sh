# shellcheck shell=bash
# Sourced by scripts/bench: backups and restores of an image tree.

bench_files() {
  local round
  need_images
  for ((round = 0; round < rounds; round++)); do
    bench_files_once
  done
  rm -rf "$work"/restored.*
  du -sm "$work/files/repository" "$work/restic" | awk '{ sub(/.*\//, "", $2); print "  stored: " $1 " MiB  " $2 }' >&2
}

bench_files_once() {
  local restic=("$BKP_TEST_RESTIC019" -q -r "$work/restic" --password-file "$work/restic.key" --no-cache)
  echo bench >"$work/restic.key"
  rm -rf "${work:?}/restic"
  fresh_policy files "$(files_source "$work/images")"
  "${restic[@]}" init >/dev/null
  measure "files first" "floor: cat" bash -c 'find "$1" -type f -print0 | xargs -0 cat >/dev/null' - "$work/images"
  measure "files first" bkp "$bin/bkp" backup "$work/files/policy.toml" --quiet
  measure "files first" restic "${restic[@]}" backup "$work/images"
  measure "files unchanged" "floor: find" find "$work/images" -printf '%s %T@ %C@ %i %p\n'
  measure "files unchanged" bkp "$bin/bkp" backup "$work/files/policy.toml" --quiet
  measure "files unchanged" restic "${restic[@]}" backup "$work/images"
  # Each into a place of its own, and none is deleted before all are done: ext4 searches long for an inode where many were
  # freed in the last minute, and the next contestant would pay for it.
  measure "files restore" "floor: cp" cp -a "$work/images" "$work/restored.cp.$round"
  measure "files restore" bkp "$bin/bkp" restore "$work/files/policy.toml" --to-dir "$work/restored.bkp.$round" --yes --quiet
  measure "files restore" restic "${restic[@]}" restore latest --target "$work/restored.restic.$round"
}
