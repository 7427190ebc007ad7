//! How many uploads run at once. Who has more of them waits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Clients whose uploads are counted apart, at most. One that has no upload under way is forgotten
/// when the table is full.
const MAX_CLIENTS: usize = 10_000;

/// Leave to upload: so many in all, and so many for each client.
pub struct UploadSlots {
    all: Arc<Semaphore>,
    per_client: usize,
    clients: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// Leave for one upload.
pub(super) struct Slot {
    _of_all: OwnedSemaphorePermit,
    _of_client: OwnedSemaphorePermit,
}

impl UploadSlots {
    /// So many uploads in all, and so many for each client.
    pub fn new(all: usize, per_client: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), per_client, clients: Mutex::default() }
    }

    /// Waits for leave. Nothing is read of a body meanwhile, so the client waits too, and its patience
    /// is not ours to measure.
    pub(super) async fn take(&self, client: &str) -> Option<Slot> {
        // A client waits among its own before it waits among all, so that it takes no one's place.
        let of_client = self.client(client).acquire_owned().await.ok()?;
        let of_all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Slot { _of_all: of_all, _of_client: of_client })
    }

    fn client(&self, client: &str) -> Arc<Semaphore> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= MAX_CLIENTS {
            clients.retain(|_, slots| Arc::strong_count(slots) > 1);
        }
        let slots = clients.entry(client.to_owned());
        Arc::clone(slots.or_insert_with(|| Arc::new(Semaphore::new(self.per_client))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_client_waits_among_its_own_and_leaves_room_for_others() {
        let slots = UploadSlots::new(3, 2);
        let first = slots.take("a").await.unwrap();
        let _second = slots.take("a").await.unwrap();
        let mut third = std::pin::pin!(slots.take("a"));
        assert!(futures_ready(&mut third).await.is_none());
        let _other = slots.take("b").await.unwrap();
        drop(first);
        assert!(third.await.is_some());
    }

    /// What a future has after being polled once.
    async fn futures_ready<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
        tokio::select! {
            biased;
            value = future => Some(value),
            () = std::future::ready(()) => None,
        }
    }
}
