//! Which resources the configured databases are, as far as they could be asked.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sendmail_core::ResourceId;

use crate::config::DatabaseName;

/// The configured databases, each with its resource id once it could be asked.
#[derive(Debug)]
pub(crate) struct Known(Mutex<BTreeMap<DatabaseName, Option<ResourceId>>>);

impl Known {
    /// Nothing is known yet of these.
    pub(crate) fn new<'a>(names: impl Iterator<Item = &'a DatabaseName>) -> Self {
        Self(Mutex::new(names.map(|name| (name.clone(), None)).collect()))
    }

    pub(crate) fn learn(&self, name: &DatabaseName, resource: ResourceId) {
        self.databases().insert(name.clone(), Some(resource));
    }

    /// What the database is called that decides for `resource`.
    pub(crate) fn name_of(&self, resource: &ResourceId) -> Option<DatabaseName> {
        let databases = self.databases();
        let mut all = databases.iter();
        all.find(|(_, known)| known.as_ref() == Some(resource)).map(|(name, _)| name.clone())
    }

    /// The resource, with what the database is called that it is.
    pub(crate) fn named(&self, resource: &ResourceId) -> String {
        match self.name_of(resource) {
            Some(name) => format!("database {name}, {resource}"),
            None => resource.to_string(),
        }
    }

    /// Whether it is sure that none of the databases decides for `resource`.
    pub(crate) fn is_foreign(&self, resource: &ResourceId) -> bool {
        self.databases().values().all(|known| known.as_ref().is_some_and(|known| known != resource))
    }

    /// What to do about messages of a resource that none of those that could be asked is.
    pub(crate) fn hint(&self, resource: &ResourceId) -> String {
        let silent: Vec<String> = {
            let databases = self.databases();
            let silent = databases.iter().filter(|(_, known)| known.is_none());
            silent.map(|(name, _)| name.to_string()).collect()
        };
        if !silent.is_empty() {
            // It may well be one of them: this is no time to rule by hand.
            return format!(
                "messages wait for {resource}, perhaps for {}, which cannot be asked now; wait for it, or \
                 mend it: they are kept",
                silent.join(" or ")
            );
        }
        let databases = self.databases();
        let each = databases.iter().filter_map(|(name, known)| Some((name, known.as_ref()?)));
        let configured: Vec<String> =
            each.map(|(name, resource)| format!("{name} ({resource})")).collect();
        let configured =
            if configured.is_empty() { "none".to_owned() } else { configured.join(", ") };
        format!(
            "messages wait for {resource}, which is not configured here; configured databases: \
             {configured}; add it as [databases.NAME] to the configuration file, or settle them with \
             `recover --decide` if it is gone for good"
        )
    }

    /// Its state is consistent at every point at which a panic could leave it.
    fn databases(&self) -> MutexGuard<'_, BTreeMap<DatabaseName, Option<ResourceId>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_told_to_rule_by_hand_while_a_database_is_only_out_of_reach() {
        let (shop, lost): (ResourceId, ResourceId) =
            ("db-1".parse().unwrap(), "db-2".parse().unwrap());
        let names: Vec<DatabaseName> =
            ["shop", "stock"].map(|name| DatabaseName::parse(name.to_owned()).unwrap()).into();
        let known = Known::new(names.iter());
        known.learn(&names[0], shop);
        let hint = known.hint(&lost);
        assert!(hint.contains("perhaps for stock") && !hint.contains("--decide"), "{hint}");
        known.learn(&names[1], "db-3".parse().unwrap());
        let hint = known.hint(&lost);
        assert!(hint.contains("[databases.NAME]") && hint.contains("shop (db-1)"), "{hint}");
    }
}
