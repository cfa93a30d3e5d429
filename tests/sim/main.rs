//! Worlds without processes or time, against the fleet.
//!
//! `world` is what happens, `deck` its faults, `ledger` and `laws` what must hold whatever happens,
//! `bugs` the proof that each law sees something. `table` says the state machine in sentences.
//!
//! `MCPSUP_SIM_SEED` and `MCPSUP_SIM_WORLDS` choose other worlds, and more. A failure prints a line
//! for `regressions`.
#![allow(clippy::expect_used, reason = "this is a test, all of it")]
#![allow(clippy::struct_excessive_bools, reason = "what was seen of a process is a handful of yes and no")]

mod bugs;
mod caught;
mod core;
mod deck;
mod laws;
mod ledger;
mod regressions;
mod rng;
mod stage;
mod table;
mod world;

use std::collections::BTreeSet;

use mcpsup::logic::fleet::Fleet;
use mcpsup::model::{InstanceId, RunId};

use crate::core::Core;
use crate::laws::{Broken, Law, Laws};
use crate::rng::mix;
use crate::stage::Stage;
use crate::world::{Boot, Case, play};

const SEED: u64 = 2;
const WORLDS: u64 = 100_000;

/// Every how many worlds one user is also played alone.
const ALONE: u64 = 8;

fn fleet(next_run: RunId, holds: BTreeSet<InstanceId>) -> Fleet {
    Fleet::new(next_run, holds)
}

/// Plays the world of a seed, and one of its users alone.
fn judge<C: Core>(stage: &Stage, boot: Boot<'_, C>, case: Case, laws: Laws) -> Result<u64, Broken> {
    let crowd = play(stage, boot, case, laws, None)?;
    if !case.seed.is_multiple_of(ALONE) || !crowd.punctual {
        return Ok(crowd.steps);
    }
    let taken = crowd.said.iter().filter(|said| **said != 0).count();
    if taken < 2 {
        return Ok(crowd.steps);
    }
    let seat = crowd.said.iter().rposition(|said| *said != 0).unwrap_or(0);
    let alone = play(stage, boot, Case { seats: 1 << seat, ..case }, laws, None)?;
    if alone.said[seat] != crowd.said[seat] {
        laws.broken(Law::Independence, 0, format_args!("seat {seat} alone meets another fate"))?;
    }
    Ok(crowd.steps + alone.steps)
}

/// The smallest part of a world that still breaks the law.
fn shrink<C: Core>(stage: &Stage, boot: Boot<'_, C>, case: Case, law: Law) -> Case {
    let breaks = |case: Case| judge(stage, boot, case, Laws::All).is_err_and(|broken| broken.law == law);
    let mut least = case;
    for seats in 1..=0b1111 {
        let fewer = Case { seats, ..least };
        if breaks(fewer) {
            least = fewer;
            break;
        }
    }
    for until in 0..300 {
        let shorter = Case { until, ..least };
        if breaks(shorter) {
            return shorter;
        }
    }
    least
}

/// What to read when a law is broken.
fn report<C: Core>(stage: &Stage, boot: Boot<'_, C>, case: Case, broken: &Broken) -> String {
    let least = shrink(stage, boot, case, broken.law);
    let mut trace = Vec::new();
    let again = play(stage, boot, least, Laws::All, Some(&mut trace));
    let said = again.err().map_or_else(|| broken.to_string(), |broken| broken.to_string());
    let Case { seed, seats, until } = least;
    format!(
        "{said}\n{}\nfor regressions.rs:\n    holds(0x{:04x}_{:04x}_{:04x}, {seats:#06b}, {until});",
        trace.join("\n"),
        seed >> 32,
        seed >> 16 & 0xffff,
        seed & 0xffff,
    )
}

fn setting(name: &str, default: u64) -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a test is told by hand which worlds to play")]
    let text = std::env::var(name);
    text.ok().map_or(default, |text| text.parse().expect("a number"))
}

fn seed_of(base: u64, world: u64) -> u64 {
    mix(base.wrapping_mul(0x1_0000_0001).wrapping_add(world)) & 0xffff_ffff_ffff
}

/// Plays every `stride`-th world from `first` on; the number of the first bad one, or the steps.
fn play_some(base: u64, first: u64, stride: usize, worlds: u64) -> Result<u64, (u64, Broken)> {
    let stage = Stage::new();
    (first..worlds).step_by(stride).try_fold(0, |steps, world| {
        let case = Case::whole(seed_of(base, world));
        match judge(&stage, &fleet, case, Laws::All) {
            Ok(more) => Ok(steps + more),
            Err(broken) => Err((world, broken)),
        }
    })
}

#[test]
fn every_law_holds_in_every_world() {
    let base = setting("MCPSUP_SIM_SEED", SEED);
    let worlds = setting("MCPSUP_SIM_WORLDS", WORLDS);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let results: Vec<_> = std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads)
            .map(|first| scope.spawn(move || play_some(base, first as u64, threads, worlds)))
            .collect();
        parts.into_iter().map(|part| part.join().expect("a part that ends")).collect()
    });
    let steps: u64 = results.iter().flatten().sum();
    let bad = results.into_iter().filter_map(Result::err).min_by_key(|(world, _)| *world);
    if let Some((world, broken)) = bad {
        let case = Case::whole(seed_of(base, world));
        panic!("{}", report(&Stage::new(), &fleet, case, &broken));
    }
    println!("{worlds} worlds, {steps} steps");
}
