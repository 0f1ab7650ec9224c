//! What a disk may hold when the power goes after some operations.
//!
//! What was synced is there, and of the rest any subset that these rules allow:
//!
//! * what was done to the names of one file is kept in its order: a beginning of it, and no more;
//! * a rename is kept whole or not at all, and a sync of the directory that it went *to* keeps it; a sync
//!   of the one that it came from promises nothing;
//! * a name that was free when it was given is given only if what had freed it is kept, and a
//!   directory is removed only if everything that left it is kept to have left;
//! * what was done to the content of one file and not synced may be there, be missing, be there by half,
//!   or have left zeros; each write for itself, whatever its order and whatever its name's fate;
//! * the permissions of a file are kept in their order, and only a sync of the whole file promises them;
//! * different files know nothing of each other.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::image::{Content, Image, Node, Place};
use super::record::{Change, Step, apply_content, apply_name};

/// How much a disk may do to a rename.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Model {
    /// The disks that the queue is made for.
    Whole,
    /// A rename that was synced in its target alone may leave its old name as well.
    TwoNames,
    /// A control: a rename that was not synced may lose the file, or leave both names.
    Torn,
}

/// Something done to a name.
#[derive(Debug)]
struct Naming<'a> {
    change: &'a Change,
    node: Node,
    /// For a rename: whether there was something under the new name.
    replaces: bool,
    durable: bool,
    /// For a rename: whether the directory that it came from was synced as well.
    left: bool,
}

/// What one file's names may have become.
#[derive(Debug, Clone, Copy)]
struct Fate {
    /// How many of its changes are kept.
    kept: usize,
    /// A rename among them, by its position, that has left the old name too.
    ghost: Option<usize>,
    /// Whether the next one, a rename, has lost the file.
    lost: bool,
}

/// A cut of the power at one moment, and what the disk may hold then.
#[derive(Debug)]
pub(crate) struct Cut<'a> {
    base: &'a Image,
    names: Vec<Naming<'a>>,
    /// For each node what was done to its names, as positions in `names`.
    chains: BTreeMap<Node, Vec<usize>>,
    /// What is open, with all its possible ends, the least first and the most last.
    fates: Vec<(Node, Vec<Fate>)>,
    contents: Vec<(Node, Vec<Content>)>,
}

impl<'a> Cut<'a> {
    /// A cut after all of `steps`.
    pub(crate) fn new(base: &'a Image, steps: &'a [Step], model: Model) -> Self {
        let mut cut = Self {
            base,
            names: Vec::new(),
            chains: BTreeMap::new(),
            fates: Vec::new(),
            contents: Vec::new(),
        };
        let mut now = base.clone();
        let mut data: BTreeMap<Node, (Content, Vec<&Change>)> = BTreeMap::new();
        for step in steps {
            let Step::Did(change, _) = step else { continue };
            match change {
                Change::Make { node, .. }
                | Change::Rename { node, .. }
                | Change::Link { node, .. }
                | Change::Remove { node, .. } => {
                    let replaces =
                        matches!(change, Change::Rename { to, .. } if now.names.contains_key(to));
                    apply_name(&mut now, change);
                    cut.chains.entry(*node).or_default().push(cut.names.len());
                    let left = false;
                    cut.names.push(Naming { change, node: *node, replaces, durable: false, left });
                }
                Change::Write { file, .. }
                | Change::Resize { file, .. }
                | Change::Mode { file, .. } => {
                    let start =
                        || (base.files.get(file).cloned().unwrap_or_else(Content::new), Vec::new());
                    data.entry(*file).or_insert_with(start).1.push(change);
                }
                Change::SyncData { file } => settle(&mut data, *file, false),
                Change::SyncFile { file } => settle(&mut data, *file, true),
                Change::SyncDir { dir } => cut.sync_dir(*dir),
                Change::SyncAll => {
                    let files: Vec<Node> = data.keys().copied().collect();
                    files.into_iter().for_each(|file| settle(&mut data, file, true));
                    (0..cut.names.len()).for_each(|at| cut.keep(at));
                    cut.names.iter_mut().for_each(|naming| naming.left = true);
                }
            }
        }
        cut.find_fates(model);
        cut.contents = data
            .into_iter()
            .map(|(file, (content, open))| (file, contents(&content, &open)))
            .collect();
        cut
    }

    fn sync_dir(&mut self, dir: Node) {
        for at in 0..self.names.len() {
            if target(self.names[at].change).0 == dir {
                self.keep(at);
            }
            if matches!(self.names[at].change, Change::Rename { from, .. } if from.0 == dir) {
                self.names[at].left = true;
            }
        }
    }

