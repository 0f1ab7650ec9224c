//! Who decides a transaction, and in which order its data managers are called: pure functions.

use std::sync::Arc;

use sendmail_core::{DataManager, DecisionStore, Error, ErrorKind, Order, ResourceId, Result};

/// How a transaction is to be committed. Data managers are named by their index.
pub(crate) struct Plan {
    /// The one that decides, then the others in their order.
    pub(crate) commit_order: Vec<usize>,
    /// Who can be asked later, if a data manager needs that.
    pub(crate) oracle: Option<Arc<dyn DecisionStore>>,
}

impl Plan {
    /// The plan for `managers`, which are in the order of joining.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidState`] if after a crash nobody could tell, for all of it, what was decided.
    pub(crate) fn new(managers: &[Box<dyn DataManager>]) -> Result<Self> {
        let mut members: Vec<Member<'_>> = managers.iter().map(AsRef::as_ref).enumerate().collect();
        members.sort_by_key(|(_, manager)| manager.order());
        let needy: Vec<Member<'_>> =
            members.iter().copied().filter(|(_, manager)| manager.needs_decision()).collect();
        let decider = decider(&members, &needy);
        let oracle = decider.and_then(|(_, manager)| manager.decision_store());
        let decider = decider.map(|(index, _)| index);
        if !needy.is_empty() {
            check(decider, &needy, oracle.as_deref())?;
        }
        let mut order: Vec<usize> = members.iter().map(|(index, _)| *index).collect();
        if let Some(decider) = decider {
            order.retain(|&index| index != decider);
            order.insert(0, decider);
        }
        let oracle = oracle.filter(|_| !needy.is_empty());
        Ok(Self { commit_order: order, oracle })
    }

    /// Who decides, for [`PrepareContext`](sendmail_core::PrepareContext).
    pub(crate) fn resource(&self) -> Option<ResourceId> {
        self.oracle.as_ref().map(|oracle| oracle.resource_id().clone())
    }

    /// The others in their order, then the one that decides: it sees what all others marked.
    pub(crate) fn prepare_order(&self) -> Vec<usize> {
        let mut order = self.commit_order.clone();
        if !order.is_empty() {
            order.rotate_left(1);
        }
        order
    }

    /// The reverse of the commit: the record of who decides goes last, after what it speaks of.
    pub(crate) fn abort_order(&self) -> Vec<usize> {
        self.commit_order.iter().rev().copied().collect()
    }
}

/// A data manager and its index.
type Member<'a> = (usize, &'a dyn DataManager);

