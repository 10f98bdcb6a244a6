#!/bin/sh
# Unpacks the Highway 1.2.0 source into .deps/highway-1.2.0, unless it is there or the system has Highway >= 1.2.
# Debian 12 carries 1.0.3, which is too old. Debian 13's source package is fetched with apt itself, in a private apt
# directory whose source entry is the machine's own with the suite replaced, so signatures are checked as usual.
# Where apt cannot help, nothing is done: CMake then fetches the pinned release.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
dest=${LUTRA_DEPS_DIR:-$root/.deps}/highway-1.2.0
sha256=7e0be78b8318e8bdbf6fa545d2ecb4c90f947df03f7aadc42c1967f019e63343
[ -f "$dest/CMakeLists.txt" ] && exit 0
if pkg-config --atleast-version=1.2 libhwy 2>/dev/null; then exit 0; fi
if ! command -v apt-get >/dev/null 2>&1; then
  echo "get_highway: no apt-get here; CMake will fetch Highway itself" >&2
  exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
# The first Debian entry of the machine: deb822 (*.sources) or one-line (*.list) form.
for file in /etc/apt/sources.list.d/*.sources; do
  [ -f "$file" ] || continue
  awk 'BEGIN { RS = ""; FS = "\n" }
       /Types:[^\n]*deb/ && /Suites:/ && /Components:[^\n]*main/ && /debian/ && !/security/ && !done {
         done = 1
         for (i = 1; i <= NF; ++i) {
           if ($i ~ /^#/) continue
           if ($i ~ /^Types:/) $i = "Types: deb-src"
           if ($i ~ /^Suites:/) $i = "Suites: trixie"
           print $i
         }
       }' "$file" >"$work/trixie.sources"
  [ -s "$work/trixie.sources" ] && break
done
list=$work/trixie.sources
if [ ! -s "$list" ]; then
  list=$work/trixie.list
  awk '$1 == "deb" && /debian/ && !/security/ && !done {
         done = 1; line = $0; sub(/^deb /, "deb-src ", line)
         n = split(line, f, " "); out = ""; seen = 0
         for (i = 1; i <= n; ++i) {
           if (seen == 1) { f[i] = "trixie"; seen = 2 }
           if (f[i] ~ /:\/\//) seen = 1
           out = out f[i] " "
         }
         print out
       }' /etc/apt/sources.list >"$list" 2>/dev/null || true
fi
if [ ! -s "$list" ]; then
  echo "get_highway: no Debian source entry found; CMake will fetch Highway itself" >&2
  exit 0
fi
chmod 755 "$work"
cd "$work"
apt_private() {
  apt-get -qq -o Dir::Etc::sourcelist="$list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$work/lists" \
    -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root "$@"
}
apt_private update
apt_private source --download-only highway
tarball=$(ls "$work"/highway_1.2.0*.orig.tar.* | head -n 1)
echo "$sha256  $tarball" | sha256sum --check --quiet
mkdir -p "$dest.tmp"
tar -xf "$tarball" -C "$dest.tmp" --strip-components=1
mv "$dest.tmp" "$dest"
echo "get_highway: unpacked $dest"