    /// What was done to this name is durable, and everything that it rests on.
    fn keep(&mut self, at: usize) {
        if self.names[at].durable {
            return;
        }
        self.names[at].durable = true;
        let node = self.names[at].node;
        let mut rests_on: Vec<usize> =
            self.chains[&node].iter().copied().filter(|earlier| *earlier < at).collect();
        let change = self.names[at].change;
        let free = !self.names[at].replaces && !matches!(change, Change::Remove { .. });
        for earlier in 0..at {
            let left = source(self.names[earlier].change);
            let freed = free && left == Some(target(change));
            let emptied = matches!(change, Change::Remove { .. })
                && left.is_some_and(|place| place.0 == node);
            if freed || emptied {
                rests_on.push(earlier);
            }
        }
        rests_on.into_iter().for_each(|earlier| self.keep(earlier));
    }

    fn find_fates(&mut self, model: Model) {
        for (node, chain) in &self.chains {
            let durable = chain.iter().filter(|at| self.names[**at].durable).count();
            let is_rename = |position: usize| {
                matches!(self.names[chain[position]].change, Change::Rename { .. })
            };
            let mut fates = Vec::new();
            for kept in durable..=chain.len() {
                fates.push(Fate { kept, ghost: None, lost: false });
                let ghost = kept.checked_sub(1).filter(|last| is_rename(*last));
                let ghost = ghost.filter(|last| match model {
                    Model::Whole => false,
                    Model::TwoNames => *last < durable && !self.names[chain[*last]].left,
                    Model::Torn => *last >= durable,
                });
                if ghost.is_some() {
                    fates.push(Fate { kept, ghost, lost: false });
                }
                if model == Model::Torn && kept < chain.len() && is_rename(kept) {
                    fates.push(Fate { kept, ghost: None, lost: true });
                }
            }
            // The most, last.
            let most = fates.iter().rposition(|fate| fate.ghost.is_none() && !fate.lost);
            let last = fates.len() - 1;
            fates.swap(most.unwrap_or(last), last);
            self.fates.push((*node, fates));
        }
    }

    /// How many ends each thing has that is open.
    fn sizes(&self) -> Vec<usize> {
        let fates = self.fates.iter().map(|(_, fates)| fates.len());
        fates.chain(self.contents.iter().map(|(_, contents)| contents.len())).collect()
    }

    /// The disks that there may be: all of them if they are few, and otherwise the extremes and as many
    /// others, by chance, as make `limit`. The second value is false if it is not all.
    pub(crate) fn disks(&self, limit: usize, seed: &mut u64) -> (Vec<Image>, bool) {
        let sizes = self.sizes();
        let product = sizes.iter().try_fold(1usize, |all, size| all.checked_mul(*size));
        let all = product.is_some_and(|product| product <= limit);
        let choices = match product {
            Some(product) if all => (0..product).map(|number| digits(number, &sizes)).collect(),
            _ => sample(&sizes, limit, seed),
        };
        let mut seen = HashSet::new();
        let disks = choices.iter().map(|choice| self.disk(choice));
        (disks.filter(|disk| seen.insert(disk.digest())).collect(), all)
    }

    /// The disk on which each open thing has the end that was chosen.
    fn disk(&self, choice: &[usize]) -> Image {
        let mut disk = self.base.clone();
        let (fates, contents) = choice.split_at(self.fates.len());
        let fates: HashMap<Node, Fate> = self
            .fates
            .iter()
            .zip(fates)
            .map(|((node, fates), chosen)| (*node, fates[*chosen]))
            .collect();
        let mut done: HashMap<Node, usize> = HashMap::new();
        let mut ended: HashSet<Node> = HashSet::new();
        for naming in &self.names {
            let fate = fates[&naming.node];
            let position = done.entry(naming.node).or_default();
            if *position == fate.kept
                && fate.lost
                && let Change::Rename { from, .. } = naming.change
            {
                disk.names.remove(from);
            }
            if *position >= fate.kept || ended.contains(&naming.node) {
                *position += 1;
                continue;
            }
            if naming.durable || is_possible(&disk, naming) {
                apply_name(&mut disk, naming.change);
                if let Change::Rename { from, .. } = naming.change
                    && fate.ghost == Some(*position)
                {
                    disk.names.insert(from.clone(), naming.node);
                }
            } else {
                ended.insert(naming.node);
            }
            *position += 1;
        }
        for ((file, contents), chosen) in self.contents.iter().zip(contents) {
            disk.files.insert(*file, contents[*chosen].clone());
        }
        disk
    }
}

/// Whether a change that nothing has synced can be kept on this disk, by what it rests on.
fn is_possible(disk: &Image, naming: &Naming<'_>) -> bool {
    let place = target(naming.change);
    let is_removal = matches!(naming.change, Change::Remove { .. });
    if is_removal {
        let node = naming.node;
        return !disk.dirs.contains(&node) || !disk.names.keys().any(|(dir, _)| *dir == node);
    }
    disk.dirs.contains(&place.0) && (naming.replaces || !disk.names.contains_key(&place))
}

/// Which directory must be synced to keep a change of a name.
fn target(change: &Change) -> Place {
    match change {
        Change::Make { at, .. } | Change::Remove { at, .. } => at.clone(),
        Change::Rename { to, .. } | Change::Link { to, .. } => to.clone(),
        _ => unreachable!("only changes of names are asked"),
    }
}