/// The last resource; or the first that needs a decision and can be asked; or the first that needs
/// one. Where nobody needs one, the first to commit decides, and that needs no choosing.
fn decider<'a>(members: &[Member<'a>], needy: &[Member<'a>]) -> Option<Member<'a>> {
    let last = members.iter().find(|(_, manager)| manager.order() == Order::LastResource);
    if last.is_some() || needy.is_empty() {
        return last.copied();
    }
    let can_be_asked = |(_, manager): &&Member<'a>| manager.decision_store().is_some();
    let asked = needy.iter().find(can_be_asked).or_else(|| members.iter().find(can_be_asked));
    asked.or(needy.first()).copied()
}

fn check(
    decider: Option<usize>,
    needy: &[Member<'_>],
    oracle: Option<&dyn DecisionStore>,
) -> Result<()> {
    let misuse = |message: &str| {
        Err(Error::new(ErrorKind::InvalidState, "plan the commit", message.to_owned()))
    };
    let Some(oracle) = oracle else {
        // One alone may decide for itself: it looks after its own traces.
        let is_other = |index: usize| needy.iter().all(|(needy, _)| *needy != index);
        return if needy.len() > 1 || decider.is_some_and(is_other) {
            misuse(
                "several parts of this transaction must be decided as one, and none of them can be \
                 asked after a crash; use a queue with a decision log, or a database with a \
                 decision store",
            )
        } else {
            Ok(())
        };
    };
    let same_name = |(index, manager): &Member<'_>| {
        Some(*index) != decider
            && manager
                .decision_store()
                .is_some_and(|store| store.resource_id() == oracle.resource_id())
    };
    if needy.iter().any(same_name) {
        return misuse(
            "two data managers go by one resource id, so that recovery could ask the wrong one; give \
             each queue and each database a resource id of its own",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sendmail_core::mock::{MockDataManager, MockDecisionStore};

    /// Order, whether it needs a decision, and its resource id.
    type Kind = (Order, bool, Option<&'static str>);
    const QUEUE: Kind = (Order::Normal, true, Some("queue"));
    const OTHER_QUEUE: Kind = (Order::Normal, true, Some("other"));
    const MUTE_QUEUE: Kind = (Order::Normal, true, None);
    const DATABASE: Kind = (Order::LastResource, false, Some("db"));
    const PLAIN: Kind = (Order::Normal, false, None);
    const FIRST: Kind = (Order::First, false, None);

    fn oracle(name: &str) -> Arc<dyn DecisionStore> {
        let mut store = MockDecisionStore::new();
        store.expect_resource_id().return_const(name.parse::<ResourceId>().unwrap());
        Arc::new(store)
    }

    fn plan(kinds: &[Kind]) -> Result<Plan> {
        let manager = |&(order, needs, name): &Kind| {
            let mut manager = MockDataManager::new();
            manager.expect_order().return_const(order);
            manager.expect_needs_decision().return_const(needs);
            manager.expect_decision_store().returning(move || name.map(oracle));
            Box::new(manager) as Box<dyn DataManager>
        };
        Plan::new(&kinds.iter().map(manager).collect::<Vec<_>>())
    }

    #[track_caller]
    fn check(kinds: &[Kind], commit_order: &[usize], resource: Option<&str>) {
        let plan = plan(kinds).unwrap();
        assert_eq!(plan.commit_order, commit_order);
        assert_eq!(plan.resource().as_ref().map(ResourceId::as_str), resource);
    }

    #[test]
    fn the_last_resource_decides() {
        check(&[DATABASE, QUEUE], &[0, 1], Some("db"));
        check(&[QUEUE, PLAIN, DATABASE, FIRST], &[2, 3, 0, 1], Some("db"));
    }

    #[test]
    fn with_mail_only_the_first_queue_decides() {
        check(&[QUEUE], &[0], Some("queue"));
        check(&[FIRST, PLAIN, OTHER_QUEUE, QUEUE], &[2, 0, 1, 3], Some("other"));
        check(&[MUTE_QUEUE, QUEUE], &[1, 0], Some("queue"));
        check(&[PLAIN, MUTE_QUEUE], &[1, 0], None);
    }

    #[test]
    fn where_nothing_is_in_doubt_nobody_is_named() {
        check(&[], &[], None);
        check(&[PLAIN, FIRST], &[1, 0], None);
        check(&[PLAIN, DATABASE], &[1, 0], None);
    }

    #[test]
    fn who_decides_is_prepared_last_and_aborted_last() {
        let plan = plan(&[QUEUE, PLAIN, DATABASE]).unwrap();
        assert_eq!(plan.prepare_order(), [0, 1, 2]);
        assert_eq!(plan.abort_order(), [1, 0, 2]);
    }

    #[test]
    fn what_nobody_could_tell_after_a_crash_is_refused() {
        for kinds in [&[MUTE_QUEUE, MUTE_QUEUE][..], &[QUEUE, (Order::Normal, true, Some("queue"))]]
        {
            assert_eq!(plan(kinds).err().unwrap().kind(), ErrorKind::InvalidState);
        }
        let same = (Order::LastResource, false, Some("queue"));
        assert!(plan(&[QUEUE, same]).is_err());
    }
}
