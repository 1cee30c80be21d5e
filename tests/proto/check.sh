#!/usr/bin/env bash
# Holds the protos to the linter's standard rules and to what was released: tests/proto/v1.binpb is the released image,
# and nothing in proto/ may break readers or writers of it.
#
#   check.sh lint|breaking|canary
#   check.sh update     makes today's protos the released ones: at a release, never to silence a finding
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
released=$here/v1.binpb

buf=${FLUX_BUF:-$root/build/tools/node_modules/.bin/buf}
[ -x "$buf" ] || buf=$(command -v buf) || {
  echo "buf, the protobuf linter, is missing: deploy/test installs it into build/tools;" >&2
  echo "or set FLUX_BUF to the path of one" >&2
  exit 1
}
# Its cache must not depend on who runs the test.
BUF_CACHE_DIR=$(mktemp -d)
export BUF_CACHE_DIR
trap 'rm -rf "$BUF_CACHE_DIR"' EXIT

case "${1-}" in
  lint) (cd "$root/proto" && "$buf" lint) ;;
  breaking)
    (cd "$root/proto" && "$buf" breaking --against "$released") || {
      echo "The protos break what was released. Keep the field and add another; remove one only with" >&2
      echo "'reserved' for both its number and its name." >&2
      exit 1
    }
    ;;
  canary)
    # Both checks must catch a planted fault; else their silence means nothing.
    copy=$BUF_CACHE_DIR/proto
    plant() { # plant WHAT FILE SED_SCRIPT COMMAND…
      local what=$1 file=$2 script=$3
      shift 3
      rm -rf "$copy" && cp -r "$root/proto" "$copy"
      sed -i -E "$script" "$copy/flux/v1/$file"
      cmp -s "$copy/flux/v1/$file" "$root/proto/flux/v1/$file" && {
        echo "the fault '$what' could not be planted in $file" >&2
        exit 1
      }
      if (cd "$copy" && "$@") >"$BUF_CACHE_DIR/out" 2>&1; then
        echo "overlooked: $what" >&2
        exit 1
      fi
      echo "caught: $what: $(head -n 1 "$BUF_CACHE_DIR/out")"
    }
    plant "a field renumbered" payload.proto 's/bytes data = 1;/bytes data = 91;/' \
      "$buf" breaking --against "$released"
    plant "a field's type changed" payload.proto 's/bytes data = 1;/uint64 data = 1;/' \
      "$buf" breaking --against "$released"
    plant "a field removed" record.proto '/int64 time_ms = 1;/d' "$buf" breaking --against "$released"
    plant "an enum value renumbered" payload.proto 's/ENCODING_LIST = 4/ENCODING_LIST = 94/' \
      "$buf" breaking --against "$released"
    plant "a name in the wrong case" payload.proto 's/content_type/contentType/' "$buf" lint
    plant "an enum without its zero" payload.proto 's/ENCODING_UNSPECIFIED/ENCODING_NOTHING/' "$buf" lint
    ;;
  update)
    (cd "$root/proto" && "$buf" build -o "$released")
    echo "wrote $released; commit it with a message that says which release it is"
    ;;
  *)
    sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac
