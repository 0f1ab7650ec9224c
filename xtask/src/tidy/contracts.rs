//! What the core must keep: few dependencies, and a contract for each method of its traits.

use std::path::Path;

use serde_json::Value;

/// All that the core may use; none of it does I/O or needs a runtime.
const CORE_USES: [&str; 4] = ["async-trait", "mockall", "thiserror", "uuid"];

/// What the core depends on and must not; from `cargo metadata`.
pub(crate) fn core_dependencies(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let core = packages.filter(|package| package["name"] == "sendmail-core");
    core.flat_map(|package| package["dependencies"].as_array().into_iter().flatten())
        // Dependencies of tests have a kind.
        .filter(|dependency| dependency["kind"].is_null())
        .filter_map(|dependency| dependency["name"].as_str())
        .filter(|name| !CORE_USES.contains(name))
        .map(|name| format!("sendmail-core must not depend on {name}"))
        .collect()
}

/// The asynchronous methods of the core's traits whose documentation is silent about being dropped.
pub(crate) fn check(name: &Path, text: &str) -> Vec<String> {
    let is_core = name.starts_with("crates/sendmail-core/src") && !name.ends_with("mock.rs");
    if !is_core || name.extension().is_none_or(|extension| extension != "rs") {
        return Vec::new();
    }
    let mut problems = Vec::new();
    let mut told = false;
    for line in text.lines() {
        let line = line.trim_start();
        if let Some(doc) = line.strip_prefix("///") {
            told |= doc.trim() == "# Cancel safety";
        } else if !line.starts_with("#[") {
            if let Some(rest) = line.strip_prefix("async fn ").filter(|_| !told) {
                let method = rest.split(['(', '<']).next().unwrap_or(rest);
                problems.push(format!("{method} does not say whether it is cancel safe"));
            }
            told = false;
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_core_stays_small() {
        let metadata = json!({ "packages": [
            { "name": "sendmail-core", "dependencies": [
                { "name": "uuid", "kind": null },
                { "name": "tokio", "kind": null },
                { "name": "proptest", "kind": "dev" },
            ] },
            { "name": "sendmail-smtp", "dependencies": [{ "name": "lettre", "kind": null }] },
        ] });
        assert_eq!(core_dependencies(&metadata), ["sendmail-core must not depend on tokio"]);
    }

    #[test]
    fn silence_about_cancel_safety_is_found() {
        let text = "/// A.\n///\n/// # Cancel safety\n///\n/// Yes.\nasync fn one(&self);\n\n/// B.\n\
                    async fn two(&self);\n/// C.\nfn three();\n";
        let found = check(Path::new("crates/sendmail-core/src/x.rs"), text);
        assert_eq!(found, ["two does not say whether it is cancel safe"]);
        assert!(check(Path::new("crates/sendmail-smtp/src/x.rs"), text).is_empty());
    }
}
