# shellcheck shell=bash
# Sourced by scripts/lab: programs from Debian's unstable suite, unpacked beside the system.
#
# An own apt root (lists, cache, an empty package status) resolves everything down to libc, the packages are unpacked
# but not installed, and a wrapper starts each program through the tree's own loader and libraries. No root needed,
# and the system stays as it is.

# There are two trees, because two servers bring files of the same names.
UNSTABLE_PACKAGES="mysql-server-core mysql-client-core restic mydumper"
NEWEST_MARIADB_PACKAGES="mariadb-server-core mariadb-client-core"
# The server's plugins, without what its package asks for to run it as a service.
NEWEST_MARIADB_PLUGINS="mariadb-server"
# One more than the last layout of the trees or the wrappers; an older tree is made anew.
UNSTABLE_LAYOUT=3

install_unstable() {
  install_tree unstable "$UNSTABLE_PACKAGES" write_wrappers check_wrappers
}

install_newest_mariadb() {
  install_tree mariadb "$NEWEST_MARIADB_PACKAGES" wrap_mariadb check_mariadb "$NEWEST_MARIADB_PLUGINS"
}

# Unpacks packages ($2, with what they need, and $5, without) into $BKP_LAB/$1, makes the programs in it run ($3), and proves that
# they do ($4).
install_tree() {
  local tree=$BKP_LAB/$1
  [ "$(cat "$tree/.layout" 2>/dev/null)" = $UNSTABLE_LAYOUT ] && return 0
  mkdir -p "$BKP_LAB"
  (
    flock 9
    [ "$(cat "$tree/.layout" 2>/dev/null)" = $UNSTABLE_LAYOUT ] && exit 0
    say "unpacking $2 from Debian's unstable suite into $tree"
    download_unstable "$2" "${5-}"
    unpack_unstable "$tree"
    "$3"
    "$4"
    echo $UNSTABLE_LAYOUT >"$tree/.layout"
    rm -rf "$BKP_LAB/apt"
  ) 9>"$BKP_LAB/lock"
}

download_unstable() {
  local apt=$BKP_LAB/apt packages=$1 alone=$2 mirror
  mirror=$(debian_mirror)
  [ -n "$mirror" ] || die "no Debian mirror in this machine's apt configuration (apt-get --print-uris update names none)"
  rm -rf "$apt"
  mkdir -p "$apt"/{lists,archives}/partial "$apt/none"
  : >"$apt/status"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror sid main" >"$apt/sources.list"
  private_apt "$apt" update >&2
  # shellcheck disable=SC2086
  private_apt "$apt" install -y --download-only $packages >&2
  # shellcheck disable=SC2086
  [ -z "$alone" ] || (cd "$apt/archives" && private_apt "$apt" download $alone >&2)
}

# Prints the address from which this machine gets its own release; asks apt for it without the network, and without the
# lists, which a fresh machine does not have yet.
debian_mirror() {
  local codename
  codename=$(. /etc/os-release && echo "${VERSION_CODENAME-}")
  apt-get --print-uris update | sed -n "s#^'\(.*\)/dists/\($codename\|stable\|oldstable\)/InRelease'.*#\1#p" | head -n 1
}

private_apt() {
  local apt=$1
  shift
  # A frozen mirror's Release file can be past its Valid-Until date; its signature is checked all the same.
  apt-get -q -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts="$apt/none" -o Dir::Etc::Preferences=- \
    -o Dir::Etc::PreferencesParts="$apt/none" -o Dir::State::Lists="$apt/lists" -o Dir::State::Status="$apt/status" \
    -o Dir::State::Extended_States="$apt/extended" -o Dir::Cache="$apt" -o Dir::Cache::Archives="$apt/archives" \
    -o Acquire::Check-Valid-Until=false -o Acquire::Languages=none -o APT::Install-Recommends=false \
    -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false -o Acquire::Retries=3 \
    -o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false -o APT::Sandbox::User=root \
    -o APT::Update::Post-Invoke= -o APT::Update::Post-Invoke-Success= -o APT::Default-Release= "$@"
}

unpack_unstable() {
  local package tree=$1
  rm -rf "$tree"
  mkdir -p "$tree"
  for package in "$BKP_LAB"/apt/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$package" |
      tar -x -C "$tree" --no-same-owner --exclude='./usr/share/doc' --exclude='./usr/share/man' --exclude='./usr/share/locale'
  done
}

