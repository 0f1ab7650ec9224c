//! Protocols that are nearly the protocol: a step left out, two swapped, a rule broken. Each says what goes
//! wrong, and the search has to find just that.

use crate::disk::Disk;
use crate::model::Violation::{
    self, Disagreement, Duplicate, FalseAlarm, Half, Killed, Lost, Phantom,
};
use crate::protocol::{Attach, Clean, Fence, Finish, Key, Protocol, Witness};
use crate::scenes::Scene;

/// What a mutation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// This happens.
    Breaks(Violation),
    /// This happens on the weak disk, and nothing on one as measured.
    BreaksWeakDisk(Violation),
    /// From some state on, nothing is ever decided.
    Stuck,
    /// Nothing that can be seen, and why not.
    Nothing(&'static str),
}

use Effect::{Breaks, BreaksWeakDisk, Nothing, Stuck};

/// A protocol that is not the protocol.
pub(crate) struct Mutation {
    pub(crate) name: String,
    pub(crate) protocol: Protocol,
    /// Where it is tried, one after the other.
    pub(crate) scenes: Vec<Scene>,
    pub(crate) effect: Effect,
}

/// For each step what happens without it, and what happens if the next one comes before it.
type Effects<Step> = &'static [(Step, Effect, Effect)];

/// Why a checksum would not be needed if the file were synced first.
const NOT_TORN: &str = "nothing torn is ever visible then";

/// There is no next one.
const LAST: Effect = Nothing("");

/// What is torn is not sent, and is not promised before both are done.
const BOTH: &str = "both are done before attach returns; what is torn is not sent";

const ATTACH: Effects<Attach> = &[
    (Attach::Write, Breaks(Lost), Nothing("a marker alone decides nothing before attach returns")),
    (Attach::SendMarker, Breaks(Lost), Breaks(Killed)),
    (Attach::AwaitMarker, Breaks(Killed), Breaks(Killed)),
    (Attach::Stage, Breaks(Lost), Nothing(BOTH)),
    (Attach::SyncFile, Breaks(Lost), Nothing(BOTH)),
    (Attach::SyncStaged, Breaks(Lost), LAST),
];

const FINISH: Effects<Finish> = &[
    (Finish::Publish, Breaks(Lost), Breaks(Lost)),
    (Finish::SyncNew, Breaks(Lost), Nothing("nobody relies on one of them alone")),
    (Finish::SyncSource, BreaksWeakDisk(Disagreement), BreaksWeakDisk(Disagreement)),
    (Finish::DeleteMarker, Nothing("the cleaner deletes what is left over"), LAST),
];

const FENCE: Effects<Fence> = &[
    (Fence::InsertTombstone, Breaks(Lost), Stuck),
    (Fence::SendCommit, Stuck, Stuck),
    (Fence::AwaitCommit, Breaks(Disagreement), Breaks(Disagreement)),
    (Fence::Discard, Stuck, Nothing("what a power cut brings back gets the same answer again")),
    (
        Fence::SyncDiscarded,
        Nothing("what a power cut brings back gets the same answer again"),
        LAST,
    ),
];

const CLEAN: Effects<Clean> = &[
    (Clean::CheckUndecided, Breaks(FalseAlarm), Breaks(FalseAlarm)),
    (
        Clean::CheckKnown,
        Nothing("it only tells when somebody has removed a file"),
        Nothing("it only tells when somebody has removed a file"),
    ),
    (Clean::SyncDirectories, Breaks(Lost), Breaks(Lost)),
    (Clean::DeleteMarker, Stuck, LAST),
];

/// Every step of the protocol left out, and every two neighbours swapped.
pub(crate) fn of_steps() -> Vec<Mutation> {
    let mut all = Vec::new();
    vary("attach", ATTACH, |protocol| &mut protocol.attach, &mut all);
    vary("finish", FINISH, |protocol| &mut protocol.finish, &mut all);
    vary("fence", FENCE, |protocol| &mut protocol.fence, &mut all);
    vary("clean", CLEAN, |protocol| &mut protocol.clean, &mut all);
    all
}

fn vary<Step: Copy + PartialEq + std::fmt::Debug + std::fmt::Display>(
    list: &str,
    effects: Effects<Step>,
    steps: fn(&mut Protocol) -> &mut Vec<Step>,
    all: &mut Vec<Mutation>,
) {
    let listed: Vec<Step> = effects.iter().map(|(step, ..)| *step).collect();
    assert_eq!(*steps(&mut Protocol::default()), listed, "every step has its line in the table");
    for (at, (step, without, swapped)) in effects.iter().enumerate() {
        let mut protocol = Protocol::default();
        steps(&mut protocol).remove(at);
        all.push(Mutation {
            name: format!("{list}: never {step}"),
            protocol,
            scenes: Scene::all(),
            effect: *without,
        });
        if let Some((next, ..)) = effects.get(at + 1) {
            let mut protocol = Protocol::default();
            steps(&mut protocol).swap(at, at + 1);
            all.push(Mutation {
                name: format!("{list}: {next} before it {step}"),
                protocol,
                scenes: Scene::all(),
                effect: *swapped,
            });
        }
    }
}

