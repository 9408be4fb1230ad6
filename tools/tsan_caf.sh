#!/usr/bin/env bash
# Builds the core of CAF under ThreadSanitizer from Debian's source package, once, and prints the
# prefix it is installed in. With the packaged library the sanitizer does not see CAF's own
# synchronisation and reports its every message as a race.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/common.sh

prefix=${XDG_CACHE_HOME:-$HOME/.cache}/hexgen/tsan-caf
if [[ -f $prefix/include/caf/config.hpp ]]; then
  echo "$prefix"
  exit 0
fi
[[ -r /etc/os-release ]] || fail "this needs Debian's source packages"
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
[[ -n $codename ]] || fail "/etc/os-release names no Debian release"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/source"
chmod -R a+rwX "$work"
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $codename main" \
  > "$work/sources.list"
apt=(apt-get -q -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=-
  -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache")
{
  "${apt[@]}" update
  cd "$work/source"
  "${apt[@]}" source --download-only --tar-only actor-framework
  tar xzf actor-framework_*.orig.tar.gz
  cmake -S actor-framework-*/ -B build -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo \
    -DCMAKE_CXX_FLAGS="-fsanitize=thread -std=c++17 -w" -DCMAKE_INSTALL_PREFIX="$prefix" \
    -DCMAKE_CXX_COMPILER_LAUNCHER=ccache -DCAF_NO_IO=yes -DCAF_NO_OPENSSL=yes -DCAF_NO_OPENCL=yes \
    -DCAF_NO_PYTHON=yes -DCAF_NO_EXAMPLES=yes -DCAF_NO_UNIT_TESTS=yes -DCAF_NO_TOOLS=yes
  ninja -C build -j "$(jobs)" install
} >&2
echo "$prefix"
