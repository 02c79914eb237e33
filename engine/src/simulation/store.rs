//! The simulated store: the whole contract over the model of a disk, with commits that take their time, fail, and are
//! cut by a crash.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;

use super::{disk::Disk, world::World};
use crate::journal::{
    Aged, Arrival, Audit, Count, DeliveryId, DeliveryRecord, Filter, Page, Pending, Predecessors, Query,
    Sequence, Stats, Summary,
    store::{Change, Committed, Prune, Pruned, Store, StoreError, Stored, StoredDelivery},
};

pub struct SimulatedStore {
    disk: Arc<Mutex<Disk>>,
    /// None: nothing ever goes wrong, for the conformance suite.
    world: Option<Arc<World>>,
}

impl SimulatedStore {
    pub fn new(world: Arc<World>) -> Self {
        Self { disk: world.disk.clone(), world: Some(world) }
    }

    async fn read<T>(&self, what: String, read: impl Fn(&Disk) -> T) -> Result<T, StoreError> {
        if let Some(world) = &self.world {
            world.turn(format!("read {what}")).await;
            if world.fails(&format!("reading {what}"), 4) {
                world.tell(format!("reading {what} fails"));
                return Err(StoreError::new("a read that fails on purpose"));
            }
        }
        Ok(read(&self.disk.lock()))
    }
}

/// After a crash: the batch whose transaction had begun is there, or is not.
pub fn recover(world: &World) {
    let mut disk = world.disk.lock();
    let Some(batch) = disk.in_hand.take() else { return };
    let there = world.dice("recovery").in_thousand(500);
    world.tell(format!(
        "of a commit under way {} changes are {}",
        batch.len(),
        if there { "there" } else { "gone" }
    ));
    if there {
        apply(world, &mut disk, batch);
    }
}

fn apply(world: &World, disk: &mut Disk, batch: Vec<Change>) -> Vec<Committed> {
    let gap = if world.dice("gap").in_thousand(50) { 7 } else { 0 };
    world.before_commit(disk, &batch);
    let committed = disk.apply(batch, gap);
    world.after_commit(disk, &committed);
    committed
}

#[async_trait]
impl Store for SimulatedStore {
    async fn commit(&self, batch: Vec<Change>) -> Result<Vec<Committed>, StoreError> {
        let Some(world) = &self.world else { return Ok(self.disk.lock().apply(batch, 0)) };
        self.disk.lock().in_hand = Some(batch);
        world.turn("commit".to_owned()).await;
        if world.fails("commit", 4) {
            world.tell("the commit fails");
            return Err(StoreError::new("a sync that fails on purpose"));
        }
        let committed = {
            let mut disk = self.disk.lock();
            let batch = disk.in_hand.take().unwrap_or_default();
            apply(world, &mut disk, batch)
        };
        world.turn("answer the commit".to_owned()).await;
        Ok(committed)
    }

    async fn maintain(&self) -> Result<(), StoreError> {
        match &self.world {
            Some(world) if world.fails("maintain", 1) => {
                world.tell("the upkeep of the store fails");
                Err(StoreError::new("a checkpoint that fails on purpose"))
            }
            _ => Ok(()),
        }
    }

    async fn prune(&self, prune: Prune) -> Result<Pruned, StoreError> {
        Ok(self.disk.lock().prune(&prune))
    }

    async fn reclaim(&self) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn close(&self) {}

    async fn last(&self) -> Result<Sequence, StoreError> {
        Ok(self.disk.lock().last)
    }

    async fn pending(&self, to: &str, after: Sequence, limit: usize) -> Result<Vec<Pending>, StoreError> {
        self.read(format!("what {to} is owed"), |disk| disk.pending(to, after, limit)).await
    }

    async fn messages(&self, sequences: &[Sequence], most_bytes: usize) -> Result<Vec<Stored>, StoreError> {
        let first = sequences.first().map_or(0, |sequence| sequence.0);
        self.read(format!("messages from {first}"), |disk| disk.messages(sequences, most_bytes)).await
    }

    async fn outputs(&self, ids: &[DeliveryId]) -> Result<Vec<StoredDelivery>, StoreError> {
        let to = ids.first().map_or("nobody", |id| id.destination.as_str());
        self.read(format!("outputs for {to}"), |disk| disk.outputs(ids)).await
    }

    async fn summary(&self, sequence: Sequence) -> Result<Option<Summary>, StoreError> {
        Ok(self.disk.lock().messages.get(&sequence).map(|message| message.summary.clone()))
    }

    async fn search(&self, query: &Query<'_>, before: Sequence, limit: usize) -> Result<Page, StoreError> {
        Ok(self.disk.lock().search(query, before, limit))
    }

    async fn arrivals(&self, before: Sequence, limit: usize) -> Result<Vec<Arrival>, StoreError> {
        Ok(self.disk.lock().arrivals(before, limit))
    }

    async fn earlier(
        &self,
        arrival: &Arrival,
        since: Timestamp,
        before: Sequence,
    ) -> Result<Predecessors, StoreError> {
        self.read("what came before".to_owned(), |disk| disk.earlier(arrival, since, before)).await
    }

    async fn deliveries(&self, sequence: Sequence) -> Result<Vec<DeliveryRecord>, StoreError> {
        Ok(self.disk.lock().of_message(sequence))
    }

    async fn select(
        &self,
        filter: &Filter,
        after: Sequence,
        limit: usize,
    ) -> Result<Vec<DeliveryRecord>, StoreError> {
        self.read("a selection".to_owned(), |disk| disk.select(filter, after, limit)).await
    }

    async fn quarantine(&self, after: Sequence, limit: usize) -> Result<Vec<Summary>, StoreError> {
        Ok(self.disk.lock().quarantine(after, limit))
    }

    async fn audit(&self, limit: usize) -> Result<Vec<Audit>, StoreError> {
        Ok(self.disk.lock().audit.iter().rev().take(limit).cloned().collect())
    }

    async fn counts(&self) -> Result<Vec<Count>, StoreError> {
        Ok(self.disk.lock().counts())
    }

    async fn aged(&self, after: Sequence, with_body: bool, limit: usize) -> Result<Vec<Aged>, StoreError> {
        Ok(self.disk.lock().aged(after, with_body, limit))
    }

    async fn removed(&self, sequences: &[Sequence]) -> Result<Vec<Sequence>, StoreError> {
        Ok(self.disk.lock().removed(sequences))
    }

    async fn note(&self, name: &str) -> Result<Option<String>, StoreError> {
        Ok(self.disk.lock().notes.get(name).cloned())
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        Ok(self.disk.lock().stats())
    }
}

mod conformance {
    use std::sync::Arc;

    use async_trait::async_trait;
    use parking_lot::Mutex;

    use super::{Disk, SimulatedStore};
    use crate::journal::{
        Sequence,
        conformance::{Home, conforms},
        store::Store,
    };

    /// A disk that is opened again and again.
    #[derive(Default)]
    struct Kept(Arc<Mutex<Disk>>);

    #[async_trait]
    impl Home for Kept {
        async fn open(&self) -> Arc<dyn Store> {
            Arc::new(SimulatedStore { disk: self.0.clone(), world: None })
        }

        async fn damage(&self, sequence: Sequence) {
            let mut disk = self.0.lock();
            let packed = &mut disk.messages.get_mut(&sequence).unwrap().body.as_mut().unwrap().packed;
            let middle = packed.len() / 2;
            packed[middle] ^= 1;
        }
    }

    conforms!(Kept::default());
}
