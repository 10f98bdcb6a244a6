#!/bin/sh
# Installs what Lutra builds with, from the system's own packages. Quick when everything is there.
set -eu
as_root=
[ "$(id -u)" = 0 ] || as_root=sudo
if [ -r /etc/os-release ]; then . /etc/os-release; else ID=$(uname -s | tr '[:upper:]' '[:lower:]'); fi
case "${ID:-} ${ID_LIKE:-}" in
  *debian*|*ubuntu*)
    packages="g++ cmake ninja-build pkg-config ca-certificates dpkg-dev libtbb-dev nlohmann-json3-dev doctest-dev libpcre2-dev libedit-dev libcli11-dev libbenchmark-dev libcpp-httplib-dev"
    missing=
    for p in $packages; do
      dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
    done
    if [ -n "$missing" ]; then
      echo "Installing:$missing"
      $as_root apt-get -qq update
      # shellcheck disable=SC2086
      DEBIAN_FRONTEND=noninteractive $as_root apt-get -qq install -y --no-install-recommends $missing >/dev/null
    fi
    ;;
  *fedora*|*rhel*)
    $as_root dnf -q install -y gcc-c++ cmake ninja-build pkgconf-pkg-config tbb-devel json-devel doctest-devel \
      pcre2-devel libedit-devel cli11-devel google-benchmark-devel highway-devel git ;;
  *arch*)
    $as_root pacman -S --needed --noconfirm base-devel cmake ninja pkgconf onetbb nlohmann-json doctest pcre2 \
      libedit cli11 benchmark highway ;;
  *darwin*)
    brew install cmake ninja pkg-config tbb nlohmann-json doctest pcre2 libedit cli11 google-benchmark highway ;;
  *)
    echo "install_deps: unknown system '${ID:-}': install a C++20 compiler, cmake, ninja, oneTBB, nlohmann-json," \
         "doctest, PCRE2, libedit and Highway >= 1.2 yourself, then use the cmake presets" >&2
    exit 1 ;;
esac
sh "$(dirname "$0")/get_highway.sh"
