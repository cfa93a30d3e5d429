#!/bin/sh
# The main job of mcpsup, on this machine, in a directory of its own: two users, one server each.
#
# `make demo` runs it. It needs Rust and nothing else, writes to a scratch directory only, and
# leaves nothing behind however it ends. DEMO_ONCE=1, or no terminal: it ends by itself.
set -eu
# With these, a service manager tells a daemon its places; here they are all in one directory.
unset RUNTIME_DIRECTORY STATE_DIRECTORY LOGS_DIRECTORY CREDENTIALS_DIRECTORY
cd "$(dirname "$0")/../.."

# DEMO_BIN: a directory with mcpsup and examples/ in it, built before.
if [ -n "${DEMO_BIN:-}" ]; then
    bin=$(cd "$DEMO_BIN" && pwd)
else
    case ${CARGO_TARGET_DIR:=target} in /*) ;; *) CARGO_TARGET_DIR=$PWD/$CARGO_TARGET_DIR ;; esac
    export CARGO_TARGET_DIR
    # An unoptimised build: it is there sooner, and fast enough for two users.
    # Who waits minutes for the first one, at a terminal, sees what for.
    [ -t 2 ] && quiet= || quiet=--quiet
    cargo build --locked $quiet --bin mcpsup --example notes --example call
    bin=$CARGO_TARGET_DIR/debug
fi

# Not for what is built: `make test` has other accounts execute it.
umask 077
scratch=$(mktemp -d "${TMPDIR:-/tmp}/mcpsup-demo.XXXXXX")
daemon=

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[ -t 1 ] || say() { printf '\n%s\n' "$*"; }

# A process that has ended and was not waited for yet is not alive.
alive() {
    state=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    case ${state##*) } in Z* | X* | '') return 1 ;; esac
}

# The servers that still run.
left() {
    for process in /proc/[0-9]*; do
        case $(tr '\0' ' ' 2>/dev/null <"$process/cmdline") in
        "$scratch/notes "*) alive "${process#/proc/}" && printf '%s ' "${process#/proc/}" ;;
        esac
    done 2>/dev/null
    return 0
}

clean_up() {
    status=$?
    trap '' INT TERM HUP
    trap - EXIT
    if [ -n "$daemon" ]; then
        say 'Stopping the daemon with SIGTERM'
        kill -TERM "$daemon" 2>/dev/null || :
        tries=0
        while alive "$daemon" && [ $tries -lt 200 ]; do
            sleep 0.1
            tries=$((tries + 1))
        done
        if alive "$daemon"; then
            echo "the daemon does not end; killing it"
            kill -KILL "$daemon" || :
            status=1
        fi
        wait "$daemon" 2>/dev/null || :
    fi
    remains=$(left)
    if [ -n "$remains" ]; then
        echo "left behind, and killed now: $remains"
        # Each is a process number; they are words on purpose.
        # shellcheck disable=SC2086
        kill -KILL $remains 2>/dev/null || :
        status=1
    elif [ -n "$daemon" ]; then
        echo "no process is left"
    fi
    if [ $status -ne 0 ] && [ -s "$scratch/daemon.log" ]; then
        say 'The daemon said:'
        cat "$scratch/daemon.log"
    fi
    rm -rf "$scratch"
    [ ! -e "$scratch" ] && echo "$scratch is gone"
    exit $status
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

fail() {
    echo "demo: $*" >&2
    exit 1
}

mcpsup() { "$bin/mcpsup" --config "$scratch/mcpsup.toml" "$@"; }
# With the token of the user whose door it is: where one uid serves both, as here, it says nothing of
# who calls.
call() {
    bearer=$(mcpsup headers "$1")
    shift
    MCP_HEADERS=$bearer "$bin/examples/call" "$@"
}
random() { od -An -N12 -tx1 /dev/urandom | tr -d ' \n'; }
# The URL as it stands in the snippet that is printed for the user's client.
url_of() { mcpsup client "$1" --for claude-code 2>/dev/null | sed -n 's/.*"url": *"\([^"]*\)".*/\1/p' | head -n 1; }

