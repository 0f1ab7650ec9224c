//! Deliveries by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use sendmail_core::{Error, ErrorKind, MailDelivery, Result};

/// Deliveries by name: what zope looked up as a named utility.
///
/// It is a plain value. An application that wants a global one keeps it in one.
#[derive(Clone, Default)]
pub struct DeliveryRegistry {
    deliveries: BTreeMap<String, Arc<dyn MailDelivery>>,
}

impl DeliveryRegistry {
    /// A registry without deliveries.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a delivery under a name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if there is one of that name; it stays.
    pub fn register(
        &mut self,
        name: impl Into<String>,
        delivery: Arc<dyn MailDelivery>,
    ) -> Result<()> {
        let name = name.into();
        if self.deliveries.contains_key(&name) {
            let message = "there is a delivery of that name already";
            let error = Error::new(ErrorKind::InvalidInput, "register the delivery", message);
            return Err(error.with("name", name));
        }
        self.deliveries.insert(name, delivery);
        Ok(())
    }

    /// The delivery of that name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`], with the names that there are.
    pub fn get(&self, name: &str) -> Result<Arc<dyn MailDelivery>> {
        self.deliveries.get(name).cloned().ok_or_else(|| {
            let known: Vec<&str> = self.names().collect();
            Error::new(ErrorKind::NotFound, "find the delivery", "none is registered by that name")
                .with("name", name)
                .with("registered", known.join(", "))
        })
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.deliveries.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sendmail_core::mock::MockMailDelivery;

    #[test]
    fn a_name_is_given_once_and_a_wrong_one_tells_the_right_ones() {
        let mut registry = DeliveryRegistry::new();
        registry.register("orders", Arc::new(MockMailDelivery::new())).unwrap();
        registry.register("alerts", Arc::new(MockMailDelivery::new())).unwrap();
        let twice = registry.register("orders", Arc::new(MockMailDelivery::new())).unwrap_err();
        assert_eq!(twice.kind(), ErrorKind::InvalidInput);
        assert!(registry.get("orders").is_ok());
        let error = registry.get("order").err().unwrap();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("alerts, orders"), "{error}");
    }
}
