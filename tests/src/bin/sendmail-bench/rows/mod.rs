//! The rows of the table: a file for each, and in it the work, whom we are compared with, and the goal.

mod batch;
mod calls;
mod commit;
mod cpu;
mod drain_limit;
mod drain_postfix;
mod drain_repoze;
mod drain_source;
mod drain_zope;
mod enqueue_eight;
mod enqueue_one;
mod far_lettre;
mod far_limit;
mod far_postfix;
mod idle;
mod large;
mod latency;
mod life;
mod million;
mod send_nullmailer;
mod send_postfix;
mod two;

use crate::row::Row;

/// All of them.
pub(crate) fn all() -> Vec<Row> {
    let rows = [
        drain_zope::rows(),
        drain_repoze::rows(),
        drain_postfix::rows(),
        drain_source::rows(),
        drain_limit::rows(),
        cpu::rows(),
        far_lettre::rows(),
        far_limit::rows(),
        far_postfix::rows(),
        enqueue_one::rows(),
        enqueue_eight::rows(),
        batch::rows(),
        send_nullmailer::rows(),
        send_postfix::rows(),
        commit::rows(),
        life::rows(),
        latency::rows(),
        million::rows(),
        idle::rows(),
        large::rows(),
        two::rows(),
        calls::rows(),
    ];
    rows.into_iter().flatten().collect()
}

/// Those that are asked for: by their names or that of their work, or all. A name that is neither is an
/// error that names all.
pub(crate) fn named(names: &[String]) -> Result<Vec<Row>, String> {
    let rows = all();
    let known = |name: &String| rows.iter().any(|row| row.name == name || row.work == name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        let mut all: Vec<&str> = rows.iter().flat_map(|row| [row.work, row.name]).collect();
        all.sort_unstable();
        all.dedup();
        return Err(format!("there is no benchmark {unknown}; there are {}", all.join(", ")));
    }
    let wanted = |row: &Row| {
        names.is_empty() || names.iter().any(|name| row.name == name || row.work == name)
    };
    Ok(rows.into_iter().filter(wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_found_by_its_name_and_by_its_work() {
        let count = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            named(&names).map(|rows| rows.len())
        };
        assert_eq!(count(&["drain-zope"]), Ok(1));
        assert!(count(&["drain"]).is_ok_and(|count| count > 4));
        assert_eq!(count(&[]), Ok(all().len()));
        assert!(count(&["drain", "nothing"]).is_err_and(|error| error.contains("drain-zope")));
    }

    #[test]
    fn no_two_rows_say_the_same() {
        let mut all: Vec<_> = all().iter().map(|row| (row.name, row.metric.name())).collect();
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
