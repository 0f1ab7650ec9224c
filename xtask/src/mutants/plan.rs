//! What `mutants.toml` says: which files are changed, which tests have to notice, what is explained.

use std::fmt;

use serde::Deserialize;

use crate::shell::{Failure, Result};

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Plan {
    #[serde(rename = "part")]
    parts: Vec<Part>,
    #[serde(default)]
    pub(super) explained: Vec<Explained>,
}

/// Files of one package in one scope.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    pub(super) scope: String,
    pub(super) package: String,
    /// In the package's folder.
    files: Vec<String>,
    #[serde(default)]
    features: Vec<String>,
    /// First the quick ones.
    pub(super) steps: Vec<Step>,
}

/// Tests that have to notice.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    /// Those of this package, and not of the part's own.
    package: Option<String>,
    /// Arguments of `cargo test` that say which are built.
    build: String,
    /// Parts of the names of those that are run; all of them if there is none.
    #[serde(default)]
    only: Vec<String>,
}

/// A mutant that no test can notice, or none needs to.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Explained {
    /// Its name without the position: `FILE: replace … in …`.
    pub(super) mutant: String,
    /// The line of the source in which it begins, without white space around it.
    pub(super) line: String,
    /// Why it makes no difference.
    pub(super) why: String,
}

impl Plan {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let plan: Self =
            toml::from_str(text).map_err(|error| Failure::new(format!("mutants.toml: {error}")))?;
        for explained in &plan.explained {
            if explained.why.trim().is_empty() || explained.why.contains('\n') {
                let message = format!("mutants.toml: {}: say why, in one line", explained.mutant);
                return Err(Failure::new(message));
            }
        }
        if let Some(part) =
            plan.parts.iter().find(|part| part.files.is_empty() || part.steps.is_empty())
        {
            let message =
                format!("mutants.toml: a part of {} has no files or no steps", part.scope);
            return Err(Failure::new(message));
        }
        Ok(plan)
    }

    /// All scopes, in the order of the file.
    pub(super) fn scopes(&self) -> Vec<&str> {
        let mut scopes: Vec<&str> = Vec::new();
        for part in &self.parts {
            if !scopes.contains(&part.scope.as_str()) {
                scopes.push(&part.scope);
            }
        }
        scopes
    }

    /// The scopes that are `named`, or all.
    pub(super) fn choose(&self, named: &[String]) -> Result<Vec<&str>> {
        let known = self.scopes();
        if let Some(unknown) = named.iter().find(|name| !known.contains(&name.as_str())) {
            let message = format!("there is no scope {unknown}; there are: {}", known.join(", "));
            return Err(Failure::new(message));
        }
        let chosen = |scope: &&str| named.is_empty() || named.iter().any(|name| name == scope);
        Ok(known.into_iter().filter(chosen).collect())
    }

    pub(super) fn parts_of(&self, scope: &str) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(move |part| part.scope == scope)
    }
}

impl Part {
    /// The files, in the workspace.
    pub(super) fn files(&self) -> impl Iterator<Item = String> {
        self.files.iter().map(|file| format!("crates/{}/{file}", self.package))
    }

    /// The arguments of cargo-mutants that choose the files.
    pub(super) fn selection(&self) -> Vec<String> {
        let mut words = vec![format!("--package={}", self.package)];
        words
            .extend(self.files.iter().map(|file| format!("--file=crates/{}/{file}", self.package)));
        if !self.features.is_empty() {
            words.push(format!("--features={}", self.features.join(",")));
        }
        words
    }
}

impl Step {
    /// The last arguments of cargo-mutants.
    pub(super) fn arguments(&self) -> Vec<String> {
        let package = self.package.iter().map(|package| format!("--test-package={package}"));
        let build = self.build.split_whitespace().map(|word| format!("--cargo-arg={word}"));
        let mut words: Vec<String> = package.chain(build).collect();
        if !self.only.is_empty() {
            words.extend(["--".to_owned(), "--".to_owned()]);
            words.extend(self.only.iter().cloned());
        }
        words
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(package) = &self.package {
            write!(f, "{package}: ")?;
        }
        write!(f, "{} {}", self.build, self.only.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        [[part]]
        scope = "commit"
        package = "txn"
        files = ["src/a.rs", "src/b/c.rs"]
        features = ["x", "y"]
        steps = [{ build = "--lib" }, { build = "--test it", only = ["x", "y"], package = "tests" }]
        [[part]]
        scope = "fence"
        package = "maildir"
        files = ["src/d.rs"]
        steps = [{ build = "--lib" }]
        [[part]]
        scope = "commit"
        package = "sqlx"
        files = ["src/e.rs"]
        steps = [{ build = "--lib" }]
    "#;

    #[test]
    fn scopes_are_chosen_by_name_and_may_have_several_parts() {
        let plan = Plan::parse(TEXT).unwrap();
        assert_eq!(plan.scopes(), ["commit", "fence"]);
        assert_eq!(plan.choose(&[]).unwrap(), ["commit", "fence"]);
        assert_eq!(plan.choose(&["fence".to_owned()]).unwrap(), ["fence"]);
        let unknown = plan.choose(&["comit".to_owned()]).unwrap_err();
        assert_eq!(unknown.to_string(), "there is no scope comit; there are: commit, fence");
        let parts: Vec<_> = plan.parts_of("commit").map(Part::selection).collect();
        assert_eq!(
            parts[0],
            [
                "--package=txn",
                "--file=crates/txn/src/a.rs",
                "--file=crates/txn/src/b/c.rs",
                "--features=x,y"
            ]
        );
        assert_eq!(parts[1], ["--package=sqlx", "--file=crates/sqlx/src/e.rs"]);
    }

    #[test]
    fn a_step_builds_little_and_may_run_less() {
        let plan = Plan::parse(TEXT).unwrap();
        let [quick, slow] = &*plan.parts_of("commit").next().unwrap().steps else { panic!() };
        assert_eq!(quick.arguments(), ["--cargo-arg=--lib"]);
        let expected =
            ["--test-package=tests", "--cargo-arg=--test", "--cargo-arg=it", "--", "--", "x", "y"];
        assert_eq!(slow.arguments(), expected);
        assert_eq!(slow.to_string(), "tests: --test it x y");
    }

    #[test]
    fn an_explanation_is_one_line_and_a_part_has_files() {
        let explained = |why: &str| {
            format!("{TEXT}\n[[explained]]\nmutant = \"m\"\nline = \"l\"\nwhy = \"{why}\"\n")
        };
        assert!(Plan::parse(&explained("the same")).is_ok());
        for why in ["", " ", "one\\ntwo"] {
            assert!(Plan::parse(&explained(why)).is_err(), "{why:?}");
        }
        assert!(Plan::parse(&TEXT.replace("[\"src/d.rs\"]", "[]")).is_err());
        assert!(Plan::parse(&TEXT.replace("scope", "scop")).is_err());
    }
}
