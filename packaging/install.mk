# `make install` and `make uninstall`: the one list of what is installed where; the packages are made
# of it. The variables are GNU's, and more for what is not in that list. Nothing is built here, so that
# `make && sudo make install` runs no compiler as root; and nothing below $(sysconfdir) is written:
# that is `mcpsup init`'s to do, once.

PREFIX ?= /usr/local
DESTDIR ?=

prefix ?= $(PREFIX)
exec_prefix ?= $(prefix)
bindir ?= $(exec_prefix)/bin
datarootdir ?= $(prefix)/share
docdir ?= $(datarootdir)/doc/mcpsup
mandir ?= $(datarootdir)/man
man1dir ?= $(mandir)/man1
# systemd reads those of /usr/local/lib as well.
systemddir ?= $(prefix)/lib/systemd
unitdir ?= $(systemddir)/system
userunitdir ?= $(systemddir)/user
sysusersdir ?= $(prefix)/lib/sysusers.d
tmpfilesdir ?= $(prefix)/lib/tmpfiles.d
bashcompletiondir ?= $(datarootdir)/bash-completion/completions
zshcompletiondir ?= $(datarootdir)/zsh/site-functions
fishcompletiondir ?= $(datarootdir)/fish/vendor_completions.d

INSTALL ?= install
INSTALL_PROGRAM ?= $(INSTALL) -m 755
INSTALL_DATA ?= $(INSTALL) -m 644

# What was built: `make install PROGRAM=…` takes another one.
CARGO_TARGET_DIR ?= target
PROGRAM ?= $(CARGO_TARGET_DIR)/release/mcpsup

UNITS := $(notdir $(wildcard units/*.service))
USER_UNITS := $(notdir $(wildcard units/user/*.service))
PAGES := $(wildcard docs/*.md docs/migration/*.md)
PARTS := $(wildcard examples/servers/*.md examples/servers/*.toml examples/servers/*.env)
TEXTS := README.md CHANGELOG.md SECURITY.md LICENSE-APACHE LICENSE-MIT

# A unit that starts what is installed here, wherever the one in units/ finds it.
to_bindir = sed 's,^\(Exec[A-Za-z]*=[-+!@:]*\)[^ ]*\bmcpsup ,\1$(bindir)/mcpsup ,'

install:
	@test -x "$(PROGRAM)" || { echo "cannot install $(PROGRAM): it is not there; run make first" >&2; exit 1; }
	$(INSTALL) -d "$(DESTDIR)$(bindir)" "$(DESTDIR)$(man1dir)" "$(DESTDIR)$(bashcompletiondir)" \
		"$(DESTDIR)$(zshcompletiondir)" "$(DESTDIR)$(fishcompletiondir)"
	$(INSTALL_PROGRAM) "$(PROGRAM)" "$(DESTDIR)$(bindir)/mcpsup"
	umask 022 && "$(PROGRAM)" man --dir "$(DESTDIR)$(man1dir)"
	umask 022 && "$(PROGRAM)" completions bash >"$(DESTDIR)$(bashcompletiondir)/mcpsup"
	umask 022 && "$(PROGRAM)" completions zsh >"$(DESTDIR)$(zshcompletiondir)/_mcpsup"
	umask 022 && "$(PROGRAM)" completions fish >"$(DESTDIR)$(fishcompletiondir)/mcpsup.fish"
	$(INSTALL) -d "$(DESTDIR)$(unitdir)"
	umask 022 && for unit in $(UNITS); do \
		$(to_bindir) "units/$$unit" >"$(DESTDIR)$(unitdir)/$$unit" || exit 1; done
ifneq ($(USER_UNITS),)
	$(INSTALL) -d "$(DESTDIR)$(userunitdir)"
	umask 022 && for unit in $(USER_UNITS); do \
		$(to_bindir) "units/user/$$unit" >"$(DESTDIR)$(userunitdir)/$$unit" || exit 1; done
endif
ifneq ($(wildcard units/sysusers.d/mcpsup.conf),)
	$(INSTALL) -d "$(DESTDIR)$(sysusersdir)"
	$(INSTALL_DATA) units/sysusers.d/mcpsup.conf "$(DESTDIR)$(sysusersdir)/mcpsup.conf"
endif
ifneq ($(wildcard units/tmpfiles.d/mcpsup.conf),)
	$(INSTALL) -d "$(DESTDIR)$(tmpfilesdir)"
	$(INSTALL_DATA) units/tmpfiles.d/mcpsup.conf "$(DESTDIR)$(tmpfilesdir)/mcpsup.conf"
endif
	$(INSTALL) -d "$(DESTDIR)$(docdir)/docs/migration" "$(DESTDIR)$(docdir)/examples/servers"
	$(INSTALL_DATA) $(TEXTS) "$(DESTDIR)$(docdir)"
	for page in $(PAGES); do $(INSTALL_DATA) "$$page" "$(DESTDIR)$(docdir)/$$page" || exit 1; done
	$(INSTALL_DATA) $(PARTS) "$(DESTDIR)$(docdir)/examples/servers"
	$(INSTALL_DATA) src/cli/init/mcpsup.toml src/cli/init/example.env "$(DESTDIR)$(docdir)/examples"

# What the daemon has made stays: docs/upgrade.md says what that is.
uninstall:
	rm -f "$(DESTDIR)$(bindir)/mcpsup" "$(DESTDIR)$(man1dir)/mcpsup.1" "$(DESTDIR)$(man1dir)"/mcpsup-*.1
	rm -f "$(DESTDIR)$(bashcompletiondir)/mcpsup" "$(DESTDIR)$(zshcompletiondir)/_mcpsup"
	rm -f "$(DESTDIR)$(fishcompletiondir)/mcpsup.fish"
	for unit in $(UNITS); do rm -f "$(DESTDIR)$(unitdir)/$$unit" || exit 1; done
	for unit in $(USER_UNITS); do rm -f "$(DESTDIR)$(userunitdir)/$$unit" || exit 1; done
	rm -f "$(DESTDIR)$(sysusersdir)/mcpsup.conf" "$(DESTDIR)$(tmpfilesdir)/mcpsup.conf"
	rm -rf "$(DESTDIR)$(docdir)"
