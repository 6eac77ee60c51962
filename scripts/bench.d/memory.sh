# shellcheck shell=bash
# Sourced by scripts/bench: peak memory at one size and at twice that size.

bench_memory() {
  need_mall
  need_images
  backup_and_restore "$size"
  backup_and_restore_files "$images"
  echo "bench: and twice as much" >&2
  # A second mall of the same size, in a schema of its own on the same server.
  "$bin/examples/mall" fill --socket "$source_socket" --user root --size "$size" --schema mall2 --seed 2 >&2
  schemas='"mall", "mall2"'
  "$bin/examples/mall" images --dir "$work/images/twice" --count "$images" --seed 2 >&2
  backup_and_restore "2 x $size"
  backup_and_restore_files "2 x $images"
}

backup_and_restore() {
  fresh_policy db "$(mysql_source)"
  measure "memory: database $1, backup" bkp "$bin/bkp" backup "$work/db/policy.toml" --quiet
  [ -n "${target_socket-}" ] || eval "$(start_mariadb target)"
  empty_target
  measure "memory: database $1, restore" bkp "$bin/bkp" restore "$work/db/policy.toml" --to-mysql \
    "mysql://root@localhost?socket=$target_socket" --no-users --connections "$connections" --yes --quiet
  empty_target
}

backup_and_restore_files() {
  fresh_policy files "$(files_source "$work/images")"
  measure "memory: $1 images, backup" bkp "$bin/bkp" backup "$work/files/policy.toml" --quiet
  rm -rf "${work:?}/restored"
  measure "memory: $1 images, restore" bkp "$bin/bkp" restore "$work/files/policy.toml" --to-dir "$work/restored" --yes --quiet
  rm -rf "${work:?}/restored"
}
