# Somebody without root has a daemon of their own, in their user manager.

person alice
install_mcpsup
uid=$(id -u alice)
loginctl enable-linger alice
essential "alice has a service manager" until_so 60 systemctl is-active "user@$uid"
own() { as alice env XDG_RUNTIME_DIR=/run/user/"$uid" PATH="$PATH" "$@"; }
check "systemd-analyze verify has nothing to say" \
    same "$(own systemd-analyze verify --user --man=no /usr/local/lib/systemd/user/mcpsup{,-runs}{,@second}.service 2>&1)" ""
check "mcpsup init" own mcpsup init
own sh -c 'cat >~/.config/mcpsup/mcpsup.toml' <<<"$NOTES"
own sh -c 'umask 077; echo NOTES_TOKEN=alices-secret-credential >~/.config/mcpsup/env.d/work.env
    echo NOTES_TOKEN=alices-other-credential >~/.config/mcpsup/env.d/home.env'
essential "systemctl --user enable --now mcpsup" own systemctl --user enable --now mcpsup
of() { own mcpsup status "$1" --json | perl -0777 -ne 'print $1 if /"'"$2"'"\s*:\s*"?([^",}\s]*)/'; }
up() { [ "$(of work state)" = up ] && [ "$(of home state)" = up ]; }
essential "both of her instances come up" until_so 120 up
show "systemctl --user status" own systemctl --user status --no-pager -n 5 mcpsup
show "mcpsup status -v" own mcpsup status -v
check "STATUS= says so" until_so 5 eval '[ "$(own systemctl --user show -P StatusText mcpsup)" = "2 up" ]'
work=$(of work pid) home=$(of home pid)
both_still() { [ -n "$work" ] && [ -n "$home" ] && same "$(of work pid) $(of home pid)" "$work $home"; }
check "they run in groups of their own" has "$(cut -d: -f3 /proc/"$work"/cgroup)" "user@$uid.service/app.slice/mcpsup-runs.service/.*/run-[0-9]+"
check "the tools answer" eval 'own env MCP_HEADERS="$(own mcpsup headers work)" /opt/mcp/call "http://127.0.0.1:$(of work port)/mcp" whoami'

# Who may see them: she, and root; nobody else, as the way to her socket is closed, and as her daemon says where it is open.
person bob
hers() { as "$1" env PATH="$PATH" RUNTIME_DIRECTORY=/run/user/"$uid"/mcpsup mcpsup --config /home/alice/.config/mcpsup/mcpsup.toml status work; }
check "root, who asks her daemon, sees them" has "$(hers root 2>&1)" '^work .* up '
check "bob does not get as far as her daemon" has "$(hers bob 2>&1)" 'cannot reach the daemon at /run/user/[^ ]*: permission denied'
way=(/run/user/"$uid"{,/mcpsup{,/control.sock}})
modes=$(stat -c '%a %n' "${way[@]}")
chmod o+x "${way[@]}" && chmod o+rw "${way[-1]}"
check "and if he did, her daemon would tell him nothing" has "$(hers bob 2>&1)" 'work is not yours to see or steer'
while read -r mode path; do chmod "$mode" "$path"; done <<<"$modes"

knocking "$(of work port)" "$(of home port)"
check "systemctl --user restart" own systemctl --user restart mcpsup
check "the servers are the same processes" both_still
before=$(own systemctl --user show -P MainPID mcpsup)
kill -9 "$before"
again() { local now; now=$(own systemctl --user show -P MainPID mcpsup); [ "$now" != "$before" ] && [ "$now" != 0 ] && own mcpsup status; }
check "a daemon that is killed is started again" until_so 60 again
check "the servers are the same processes" both_still
knocks=$(knocked)
check "no connection was refused meanwhile ($knocks)" has "$knocks" '^tries [1-9][0-9]* refused 0$'
check "systemctl --user reload" own systemctl --user reload mcpsup

# One more of her own: another configuration, and everything of it beside that.
second() { own env MCPSUP_CONFIG=/home/alice/.config/mcpsup/second/mcpsup.toml "$@"; }
check "mcpsup init of a second configuration" second mcpsup init
own sh -c 'cp ~/.config/mcpsup/mcpsup.toml ~/.config/mcpsup/second/ && echo "[ports]
range = \"7000-7009\"
backend_range = \"17000-17009\"" >>~/.config/mcpsup/second/mcpsup.toml
    umask 077; echo NOTES_TOKEN=alices-second-credential >~/.config/mcpsup/second/env.d/play.env'
check "systemctl --user enable --now mcpsup@second" own systemctl --user enable --now mcpsup@second
play() { second mcpsup status play --json | perl -0777 -ne 'print $1 if /"'"$1"'"\s*:\s*"?([^",}\s]*)/'; }
check "its instance comes up" until_so 120 eval '[ "$(play state)" = up ]'
check "in a group of its own, below a unit of its own" has "$(cut -d: -f3 /proc/"$(play pid)"/cgroup)" \
    "user@$uid.service/app.slice/mcpsup-runs@second.service/.*/run-[0-9]+"
playing=$(play pid)
mine=/home/alice/.config/mcpsup/env.d/work.env
hers_too=/home/alice/.config/mcpsup/second/env.d/play.env
sees() { nsenter -t "$1" -m test -e "$2"; }
check "both files are there" test -e "$mine" -a -e "$hers_too"
check "a server of the first sees nothing of the second's" not sees "$work" "$hers_too"
check "nor a server of the second of the first's" not sees "$playing" "$mine"
check "systemctl --user restart mcpsup@second" own systemctl --user restart mcpsup@second
check "its server is the same process" same "$(play pid)" "$playing"
check "systemctl --user stop mcpsup@second" own systemctl --user stop mcpsup@second
check "its server is gone" gone "$playing"
check "those of the first are the same processes" both_still
# A link in the directory of yet another: what it leads to is seen until the daemon looks again.
own bash -c 'cd ~/.config/mcpsup && umask 077 && mkdir -p third ~/elsewhere && cp {second,third}/mcpsup.toml && ln -s ~/elsewhere third/env.d &&
    echo NOTES_TOKEN=alices-third-credential >third/env.d/play.env'
check "the file behind a new link is there, and a server sees it" sees "$work" /home/alice/elsewhere/play.env
check "systemctl --user reload again" own systemctl --user reload mcpsup
check "a server takes the place of the one that sees it" until_so 60 gone "$work"
check "and is up" until_so 60 eval 'up && [ "$(of work pid)" != "$work" ]'
check "it sees nothing behind the link" not sees "$(of work pid)" /home/alice/elsewhere/play.env
check "the daemon of the host is none of it" not systemctl is-active mcpsup
check "systemctl --user stop" own systemctl --user stop mcpsup
check "no process is left" not pgrep -l 'mcpsup|notes'
check "no group is left" same "$(find /sys/fs/cgroup -path '*mcpsup*' -type d)" ""
check "the journal is free of secrets" not grep -E 'secret-credential|other-credential|second-credential' <<<"$(journalctl -b)"
