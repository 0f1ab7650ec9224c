//! Every interleaving of the protocol that joins a mail to a database transaction.
//!
//! The protocol is in `protocol.rs`, the world that it runs in is in `model.rs`; `docs/protocol.md` tells what is
//! assumed and what is found. With `--nocapture` these tests print its tables, and with `SENDMAIL_TRACES`
//! set also the steps that lead to each violation.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]
#![expect(clippy::print_stdout, reason = "the tables are what these tests are for")]

mod application;
mod database;
mod disk;
mod faults;
mod model;
mod mutations;
mod protocol;
mod recovery;
mod scenes;
mod search;
mod steps;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Write as _;

use disk::Disk;
use model::{State, Violation, World};
use mutations::{Effect, Mutation};
use protocol::Protocol;
use scenes::Scene;
use search::{Model, Next, Wrong, explore};
use steps::Step;

// Proves: D-interleavings, I1, I2, I3, F-window-kill, F-window-power
#[test]
fn the_protocol_holds_in_every_small_scene() {
    check(Scene::all());
}

// Proves: D-interleavings
#[test]
fn the_protocol_holds_for_three_processes() {
    check(vec![Scene::impatient().with_processes(3)]);
}

#[test]
fn the_protocol_holds_for_two_mails() {
    check(vec![Scene::two_impatient(), Scene::two_mails().with_processes(2)]);
}

// Proves: D-interleavings
#[test]
fn the_protocol_holds_for_a_savepoint_rolled_back() {
    check(vec![Scene::savepoint().with_processes(2)]);
}

#[test]
fn the_protocol_holds_for_a_transaction_run_again() {
    check(vec![Scene::run_again().with_processes(2)]);
}

// Proves: D-interleavings
#[test]
fn every_step_is_needed_where_it_is() {
    check_mutations(mutations::of_steps());
}

// Proves: D-interleavings
#[test]
fn every_rule_is_needed() {
    check_mutations(mutations::of_rules());
}

#[test]
fn disks_and_databases_that_lie_are_noticed() {
    check_mutations(mutations::of_assumptions());
}

/// A model in which something never happens shows nothing about it.
#[test]
fn everything_happens_that_can() {
    let protocol = Protocol::default();
    let mut seen = BTreeSet::new();
    for scene in Scene::all() {
        let world = World { protocol: &protocol, scene: &scene, past_disagreement: false };
        let watched = Watched { world, kinds: RefCell::default() };
        assert!(explore(&watched).wrong.is_none());
        seen.append(&mut watched.kinds.borrow_mut());
    }
    // What only a broken rule makes possible is not among them.
    let kinds = "Attach CarryOutCommit CarryOutInsert CarryOutTombstone Clean CleanTombstone CrashServer \
                 CutFence CutSession Deliver EndSession Exit Fence Finish GiveUp KillApplication \
                 KillProcess Look LoseTombstone PowerCut RollBack RollBackTo SendCommit";
    assert_eq!(seen, kinds.split(' ').map(str::to_owned).collect());
}

/// Notes the kinds of the steps that are met.
struct Watched<'a> {
    world: World<'a>,
    kinds: RefCell<BTreeSet<String>>,
}

impl Model for Watched<'_> {
    type State = State;
    type Step = Step;
    type Violation = Violation;

    fn start(&self) -> State {
        self.world.start()
    }

    fn steps(&self, state: &State, to: &mut Next<Self>) {
        self.world.steps(state, to);
        let kind = |step: &Step| format!("{step:?}").split('(').next().map(str::to_owned);
        self.kinds.borrow_mut().extend(to.iter().filter_map(|(step, _)| kind(step)));
    }

    fn is_fault(step: &Step) -> bool {
        step.is_fault()
    }

    fn is_settled(&self, state: &State) -> bool {
        self.world.is_settled(state)
    }
}

/// Explores all of each scene; nothing may go wrong.
fn check(scenes: Vec<Scene>) {
    let protocol = Protocol::default();
    let mut table = String::new();
    for scene in scenes {
        let found =
            explore(&World { protocol: &protocol, scene: &scene, past_disagreement: false });
        writeln!(
            table,
            "| {}; processes: {} | {} | {} | {} |",
            scene.name, scene.processes, found.states, found.steps, found.depth
        )
        .unwrap();
        if let Some(wrong) = found.wrong {
            panic!("{}: {}\n{}", scene.name, effect_of(&wrong), trace_of(&wrong));
        }
    }
    println!("\n| scene | states | steps | depth |\n|---|---|---|---|\n{table}");
}

/// Looks what each mutation breaks; it has to be what it says.
fn check_mutations(mutations: Vec<Mutation>) {
    let with_traces = std::env::var_os("SENDMAIL_TRACES").is_some();
    let mut table = String::new();
    let mut surprises = String::new();
    for mutation in mutations {
        let (line, trace, as_expected) = judge(&mutation);
        writeln!(table, "{line}").unwrap();
        if with_traces {
            table.push_str(&trace);
        }
        if !as_expected {
            writeln!(surprises, "not {:?}: {line}\n{trace}", mutation.effect).unwrap();
        }
    }
    println!(
        "\n| mutation | what happens | scene | steps | states |\n|---|---|---|---|---|\n{table}"
    );
    assert!(surprises.is_empty(), "{surprises}");
}

/// Tries a mutation in its scenes until one shows what it breaks: a line of the table, the steps that lead
/// there, and whether it is what the mutation says.
fn judge(mutation: &Mutation) -> (String, String, bool) {
    // Two answers come before the loss that they lead to, where there is one.
    let past_disagreement =
        matches!(mutation.effect, Effect::Breaks(it) if it != Violation::Disagreement);
    let mut states = 0;
    for scene in &mutation.scenes {
        let protocol = &mutation.protocol;
        let found = explore(&World { protocol, scene, past_disagreement });
        states += found.states;
        let Some(wrong) = found.wrong else { continue };
        let weak = scene.disk == Disk::Weak && mutation.scenes.len() > 1;
        let as_expected = match (mutation.effect, wrong.violation) {
            (Effect::Breaks(expected), Some(violation)) => expected == violation && !weak,
            (Effect::BreaksWeakDisk(expected), Some(violation)) => expected == violation && weak,
            (Effect::Stuck, None) => true,
            _ => false,
        };
        let line = format!(
            "| {} | {} | {} | {} | {} |",
            mutation.name,
            effect_of(&wrong),
            scene.name,
            wrong.trace.len(),
            found.states,
        );
        return (line, trace_of(&wrong), as_expected);
    }
    let (why, as_expected) = match mutation.effect {
        Effect::Nothing(why) => (why, true),
        _ => ("", false),
    };
    let line = format!("| {} | nothing: {why} | all | – | {states} |", mutation.name);
    (line, String::new(), as_expected)
}

fn effect_of(wrong: &Wrong<World<'_>>) -> String {
    wrong.violation.map_or_else(|| "stuck".to_owned(), |violation| violation.to_string())
}

fn trace_of(wrong: &Wrong<World<'_>>) -> String {
    wrong.trace.iter().map(|step| format!("    {step}\n")).collect()
}
