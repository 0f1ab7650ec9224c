//! Libraries deny what could panic: each says so itself at its root, and all say the same.
//!
//! The workspace's own lints would meet tests as well, which fail by panicking.

use std::path::{Component, Path};

/// What a library denies outside its tests, and, lest that be allowed without a reason, reasons.
const DENIED: [&str; 10] = [
    "allow_attributes_without_reason",
    "expect_used",
    "get_unwrap",
    "indexing_slicing",
    "panic",
    "string_slice",
    "todo",
    "unreachable",
    "unwrap_in_result",
    "unwrap_used",
];

/// A library of tests, which fail by panicking.
const EXEMPT: &str = "sendmail-testkit";

/// What is wrong with one file, which is named relative to the workspace.
pub(crate) fn check(name: &Path, text: &str) -> Option<String> {
    if !is_root(name) || without_spaces(text).contains(&attribute()) {
        return None;
    }
    Some(format!("denies not exactly what may panic; at its root has to stand {}", attribute()))
}

/// Whether it is the root of a library, or of a program, of ours.
fn is_root(name: &Path) -> bool {
    let parts: Vec<&str> = name
        .components()
        .filter_map(|part| match part {
            Component::Normal(part) => part.to_str(),
            _ => None,
        })
        .collect();
    matches!(parts[..], ["crates", member, "src", "lib.rs" | "main.rs"] if member != EXEMPT)
}

fn attribute() -> String {
    let lints: Vec<String> = DENIED.iter().map(|lint| format!("clippy::{lint}")).collect();
    format!("#![cfg_attr(not(test),deny({}))]", lints.join(","))
}

fn without_spaces(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_library_denies_panics() {
        let good = format!("//! A library.\n\n{}\n", attribute().replace(',', ",\n    "));
        let weaker = good.replace("clippy::panic,", "");
        let allowed = good.replace("deny", "allow");
        for root in ["crates/sendmail-core/src/lib.rs", "crates/sendmail-cli/src/main.rs"] {
            assert_eq!(check(Path::new(root), &good), None);
            for bad in ["//! A library.\n", &weaker, &allowed] {
                assert!(check(Path::new(root), bad).is_some(), "{bad}");
            }
        }
        for other in [
            "crates/sendmail-testkit/src/lib.rs",
            "crates/sendmail-core/src/message.rs",
            "crates/sendmail-core/tests/it/main.rs",
            "xtask/src/main.rs",
        ] {
            assert_eq!(check(Path::new(other), "//! Else.\n"), None, "{other}");
        }
    }
}