/// Whole steps left out or moved further, and the rules broken one by one.
pub(crate) fn of_rules() -> Vec<Mutation> {
    let mut all = Vec::new();
    let mut add = |name: &str, effect, change: fn(&mut Protocol)| {
        let mut protocol = Protocol::default();
        change(&mut protocol);
        all.push(Mutation { name: name.to_owned(), protocol, scenes: Scene::all(), effect });
    };
    add("P3 before P2: a fence comes between", Breaks(Killed), |it| {
        it.attach[1..].rotate_left(2);
    });
    add("no F2: F3 at once after F1", Breaks(Lost), |it| drop(it.finish.drain(1..3)));
    add("F3 before F2", Breaks(Lost), |it| it.finish[1..].rotate_right(1));
    add("F3 before F1", Breaks(Lost), |it| it.finish.rotate_right(1));
    add("no F2 where the file was already gone", Breaks(Lost), |it| {
        it.rules.sync_when_gone = false;
    });
    add("no fence: no row and old, so it was rolled back", Breaks(Lost), |it| {
        drop(it.fence.drain(..3));
    });
    add("no fence: no row and its owner dead, so it was rolled back", Breaks(Lost), |it| {
        it.rules.ask_while_owner_lives = false;
        it.fence.drain(..3);
    });
    add("the fence's time-out is an answer", Breaks(Lost), |it| {
        it.rules.waiting_is_no_answer = false;
    });
    add("the marker is not in the transaction", Breaks(Phantom), |it| {
        it.rules.in_transaction = false;
    });
    add("the key is not unique, or the fence is on a replica", Breaks(Lost), |it| {
        it.rules.unique_key = false;
    });
    add("the fence reads an old snapshot", Breaks(Lost), |it| it.rules.fresh_read = false);
    add("visible reads what is not committed", Breaks(Phantom), |it| {
        it.rules.witness = Witness::DirtyMarker;
    });
    add("the transaction's number in place of a marker", Breaks(Phantom), |it| {
        it.rules.witness = Witness::TransactionNumber;
    });
    add("a fence whose COMMIT got no answer discards", Breaks(Disagreement), |it| {
        it.rules.doubt_keeps = false;
    });
    add("a living owner's tmp/ is fenced", Breaks(Killed), |it| {
        it.rules.leave_tmp_of_living = false;
    });
    add(
        "nothing is fenced while its owner lives",
        Nothing("age only says when to ask; what is rolled back stays until its owner ends"),
        |it| it.rules.ask_while_owner_lives = false,
    );
    add("a dead owner's tmp/ is emptied", Breaks(Disagreement), |it| {
        it.rules.ask_about_tmp_of_dead = false;
    });
    add("tombstones are deleted too early", Breaks(Disagreement), |it| {
        it.rules.tombstones_outlive_owners = false;
    });
    add("another queue judges the row", Breaks(FalseAlarm), |it| it.rules.own_rows_only = false);
    add("another queue judges the row, and raises no alarm", Breaks(Lost), |it| {
        it.rules.own_rows_only = false;
        it.clean.retain(|step| *step != Clean::CheckKnown);
    });
    add("the cleaner syncs, looks then, and deletes", Breaks(Lost), |it| {
        it.clean[..3].rotate_right(1);
    });
    add("the cleaner deletes what is old, and looks at nothing", Breaks(Lost), |it| {
        it.clean.drain(..2);
    });
    add("one marker for each transaction", Breaks(Lost), |it| it.rules.key = Key::Transaction);
    add("the Message-ID as key", Breaks(Killed), |it| it.rules.key = Key::MessageId);
    add("what is not whole is sent", Breaks(Half), |it| it.rules.send_whole_only = false);
    add("what is not whole is sent, and P1 syncs", Nothing(NOT_TORN), |it| {
        it.rules.send_whole_only = false;
        it.attach[1..5].rotate_right(1);
    });
    let mut protocol = Protocol::default();
    protocol.rules.key = Key::Transaction;
    all.push(Mutation {
        name: "one marker for each transaction, a savepoint is rolled back".to_owned(),
        protocol,
        scenes: vec![Scene::savepoint()],
        effect: Breaks(Phantom),
    });
    all
}

/// The protocol as it is, on a disk and with a database that do not keep what they promise: the controls,
/// which show that the search would notice.
pub(crate) fn of_assumptions() -> Vec<Mutation> {
    let torn = Scene { name: "one mail, torn renames", disk: Disk::Torn, ..Scene::one_mail() };
    let forgetful =
        Scene { name: "one mail, relaxed database", forgetful_database: true, ..Scene::one_mail() };
    let control = |name: &str, scene, violation| Mutation {
        name: name.to_owned(),
        protocol: Protocol::default(),
        scenes: vec![scene],
        effect: Breaks(violation),
    };
    let unasked = Scene {
        name: "one mail, weak disk, journal not asked",
        workers_ask_journal: false,
        ..Scene::weak_disk()
    };
    vec![
        control(
            "an old name comes back, and the worker does not ask the journal",
            unasked,
            Duplicate,
        ),
        control("a rename that is not synced may tear", torn, Lost),
        control("a crash of the database forgets a commit", forgetful, Phantom),
    ]
}
