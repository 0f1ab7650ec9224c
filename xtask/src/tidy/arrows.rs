//! Which crate of the workspace may depend on which: arrows point to the core, and layers do not know
//! each other.

use serde_json::Value;

use crate::shell::{Failure, Result};

/// A member of the workspace and its dependencies on other members.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Member {
    name: String,
    arrows: Vec<Arrow>,
}

#[derive(Debug, PartialEq, Eq)]
struct Arrow {
    to: String,
    /// Whether it is for tests and examples only.
    dev: bool,
}

const CORE: &str = "sendmail-core";
const CLOCK: &str = "sendmail-clock";
const TESTKIT: &str = "sendmail-testkit";
/// The sources of a layer, for a schedule explorer.
const SCHEDULES: &str = "sendmail-schedules";

/// Each is written against the core's traits, and knows nothing of the others.
const LAYERS: [&str; 6] = [
    "sendmail-maildir",
    "sendmail-smtp",
    "sendmail-txn",
    "sendmail-processor",
    "sendmail-program",
    "sendmail-sqlx",
];

/// Where layers are put together.
const COMPOSERS: [&str; 3] = ["sendmail-cli", "sendmail-examples", "sendmail-tests"];

/// Reads what `cargo metadata --no-deps` says.
pub(crate) fn read(metadata: &Value) -> Result<Vec<Member>> {
    let unreadable = || Failure::new("cargo metadata has no list of packages");
    let packages = metadata["packages"].as_array().ok_or_else(unreadable)?;
    let names: Vec<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let arrow = |dependency: &Value| {
        let to = dependency["name"].as_str().filter(|name| names.contains(name))?;
        Some(Arrow { to: to.to_owned(), dev: dependency["kind"].as_str() == Some("dev") })
    };
    let member = |package: &Value| {
        let dependencies = package["dependencies"].as_array()?;
        let name = package["name"].as_str()?.to_owned();
        Some(Member { name, arrows: dependencies.iter().filter_map(arrow).collect() })
    };
    packages.iter().map(|package| member(package).ok_or_else(unreadable)).collect()
}

/// What is wrong with the arrows.
pub(crate) fn check(members: &[Member]) -> Vec<String> {
    let mut problems = Vec::new();
    for member in members {
        for arrow in &member.arrows {
            match allowed(&member.name, arrow) {
                Some(true) => {}
                Some(false) => problems.push(format!(
                    "{} must not depend on {}{}",
                    member.name,
                    arrow.to,
                    if arrow.dev { ", not even for tests" } else { "" }
                )),
                None => problems.push(format!(
                    "{} is not known to tidy: add it to the layers or to the composers",
                    member.name
                )),
            }
        }
    }
    problems.dedup();
    problems
}

/// Whether the arrow may be; nothing if its crate is not known.
fn allowed(from: &str, arrow: &Arrow) -> Option<bool> {
    let to = arrow.to.as_str();
    let base = [CORE, CLOCK].contains(&to);
    match from {
        CORE | "xtask" => Some(false),
        CLOCK => Some(to == CORE),
        TESTKIT | SCHEDULES => Some(base),
        _ if COMPOSERS.contains(&from) => Some(true),
        _ if LAYERS.contains(&from) => Some(base || (to == TESTKIT && arrow.dev)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check_arrow(from: &str, to: &str, dev: bool, problem: Option<&str>) {
        let arrows = vec![Arrow { to: to.to_owned(), dev }];
        let problems = check(&[Member { name: from.to_owned(), arrows }]);
        assert_eq!(problems.first().map(String::as_str), problem);
    }

    #[test]
    fn arrows_point_to_the_core() {
        check_arrow("sendmail-txn", "sendmail-core", false, None);
        check_arrow("sendmail-maildir", "sendmail-clock", false, None);
        check_arrow("sendmail-clock", "sendmail-core", false, None);
        check_arrow("sendmail-testkit", "sendmail-clock", false, None);
        check_arrow("sendmail-cli", "sendmail-testkit", false, None);
        check_arrow("sendmail-tests", "sendmail-maildir", true, None);
        let problem = "sendmail-core must not depend on sendmail-clock";
        check_arrow("sendmail-core", "sendmail-clock", false, Some(problem));
        let problem = "sendmail-clock must not depend on sendmail-testkit, not even for tests";
        check_arrow("sendmail-clock", "sendmail-testkit", true, Some(problem));
    }

    #[test]
    fn layers_do_not_know_each_other() {
        let problem = "sendmail-txn must not depend on sendmail-maildir";
        check_arrow("sendmail-txn", "sendmail-maildir", false, Some(problem));
        let problem = "sendmail-processor must not depend on sendmail-smtp, not even for tests";
        check_arrow("sendmail-processor", "sendmail-smtp", true, Some(problem));
        let problem = "sendmail-testkit must not depend on sendmail-txn";
        check_arrow("sendmail-testkit", "sendmail-txn", false, Some(problem));
        check_arrow("sendmail-txn", "sendmail-testkit", true, None);
        let problem = "sendmail-txn must not depend on sendmail-testkit";
        check_arrow("sendmail-txn", "sendmail-testkit", false, Some(problem));
    }

    #[test]
    fn a_new_crate_has_to_be_placed() {
        let problem = "sendmail-new is not known to tidy: add it to the layers or to the composers";
        check_arrow("sendmail-new", "sendmail-core", false, Some(problem));
    }

    #[test]
    fn metadata_is_read_with_the_kinds_of_dependencies() {
        let metadata = json!({ "packages": [
            { "name": "sendmail-core", "dependencies": [{ "name": "uuid", "kind": null }] },
            { "name": "sendmail-txn", "dependencies": [
                { "name": "sendmail-core", "kind": null },
                { "name": "sendmail-core", "kind": "dev" },
            ] },
        ] });
        let members = read(&metadata).unwrap();
        assert_eq!(members[0].arrows, []);
        let kinds: Vec<bool> = members[1].arrows.iter().map(|arrow| arrow.dev).collect();
        assert_eq!(kinds, [false, true]);
        assert!(read(&json!({})).is_err());
    }
}
