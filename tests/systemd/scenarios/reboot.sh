# The machine is started again: ports and holds are kept.

if [ "$BOOT" = 1 ]; then
    person alice
    person bob
    install_mcpsup
    configure "$NOTES"
    save bob 'NOTES_TOKEN=bobs-secret-credential'
    systemctl enable --now mcpsup
    until_so 60 state_is bob up
    save alice 'NOTES_TOKEN=alices-secret-credential'
    essential "both come up" until_so 60 eval 'state_is alice up && state_is bob up'
    check "bob, who was first, has the first port" same "$(field bob port) $(field alice port)" "3456 3457"
    check "alice is stopped" mcpsup stop alice
    reboot_now
fi

check "after a reboot it is started by systemd" until_so 30 systemctl is-active mcpsup
check "bob's server comes up" until_so 60 state_is bob up
check "everybody has their port" same "$(field bob port) $(field alice port)" "3456 3457"
check "alice's is still held" same "$(field alice state)" stopped
check "no run is found of before" not grep 'found again' <<<"$(journalctl -b -u mcpsup)"
check "bob's client is let in" has "$(tool_of bob 3456 whoami 2>&1)" bob
check "alice's starts when asked to" eval 'mcpsup start alice && state_is alice up'
