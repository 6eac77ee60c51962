# shellcheck shell=bash
# Sourced by scripts that run what cargo has built.

# Prints the directory that cargo builds into, wherever the environment or a config file puts it.
cargo_target() {
  cargo metadata --locked --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}