# Root's daemon runs each user's server under a uid of its own, which must get to it; as an ordinary
# user all are that user.
cp "$bin/examples/notes" "$scratch/notes"
chmod 755 "$scratch/notes"
[ "$(id -u)" -ne 0 ] || chmod 711 "$scratch"
sed "s|@SCRATCH@|$scratch|" examples/demo/mcpsup.toml >"$scratch/mcpsup.toml"
mkdir "$scratch/env.d"

say "Starting the daemon in $scratch"
# Not through the function: `$!` has to be the daemon, not a shell around it.
"$bin/mcpsup" --config "$scratch/mcpsup.toml" daemon >"$scratch/daemon.log" 2>&1 &
daemon=$!
tries=0
until [ -S "$scratch/run/control.sock" ]; do
    alive "$daemon" || fail 'the daemon ended'
    [ $tries -lt 200 ] || fail 'the daemon does not open its control socket'
    sleep 0.05
    tries=$((tries + 1))
done

say 'Saving env.d/alice.env and env.d/bob.env: all that it takes'
for user in alice bob; do
    printf 'NOTES_TOKEN=demo-%s\n' "$(random)" >"$scratch/env.d/$user.env"
done
tries=0
until [ "$(mcpsup ports --json | grep -c '"user"')" -eq 2 ]; do
    alive "$daemon" || fail 'the daemon ended'
    [ $tries -lt 200 ] || fail 'the daemon does not see the env files'
    sleep 0.05
    tries=$((tries + 1))
done

say '$ mcpsup start --all'
mcpsup start --all
say '$ mcpsup status'
mcpsup status
say '$ mcpsup client alice --for claude-code'
mcpsup client alice --for claude-code

alice=$(url_of alice)
bob=$(url_of bob)
[ -n "$alice" ] && [ -n "$bob" ] && [ "$alice" != "$bob" ] || fail 'the snippets do not name two URLs'

say 'Each calls the tools at the URL of their snippet'
for user in alice bob; do
    case $user in alice) url=$alice ;; *) url=$bob ;; esac
    printf '%-5s > %-10s %s\n' "$user" whoami "$(call "$user" "$url" whoami)"
    printf '%-5s > %-10s %s\n' "$user" add_note "$(call "$user" "$url" add_note "{\"text\": \"a note of $user's\"}")"
done
for user in alice bob; do
    case $user in alice) url=$alice ;; *) url=$bob ;; esac
    notes=$(call "$user" "$url" list_notes)
    printf '%-5s > %-10s %s\n' "$user" list_notes "$notes"
    [ "$notes" = "a note of $user's" ] || fail "$user sees what is not theirs"
done
[ "$(call alice "$alice" whoami | sed 's/^[^ ]* //')" != "$(call bob "$bob" whoami | sed 's/^[^ ]* //')" ] ||
    fail 'alice and bob have the same credentials'
echo 'Each has their own credentials and their own notes.'

for env in "$scratch"/env.d/*.env; do
    token=$(sed -n 's/^NOTES_TOKEN=//p' "$env")
    if grep -rqF -- "$token" "$scratch/daemon.log" "$scratch/logs" "$scratch/run/ports.json"; then
        fail "a token of $env is in a log or in the port map"
    fi
done
echo 'No token is in a log or in the port map.'

if [ -t 0 ] && [ "${DEMO_ONCE:-0}" != 1 ]; then
    say 'It goes on until Ctrl-C. In another terminal:'
    echo "  $bin/mcpsup --config $scratch/mcpsup.toml status --watch"
    echo "  MCP_HEADERS=\$($bin/mcpsup --config $scratch/mcpsup.toml headers alice) $bin/examples/call $alice list_notes"
    trap 'exit 0' INT
    wait "$daemon" || fail 'the daemon ended'
fi
