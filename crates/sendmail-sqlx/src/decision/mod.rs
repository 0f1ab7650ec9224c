//! Who decides: asking a database what became of a transaction, and settling it.
//!
//! | file | what it has |
//! |---|---|
//! | `store` | [`SqlDecisionStore`], and the time-outs around all it does |
//! | `fence` | the steps of a fence, on a server and in a file |
//! | `house`, `forgotten` | deleting rows, when and how many |
//! | `text`, `codes`, `facts` | pure: the SQL, what error codes mean, what a database says of itself |
//! | `speak`, `lease`, `trouble` | the driver: texts, connections, errors |

mod codes;
mod facts;
mod fence;
mod forgotten;
#[cfg(fuzzing)]
pub(crate) mod fuzz;
mod house;
mod lease;
mod speak;
mod store;
mod text;
mod trouble;

pub(crate) use lease::{Lease, bounded};
pub(crate) use speak::Speak;
pub(crate) use store::CALL;
pub use store::SqlDecisionStore;
