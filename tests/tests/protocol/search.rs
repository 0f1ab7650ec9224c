//! An exhaustive search, breadth first: every state that can be reached, each once.
//!
//! Because it goes breadth first, the first violation that it meets is one of those with the fewest
//! steps, and the steps that led there are its trace.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Display;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// A system with finitely many states.
pub(crate) trait Model {
    /// Everything that may differ between two moments.
    type State: Copy + Eq + Hash;
    /// What leads from one state to the next.
    type Step: Copy + Display;
    /// What must never happen.
    type Violation: Copy;

    /// Where everything begins.
    fn start(&self) -> Self::State;

    /// All steps that are possible in `state`, and what each leads to.
    fn steps(&self, state: &Self::State, to: &mut Next<Self>);

    /// Whether a step is a fault: something that may happen, and that nobody may count on.
    fn is_fault(step: &Self::Step) -> bool;

    /// Whether everything is decided in `state`.
    fn is_settled(&self, state: &Self::State) -> bool;
}

/// The steps out of one state.
pub(crate) type Next<M> =
    Vec<(<M as Model>::Step, Result<<M as Model>::State, <M as Model>::Violation>)>;

/// What a search found.
pub(crate) struct Found<M: Model + ?Sized> {
    /// How many states were met.
    pub(crate) states: usize,
    /// How many steps between them.
    pub(crate) steps: usize,
    /// How many steps the state is away that is the furthest from the start.
    pub(crate) depth: usize,
    /// What went wrong first, if anything did.
    pub(crate) wrong: Option<Wrong<M>>,
}

/// Something that went wrong, and how.
pub(crate) struct Wrong<M: Model + ?Sized> {
    /// What it is; nothing, if it is that from here on nothing is ever decided.
    pub(crate) violation: Option<M::Violation>,
    /// The steps that lead there.
    pub(crate) trace: Vec<M::Step>,
}

/// Explores all of `model`, unless a violation ends it.
///
/// If there is none, it looks whether from every state one can be reached, without another fault, in
/// which everything is decided.
pub(crate) fn explore<M: Model>(model: &M) -> Found<M> {
    let mut graph = Graph::<M>::new(model.start());
    let mut next = Vec::new();
    let mut at = 0;
    while at < graph.states.len() {
        model.steps(&graph.states[at].clone(), &mut next);
        for (step, result) in next.drain(..) {
            graph.count += 1;
            match result {
                Ok(state) => graph.add(at, step, state),
                Err(violation) => return graph.violated(at, step, violation),
            }
        }
        at += 1;
    }
    let stuck = graph.never_settled(|state| model.is_settled(state));
    let wrong = stuck.map(|at| Wrong { violation: None, trace: graph.trace(at) });
    graph.found(wrong)
}

/// What was met so far.
struct Graph<M: Model> {
    states: Vec<M::State>,
    /// How each state was met first: from which other, and by what.
    origins: Vec<Option<(u32, M::Step)>>,
    depths: Vec<u32>,
    known: HashMap<M::State, u32, BuildHasherDefault<QuickHasher>>,
    /// The steps that are not faults, from and to.
    edges: Vec<(u32, u32)>,
    count: usize,
}

impl<M: Model> Graph<M> {
    fn new(start: M::State) -> Self {
        Self {
            states: vec![start],
            origins: vec![None],
            depths: vec![0],
            known: [(start, 0)].into_iter().collect(),
            edges: Vec::new(),
            count: 0,
        }
    }

