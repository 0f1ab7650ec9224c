//! Transactions whose end is told honestly.
//!
//! | file | what it has |
//! |---|---|
//! | `mail` | [`MailTransaction`]: beginning, using and leaving it |
//! | `ending` | what happens once it is to commit, and [`InDoubt`] |
//! | `manager` | [`SqlDataManager`]: the same in a transaction with several data managers |

mod ending;
mod mail;
mod manager;

pub use ending::{Commit, InDoubt};
pub use mail::MailTransaction;
pub use manager::SqlDataManager;
