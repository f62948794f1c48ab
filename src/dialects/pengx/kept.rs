//! A document that is rendered once for all who ask, for as long as what it shows stays the same.
//!
//! Law: nobody gets a document of what was so before they asked and is not any more. It fits whoever finds that its edition
//! still stands, and whoever asked before what it shows was read: that is how a crowd that waits for one rendering takes it,
//! though the edition may have moved on meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::Mutex;

/// One document. It must be the same for all who may ask for it: nothing of the caller's, and no secret.
pub(super) struct Kept<E> {
    tickets: AtomicU64,
    current: Mutex<Option<Document<E>>>,
}

/// Taken when a request comes, before anything is read for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

struct Document<E> {
    ticket: Ticket,
    edition: E,
    body: Bytes,
}

impl<E> Default for Kept<E> {
    fn default() -> Self {
        Self { tickets: AtomicU64::new(0), current: Mutex::new(None) }
    }
}

impl<E: PartialEq> Kept<E> {
    pub(super) fn ticket(&self) -> Ticket {
        Ticket(self.tickets.fetch_add(1, Ordering::SeqCst))
    }

    /// `edition` was read under `ticket`. One caller renders at a time, and those who wait take what they can of its work.
    pub(super) async fn get<X>(
        &self,
        ticket: Ticket,
        edition: E,
        render: impl FnOnce() -> Result<Bytes, X>,
    ) -> Result<Bytes, X> {
        let mut current = self.current.lock().await;
        if let Some(document) = current.as_ref()
            && (document.edition == edition || document.ticket > ticket)
        {
            return Ok(document.body.clone());
        }
        let body = render()?;
        *current = Some(Document { ticket, edition, body: body.clone() });
        Ok(body)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;

    use super::*;

    #[tokio::test]
    async fn it_is_rendered_again_only_for_who_must_see_something_newer() {
        let kept = Kept::default();
        let rendered = Cell::new(0);
        let get = |ticket, edition: &'static str| {
            let render = || {
                rendered.set(rendered.get() + 1);
                Ok::<_, Infallible>(Bytes::from_static(edition.as_bytes()))
            };
            kept.get(ticket, edition, render)
        };
        let (first, second, third) = (kept.ticket(), kept.ticket(), kept.ticket());
        assert_eq!(get(second, "a").await.unwrap(), "a");
        assert_eq!(get(third, "a").await.unwrap(), "a");
        assert_eq!(rendered.get(), 1, "its edition still stands");
        assert_eq!(get(first, "before a").await.unwrap(), "a");
        assert_eq!(rendered.get(), 1, "what it shows was read after the first had asked");
        assert_eq!(get(third, "b").await.unwrap(), "b");
        assert_eq!(rendered.get(), 2);
        assert_eq!(get(kept.ticket(), "a").await.unwrap(), "a", "another edition, not an older one");
        assert_eq!(rendered.get(), 3);
    }

    #[tokio::test]
    async fn what_failed_is_not_kept() {
        let kept = Kept::default();
        assert_eq!(kept.get(kept.ticket(), 1, || Err("no")).await, Err("no"));
        let body = Bytes::from_static(b"yes");
        assert_eq!(kept.get(kept.ticket(), 1, || Ok::<_, &str>(body.clone())).await, Ok(body.clone()));
    }
}
