//! mcpsup runs everybody's MCP servers on a shared host: one env file in, one supervised server
//! process and one port for good out. This page is the map; README.md is what its users see.
//!
//! # Four ideas
//!
//! 1. **Observe, then drive.** [`observe`](logic::instance::Instance::observe) writes a fact down.
//!    [`drive`](logic::instance::Instance::drive) compares what is *wanted* with what *is* and says
//!    what to do. Start, stop, crash, changed file, timeout and boot all take this one way. A
//!    restart is "stop, while still wanted"; there is no flag for it.
//! 2. **A state names what it waits for and carries its own deadline.** No timer outlives its
//!    reason ([`State`](logic::instance::State)).
//! 3. **The core never sees a process.** It names a [run](model::RunId), a number never reused; the
//!    handle is [`system::process`]'s. A late fact about an old run is ignored by comparison.
//! 4. **[`logic`] and [`system`] do not know each other.** They meet in [`daemon`] and in the doors.
//!
//! # The picture
//!
//! ```text
//!  env.d/*.env       mcpsup.toml      mcpsup start alice     SIGTERM SIGHUP SIGUSR2
//!       │                 │                   │                      │
//!       ▼                 ▼                   ▼                      ▼
//!  system::envdir    system::files     control::server        system::signals
//!       │ bytes           │ text              │ Call                 │
//!       ▼                 ▼                   │                      │
//!  logic::envfile    logic::config            │                      │
//!       │ variables, or problems              │                      │
//!       ▼                                     │                      │
//!  logic::roster ── what each user wants ─┐   │                      │
//!  logic::ports, logic::uids: one each ───┤   │                      │
//!                                         ▼   ▼                      ▼
//!                              ┌──────────────────────────────────────────┐
//!                              │ logic::fleet     want · observe · drive  │  no I/O, no clock
//!                              │ logic::instance  one state machine each  │
//!                              └──────────────────────────────────────────┘
//!                                    │ Effect                 ▲ Event
//!                                    ▼                        │
//!       daemon::publish ◀──── daemon::act ──▶ system::process · system::probe
//!             │                                      │ "make one, in this cgroup"
//!             │                                      ▼
//!             │               system::launch   `mcpsup launch`: one long-lived process with one
//!             │                      │         thread; it hears no secret
//!             │                      │ clone3: a copy, born in its cgroup and its namespaces,
//!             │                      ▼ that hears its orders on a socket of its own
//!             │               a run: session, limits, FIFOs, cage, account, exec ──▶ the user's server
//!             │                      │
//!             │                      ├─ RUNTIME/runs/NUMBER/  its FIFOs and its record (intent before
//!             │                      │                        the process, identity after it), by
//!             ▼                      │                        which a next daemon finds it again
//!   ports.json, log lines, doors     └─ what it writes ──▶ logic::redact ──▶ system::logfile
//!
//!   an AI client ──▶ door: whose connection is it? ▸ Host, Origin ▸ may they?
//!                      │
//!                      ├▶ wait ▸ whose socket is it? ──▶ an http server
//!                      │
//!                      └▶ door::bridge ▸ logic::exchange ▸ system::pipes
//!                         HTTP, streams  ids, eras, sessions   │ lines
//!                                                              ▼
//!                                                      a stdio server
//! ```
//!
//! A stdio server's stdout is protocol: [`system::pipes`] cuts it into lines, and the
//! [exchange](logic::exchange) of its [bridge](door::bridge) says whose each is. The exchange is pure,
//! as the fleet is: one process, any number of clients, no I/O and no clock.
//!
//! Who may come in at a door is [`logic::access::Guard`]'s to say: by the uid that
//! [`system::socket::client_of`] finds at the other end of the connection, or by a
//! [token](logic::token). The [`daemon`] makes the guards anew whenever a user, an account or the
//! configuration changes, and each request is asked.
//!
//! A client that speaks only stdio comes in by another way, `mcpsup connect`: [`control`] asks the loop
//! whether it may, and hands its requests to the same service behind the [`door`].
//!
//! An env file may be encrypted ([`seal`](system::seal)): a look hands it over as it is, another thread has
//! it opened, and only then it is read. So it is with what users change themselves (`mcpsup set`): the loop
//! says whose file is meant, another thread asks [`selfserve`](logic::selfserve) what it shall say and
//! [replaces](system::envdir::rewrite) it, and the loop looks again.
//!
//! The name service is asked by another process ([`account::apart`](system::account::apart)), so that
//! nothing of it is in the daemon.
//!
//! What is wrong on a host is found by `mcpsup doctor`: [`check`](cli::check) says what is wrong with the
//! files, the daemon what runs, [`system::survey`] what the host is like, each as a fact, and
//! [`logic::doctor`] what is wrong with that and what mends it.
//!
//! Under a service manager ([`notify`](system::notify)) the doors are open while there is no daemon: it
//! keeps each of them for the next one. What it is told, that we are ready, how the servers are, that the
//! loop turns, the loop tells it.
//!
//! # The folders
//!
//! | folder | is | may name |
//! |---|---|---|
//! | [`model`] | nouns: [user and server](model::name), [secret](model::secret), [spec](model::spec), [run](model::run), [configuration](model::config), [status](model::status), [port map](model::portmap) | nothing |
//! | [`logic`] | decisions: [`config`](logic::config), [`envfile`](logic::envfile), [`template`](logic::template), [`roster`](logic::roster), [`ports`](logic::ports), [`uids`](logic::uids), [`instance`](logic::instance), [`fleet`](logic::fleet), [`access`](logic::access), [`token`](logic::token), [`redact`](logic::redact), [`snippet`](logic::snippet), [`connect`](logic::connect), [`selfserve`](logic::selfserve), [`cage`](logic::cage), [`doctor`](logic::doctor), and of MCP [`frame`](logic::frame), [`era`](logic::era), [`exchange`](logic::exchange) | model |
//! | [`system`] | deeds, and the only folder that touches the OS: [`envdir`](system::envdir), [`process`](system::process), [`launch`](system::launch), [`ground`](system::ground), [`record`](system::record), [`pipes`](system::pipes), [`ready`](system::ready), [`cgroup`](system::cgroup), [`tree`](system::tree), [`probe`](system::probe), [`socket`](system::socket), [`files`](system::files), [`trust`](system::trust), [`logfile`](system::logfile), [`places`](system::places), [`seal`](system::seal), [`survey`](system::survey), [`notify`](system::notify) | model |
//! | [`control`] | the control socket: [`protocol`](control::protocol), [`server`](control::server), [`client`](control::client), and the [passage](control::passage) to an instance | model, system |
//! | [`door`] | the listening socket of each instance, which outlives every run behind it; the [bridge](door::bridge) to a stdio server | model, logic, system |
//! | [`daemon`] | the loop: the one task that owns the fleet; event → drive → act → publish | all above |
//! | [`cli`] | [arguments](cli::args), one file per verb, and [the only place that prints](cli::print) | all above |
//!
//! `tests/layers.rs` keeps the last column so, and gives third-party crates one home each (serde,
//! tokio and tracing aside).
//!
//! # What always holds
//!
//! * `logic` does no I/O and reads no clock: same calls, same answers.
//! * Nothing outside [`system::process`] and the modules it is made of handles a pid.
//! * One task owns the fleet; there is no lock around it because nobody else has it.
//! * A process's environment is built from nothing; the daemon's is never inherited.
//! * Never a second run of an instance while anything of the first is alive, as far as the
//!   [containment](model::config::Containment) can tell, whoever started it.
//! * What a run is kept from is decided in [`logic::cage`] from what this host was found to allow,
//!   and said from the same; the launcher does all of it or starts nothing.
//! * What cannot be proved to be ours is never signalled.
//! * A broken file touches only its own user; what happens to one user is the same whether or not
//!   the others exist, save that whose servers run as one account are kept from each other more.
//! * A secret cannot be printed: [`Secret`](model::Secret) has no `Display`, its `Debug` shows
//!   nothing of it, and no error holds a value.
//! * What a path leads to is believed only if nobody else can change the way ([`system::trust`]).
//! * Under root's daemon no process is root unless the configuration says `root`, and a uid is one
//!   user's as long as files of it exist.
//! * A file that others read is replaced whole ([`system::files`]), never written in place.
//! * Nobody comes in at a door unless something says that they may: a door that was told nothing lets
//!   nobody in. A uid that is several users' says nothing of any of them.
//! * A port belongs to one user until they are removed and their last process has ended; a door
//!   never closes because a run ends.
//! * Every queue, buffer, line and body has a limit, and reaching it is an answer, not a crash.
//! * An idle daemon does not tick: without a cause it wakes once a minute, to look at env.d.
//!
//! # Tests, cheapest first
//!
//! Beside the code; `tests/sim`, seeded worlds without processes or time against the fleet, and its
//! laws; `tests/fuzz`, hostile files; `tests/it`, the real program with real processes;
//! `tests/conformance`, MCP's own suite against a server, directly and behind mcpsup. A bug that an
//! outer ring finds gets its test in the innermost ring that can express it.

pub mod cli;
pub mod control;
pub mod daemon;
pub mod door;
pub mod logic;
pub mod model;
pub mod system;