# Sets `loader` and `libraries` of a tree, as paths from there.
find_loader() {
  local found=("$1"/usr/lib/*-linux-gnu*)
  libraries=${found[0]#"$1/"}
  loader=$(cd "$1" && find "$libraries" -maxdepth 1 -name 'ld-linux*.so.*' | head -n 1)
  [ -n "$loader" ] || die "no loader in $1"
}

write_wrappers() {
  local name loader libraries
  find_loader "$BKP_LAB/unstable"
  mkdir -p "$BKP_LAB"/{mysql,restic,mydumper}/bin
  write_wrapper restic/bin/restic usr/bin/restic ""
  for name in mydumper myloader; do
    write_wrapper mydumper/bin/$name usr/bin/$name ""
  done
  # The system's my.cnf belongs to another product, so these programs read none unless told to. The directory that this
  # build takes for secure-file-priv belongs to a package that is not here: without it the server does not start.
  # shellcheck disable=SC2016
  write_wrapper mysql/bin/mysqld usr/sbin/mysqld \
    '--basedir="$tree/usr" --plugin-dir="$tree/usr/lib/mysql/plugin" --lc-messages-dir="$tree/usr/share/mysql" --character-sets-dir="$tree/usr/share/mysql/charsets" --secure-file-priv='
  for name in mysql mysqladmin mysqlbinlog mysqldump; do
    write_wrapper mysql/bin/$name usr/bin/$name ''
  done
}

# Writes $BKP_LAB/$1, which runs $2 of the tree with the options $3.
write_wrapper() {
  local wrapper=$BKP_LAB/$1
  {
    cat <<HEAD
#!/bin/bash
# Written by scripts/lab: runs a program of the unpacked tree through its own loader and libraries.
lab=\$(cd "\$(dirname "\$(readlink -f "\${BASH_SOURCE[0]}")")/../.." && pwd)
tree=\$lab/unstable
run=("\$tree/$loader" --library-path "\$tree/$libraries" --argv0 "\$0" "\$tree/$2")
HEAD
    case $1 in
      mysql/*) cat <<TAIL ;;
export LIBMYSQL_PLUGIN_DIR=\${LIBMYSQL_PLUGIN_DIR:-\$tree/usr/lib/mysql/plugin}
first=(--no-defaults)
case \${1-} in --no-defaults | --defaults-*=* | --print-defaults) first=("\$1"); shift ;; esac
exec "\${run[@]}" "\${first[@]}" $3 "\$@"
TAIL
      *) echo 'exec "${run[@]}" "$@"' ;;
    esac
  } >"$wrapper.new"
  chmod 755 "$wrapper.new"
  mv "$wrapper.new" "$wrapper"
}

# MariaDB's own script starts programs where they lie: wrappers take their places.
wrap_mariadb() {
  local name loader libraries
  find_loader "$BKP_LAB/mariadb"
  # shellcheck disable=SC2016
  wrap_in_place usr/sbin/mariadbd \
    '--basedir="$tree/usr" --plugin-dir="$tree/usr/lib/mysql/plugin" --lc-messages-dir="$tree/usr/share/mariadb" --character-sets-dir="$tree/usr/share/mariadb/charsets"'
  for name in my_print_defaults resolveip; do
    wrap_in_place usr/bin/$name ''
  done
}

# Moves the program $1 of the MariaDB tree aside, for a wrapper that runs it with the options $2 after those that must come first.
wrap_in_place() {
  local program=$BKP_LAB/mariadb/$1
  mv "$program" "$program.bin"
  cat >"$program" <<WRAPPER
#!/bin/bash
# Written by scripts/lab: runs a program of the unpacked tree through its own loader and libraries.
tree=\$(cd "\$(dirname "\$(readlink -f "\${BASH_SOURCE[0]}")")/../.." && pwd)
first=()
case \${1-} in --no-defaults | --defaults-*=* | --print-defaults) first=("\$1"); shift ;; esac
exec "\$tree/$loader" --library-path "\$tree/$libraries" --argv0 "\$0" "\$tree/$1.bin" "\${first[@]}" $2 "\$@"
WRAPPER
  chmod 755 "$program"
}

check_mariadb() {
  "$BKP_LAB/mariadb/usr/sbin/mariadbd" --version >&2 || die "$BKP_LAB/mariadb/usr/sbin/mariadbd does not run"
}

check_wrappers() {
  local name
  for name in mysqld mysql mysqladmin mysqlbinlog mysqldump; do
    "$BKP_LAB/mysql/bin/$name" --version >&2 || die "$BKP_LAB/mysql/bin/$name does not run"
  done
  for name in mydumper myloader; do
    "$BKP_LAB/mydumper/bin/$name" --version >&2 || die "$BKP_LAB/mydumper/bin/$name does not run"
  done
  "$BKP_LAB/restic/bin/restic" version >&2 || die "$BKP_LAB/restic/bin/restic does not run"
}
