# Shared by quickstart.sh and test.sh: packages, build, messages. Sourced, not run.

packages=(build-essential cmake ninja-build ccache pkg-config python3 python3-venv python3-pip
  libcaf-dev libucx-dev libprotobuf-dev protobuf-compiler libboost-dev libboost-system-dev
  libssl-dev libpcre2-dev nlohmann-json3-dev libcli11-dev libyaml-cpp-dev catch2
  prometheus-cpp-dev)

say() { printf '\n== %s\n' "$*"; }

fail() {
  printf '\n%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

as_root() {
  if [[ $(id -u) -eq 0 ]]; then
    "$@"
  elif command -v sudo > /dev/null; then
    sudo "$@"
  else
    fail "packages are missing and neither root nor sudo is there; as root run: apt-get install ${missing[*]}"
  fi
}

# install_packages NAME...: installs what dpkg does not have.
install_packages() {
  command -v dpkg-query > /dev/null || {
    echo "This is not Debian: make sure that the equivalents of these are installed: $*"
    return 0
  }
  missing=()
  local name
  for name in "$@"; do
    dpkg-query -W -f '${Status}' "$name" 2> /dev/null | grep -q 'ok installed' || missing+=("$name")
  done
  [[ ${#missing[@]} -eq 0 ]] && return 0
  say "Installing ${missing[*]}"
  as_root apt-get update -q || fail "apt-get update failed: is the network there?"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" ||
    fail "apt-get could not install ${missing[*]}"
}

# One compiler a core; a machine of little memory gets fewer (about 1.5 GiB each).
jobs() {
  local cores memory
  cores=$(nproc)
  memory=$(awk '/MemAvailable/ {print int($2 / 1572864)}' /proc/meminfo)
  ((memory < 1)) && memory=1
  echo $((cores < memory ? cores : memory))
}