    fn add(&mut self, from: usize, step: M::Step, state: M::State) {
        let number = index(self.states.len());
        let to = match self.known.entry(state) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(vacant) => {
                vacant.insert(number);
                self.states.push(state);
                self.origins.push(Some((index(from), step)));
                self.depths.push(self.depths[from] + 1);
                number
            }
        };
        if !M::is_fault(&step) {
            self.edges.push((index(from), to));
        }
    }

    fn violated(self, at: usize, step: M::Step, violation: M::Violation) -> Found<M> {
        let mut trace = self.trace(at);
        trace.push(step);
        self.found(Some(Wrong { violation: Some(violation), trace }))
    }

    fn found(self, wrong: Option<Wrong<M>>) -> Found<M> {
        let depth = self.depths.last().copied().unwrap_or(0);
        Found { states: self.states.len(), steps: self.count, depth: depth as usize, wrong }
    }

    fn trace(&self, mut at: usize) -> Vec<M::Step> {
        let mut trace = Vec::new();
        while let Some((from, step)) = self.origins[at] {
            trace.push(step);
            at = from as usize;
        }
        trace.reverse();
        trace
    }

    /// The first state from which no settled one can be reached without a fault.
    ///
    /// Goes backwards from all that are settled; what it does not come to cannot come there.
    fn never_settled(&self, is_settled: impl Fn(&M::State) -> bool) -> Option<usize> {
        let mut starts = vec![0_u32; self.states.len() + 1];
        self.edges.iter().for_each(|(_, to)| starts[*to as usize + 1] += 1);
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        let mut free = starts.clone();
        let mut sources = vec![0_u32; self.edges.len()];
        for (from, to) in &self.edges {
            sources[free[*to as usize] as usize] = *from;
            free[*to as usize] += 1;
        }
        let mut settles: Vec<bool> = self.states.iter().map(is_settled).collect();
        let mut open: Vec<usize> = (0..settles.len()).filter(|at| settles[*at]).collect();
        while let Some(at) = open.pop() {
            for source in &sources[starts[at] as usize..starts[at + 1] as usize] {
                let source = *source as usize;
                if !settles[source] {
                    settles[source] = true;
                    open.push(source);
                }
            }
        }
        settles.iter().position(|settles| !settles)
    }
}

fn index(number: usize) -> u32 {
    u32::try_from(number).expect("a model with so many states does not fit into memory either")
}

/// Multiplies and rotates: nobody attacks this table, and a search hashes nothing but states.
#[derive(Default)]
struct QuickHasher(u64);

impl Hasher for QuickHasher {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_isize(&mut self, value: isize) {
        self.write_u64(value.unsigned_abs() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::{Model, Next, explore};

    /// Counts up to 9, by one or by two; may be thrown back; must not come to `forbidden`; `hole` has no way
    /// out but a fault.
    struct Stairs {
        forbidden: Option<u8>,
        hole: Option<u8>,
    }

    const END: u8 = 9;

    impl Model for Stairs {
        type State = u8;
        type Step = char;
        type Violation = u8;

        fn start(&self) -> u8 {
            0
        }

        fn steps(&self, state: &u8, to: &mut Next<Self>) {
            let judge = |state| if self.forbidden == Some(state) { Err(state) } else { Ok(state) };
            if *state < END && self.hole != Some(*state) {
                to.push(('1', judge(state + 1)));
                to.push(('2', judge((state + 2).min(END))));
            }
            to.push(('!', judge(0)));
        }

        fn is_fault(step: &char) -> bool {
            *step == '!'
        }

        fn is_settled(&self, state: &u8) -> bool {
            *state == END
        }
    }

    fn check(stairs: &Stairs, states: usize, wrong: Option<(Option<u8>, &str)>) {
        let found = explore(stairs);
        assert_eq!(found.states, states);
        let what = found.wrong.map(|it| (it.violation, it.trace.iter().collect::<String>()));
        assert_eq!(what, wrong.map(|(violation, trace)| (violation, trace.to_owned())));
    }

    #[test]
    fn all_states_are_met_and_each_once() {
        check(&Stairs { forbidden: None, hole: None }, 10, None);
    }

    #[test]
    fn the_shortest_way_to_a_violation_is_told() {
        check(&Stairs { forbidden: Some(5), hole: None }, 5, Some((Some(5), "122")));
    }

    #[test]
    fn what_leads_nowhere_without_a_fault_is_told() {
        check(&Stairs { forbidden: None, hole: Some(3) }, 10, Some((None, "12")));
    }
}
