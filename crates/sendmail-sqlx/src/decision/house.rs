//! Housekeeping: deleting what nobody will ask about any more.

use std::time::Duration;

use sendmail_core::{QueueId, Result};

use super::fence::take;
use super::lease::{Lease, bounded};
use super::speak::Flavour;
use super::store::{CALL, CHUNK, SqlDecisionStore};
use super::text::parse_id;
use super::trouble::Trouble;
use crate::engine::Engine;

/// How many rows a sweep reads at a time.
const PAGE: usize = 1000;

/// How many pages a sweep reads at most, as long as it finds something to remove.
const PAGES: usize = 20;

const FORGET: &str = "forget finished mail";
const REMEMBERED: &str = "look for forgotten markers";
const SWEEP: &str = "remove old tombstones";

impl<DB: Engine> SqlDecisionStore<DB> {
    /// Deletes what waits to be. What is not confirmed waits again.
    pub(crate) async fn flush(&self) -> Result<usize> {
        let work = async {
            let mut lease = take(&self.inner.pool).await?;
            self.delete_forgotten(&mut lease).await
        };
        let work = async { work.await.map_err(|trouble| self.error(FORGET, trouble)) };
        bounded(&*self.inner.clock, CALL, FORGET, work).await
    }

    /// Own mail of which nobody has said that it may be forgotten.
    pub(crate) async fn look_for_remembered(
        &self,
        age: Duration,
        limit: usize,
    ) -> Result<Vec<QueueId>> {
        // They are still in the table, and not to be answered.
        let waiting = self.inner.forgotten.waiting();
        let enough = limit.saturating_add(waiting.len());
        let work = async {
            let mut lease = take(&self.inner.pool).await?;
            let rows = rows(&mut lease, self.inner.text.remembered(age, enough)).await?;
            let ids = rows.iter().map(|row| parse_id(row.first()?));
            ids.collect::<Option<Vec<_>>>().ok_or(MALFORMED)
        };
        let work = async { work.await.map_err(|trouble| self.error(REMEMBERED, trouble)) };
        let found = bounded(&*self.inner.clock, CALL, REMEMBERED, work).await?;
        Ok(found.into_iter().filter(|id| !waiting.contains(id)).take(limit).collect())
    }

    /// Deletes what waits to be, and some tombstones and transaction markers that have had their time.
    pub(crate) async fn keep_house(&self) -> Result<usize> {
        let now = self.inner.clock.now();
        if !self.inner.forgotten.may_write(now) {
            return Ok(0);
        }
        let forgotten_is_due = DB::FLAVOUR != Flavour::Sqlite || self.inner.forgotten.is_due(now);
        let work = async {
            let mut lease = take(&self.inner.pool).await?;
            self.inner.forgotten.wrote(now);
            let mut removed =
                if forgotten_is_due { self.delete_forgotten(&mut lease).await? } else { 0 };
            // On SQLite a writer should be kept waiting neither often nor long.
            let pages = if DB::FLAVOUR == Flavour::Sqlite { 1 } else { PAGES };
            for _ in 0..pages {
                match self.delete_page(&mut lease).await? {
                    0 => break,
                    deleted => removed += deleted,
                }
            }
            Ok(removed)
        };
        let work = async { work.await.map_err(|trouble| self.error(SWEEP, trouble)) };
        bounded(&*self.inner.clock, CALL.saturating_mul(6), SWEEP, work).await
    }

    async fn delete_forgotten(&self, lease: &mut Lease<DB>) -> Result<usize, Trouble> {
        let forgotten = &self.inner.forgotten;
        forgotten.wrote(self.inner.clock.now());
        let mut removed = 0;
        loop {
            let taken = forgotten.take(CHUNK);
            if taken.ids().is_empty() {
                return Ok(removed);
            }
            removed += run(lease, self.inner.text.forget(taken.ids())).await?;
            taken.deleted();
        }
    }

    /// Goes on where the last one ended, in the order of the keys, which is that of time: however many
    /// rows there are, it reads a thousand.
    async fn delete_page(&self, lease: &mut Lease<DB>) -> Result<usize, Trouble> {
        let (text, forgotten) = (&self.inner.text, &self.inner.forgotten);
        let page = rows(lease, text.page(forgotten.cursor(), PAGE)).await?;
        let mut old = Vec::new();
        let mut last = None;
        for row in &page {
            let [id, had_its_time] = row.as_slice() else { return Err(MALFORMED) };
            let id = parse_id(id).ok_or(MALFORMED)?;
            last = Some(id);
            if had_its_time == "1" {
                old.push(id);
            }
        }
        let mut removed = 0;
        for chunk in old.chunks(CHUNK) {
            removed += run(lease, text.bury(chunk)).await?;
        }
        // A page that is not full was the last: the next sweep begins anew.
        forgotten.set_cursor(last.filter(|_| page.len() == PAGE));
        Ok(removed)
    }
}

const MALFORMED: Trouble = Trouble::Odd("a row of sendmail_marker is malformed");

async fn run<DB: Engine>(lease: &mut Lease<DB>, text: String) -> Result<usize, Trouble> {
    lease.in_order(false);
    let changed = DB::tell(lease, text).await.map_err(|error| Trouble::of(DB::FLAVOUR, error))?;
    lease.in_order(true);
    Ok(usize::try_from(changed).unwrap_or(usize::MAX))
}

async fn rows<DB: Engine>(
    lease: &mut Lease<DB>,
    text: String,
) -> Result<Vec<Vec<String>>, Trouble> {
    lease.in_order(false);
    let rows = DB::answer(lease, text).await.map_err(|error| Trouble::of(DB::FLAVOUR, error))?;
    lease.in_order(true);
    Ok(rows)
}