/// Which name a change frees.
fn source(change: &Change) -> Option<Place> {
    match change {
        Change::Rename { from, .. } => Some(from.clone()),
        Change::Remove { at, .. } => Some(at.clone()),
        _ => None,
    }
}

/// What was done to a file is durable: all of it, or all but its permissions.
fn settle(data: &mut BTreeMap<Node, (Content, Vec<&Change>)>, file: Node, whole: bool) {
    if let Some((content, open)) = data.get_mut(&file) {
        open.retain(|change| {
            let stays = !whole && matches!(change, Change::Mode { .. });
            if !stays {
                apply_content(content, change);
            }
            stays
        });
    }
}

/// What can become of one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Nothing,
    Half,
    Zeros,
    All,
}

/// What a file may hold of which this was done and not synced; nothing of it first, all of it last.
fn contents(durable: &Content, open: &[&Change]) -> Vec<Content> {
    let data: Vec<&Change> =
        open.iter().copied().filter(|change| !matches!(change, Change::Mode { .. })).collect();
    let modes: Vec<&Change> =
        open.iter().copied().filter(|change| matches!(change, Change::Mode { .. })).collect();
    let mut all = Vec::new();
    let mut seen = HashSet::new();
    for kept in choices_of(data.len()) {
        let mut content = durable.clone();
        data.iter().zip(&kept).for_each(|(change, kept)| apply_part(&mut content, change, *kept));
        for count in 0..=modes.len() {
            let mut content = content.clone();
            modes[..count].iter().for_each(|change| apply_content(&mut content, change));
            if seen.insert(content.clone()) {
                all.push(content);
            }
        }
    }
    all
}

/// All that may be kept of a few writes; of more, each beginning, and each with one missing.
fn choices_of(count: usize) -> Vec<Vec<Kept>> {
    const EACH: [Kept; 4] = [Kept::Nothing, Kept::Half, Kept::Zeros, Kept::All];
    if count <= 2 {
        let sizes = vec![EACH.len(); count];
        let product = EACH.len().pow(u32::try_from(count).unwrap());
        let choice = |number| digits(number, &sizes).into_iter().map(|digit| EACH[digit]).collect();
        return (0..product).map(choice).collect();
    }
    let mut all = Vec::new();
    for first in 0..count {
        for kept in [Kept::Nothing, Kept::Half, Kept::Zeros] {
            let beginning = |at: usize| if at < first { Kept::All } else { Kept::Nothing };
            let mut one: Vec<Kept> = (0..count).map(beginning).collect();
            one[first] = kept;
            all.push(one);
            let mut one = vec![Kept::All; count];
            one[first] = kept;
            all.push(one);
        }
    }
    all.push(vec![Kept::All; count]);
    all
}

fn apply_part(content: &mut Content, change: &Change, kept: Kept) {
    match (change, kept) {
        (_, Kept::Nothing) => {}
        (Change::Write { offset, bytes, .. }, Kept::Half) => {
            content.write(*offset, &bytes[..bytes.len() / 2]);
        }
        (Change::Write { offset, bytes, .. }, Kept::Zeros) => {
            // The length is there, and the block was never written.
            let end = offset + bytes.len() as u64;
            if end > content.length() {
                content.resize(end);
            }
        }
        _ => apply_content(content, change),
    }
}

/// The digits of a number, the `n`-th of them less than `sizes[n]`.
fn digits(mut number: usize, sizes: &[usize]) -> Vec<usize> {
    let digit = |size: &usize| {
        let digit = number % size;
        number /= size;
        digit
    };
    sizes.iter().map(digit).collect()
}

/// The extremes, everything that differs from one of them in one thing, and others by chance.
fn sample(sizes: &[usize], limit: usize, seed: &mut u64) -> Vec<Vec<usize>> {
    let least = vec![0; sizes.len()];
    let most: Vec<usize> = sizes.iter().map(|size| size - 1).collect();
    let mut choices = vec![least.clone(), most.clone()];
    for (at, size) in sizes.iter().enumerate() {
        for end in 0..*size {
            for extreme in [&least, &most] {
                let mut choice = extreme.clone();
                choice[at] = end;
                choices.push(choice);
            }
        }
    }
    shuffle(&mut choices[2..], seed);
    choices.truncate(limit.max(2));
    while choices.len() < limit {
        let pick = |size: &usize| usize::try_from(random(seed) % *size as u64).unwrap();
        choices.push(sizes.iter().map(pick).collect());
    }
    choices
}

fn shuffle<T>(list: &mut [T], seed: &mut u64) {
    for at in (1..list.len()).rev() {
        let other = usize::try_from(random(seed) % (at as u64 + 1)).unwrap();
        list.swap(at, other);
    }
}

/// The next number of a sequence that looks like chance (SplitMix64).
pub(crate) fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut number = *seed;
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
