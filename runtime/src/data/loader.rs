//! Batches: their order, and a thread that makes them ahead of their use.

use super::augment::{Augment, Change, prepare};
use super::dataset::{Dataset, Normalisation};
use crate::rng::{Keyed, hash_bytes};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

/// Images and labels of a few steps are ready at any time.
const AHEAD: usize = 4;

/// What an epoch draws from.
#[derive(Clone, Debug)]
pub struct Loader {
    /// The images.
    pub data: Arc<Dataset>,
    /// How pixels become numbers.
    pub norm: Normalisation,
    /// Images a batch; the last batch of an epoch may have fewer.
    pub batch: usize,
    /// Of the order and of the augmentation.
    pub seed: u64,
    /// For training: a new order each epoch and changed images. `None` takes the images as they are, in their order.
    pub augment: Option<Augment>,
}

/// Some images and their labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// `[size, channels, rows, cols]`, normalised.
    pub images: Vec<f32>,
    /// `[size]`, the classes.
    pub labels: Vec<i32>,
}

impl Loader {
    /// Batches an epoch.
    pub fn batches(&self) -> usize {
        self.data.len().div_ceil(self.batch)
    }
    /// Images of batch `n`.
    pub fn size(&self, n: usize) -> usize {
        self.batch.min(self.data.len() - n * self.batch)
    }
    /// The images of an epoch in their order.
    pub fn order(&self, epoch: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.data.len() as u32).collect();
        if self.augment.is_some() {
            shuffle(&mut order, self.seed, epoch);
        }
        order
    }
    /// Starts to make the batches of an epoch from batch `first` on.
    pub fn start(&self, epoch: usize, first: usize) -> Feed {
        let (loader, order) = (self.clone(), self.order(epoch));
        let (send, batches) = sync_channel(AHEAD);
        let (recycle, used) = channel();
        let thread = std::thread::spawn(move || loader.feed(epoch, first, &order, &send, &used));
        Feed { batches: Some(batches), recycle, thread: Some(thread) }
    }

    fn feed(&self, epoch: usize, first: usize, order: &[u32], send: &SyncSender<Batch>, used: &Receiver<Batch>) {
        for chosen in order.chunks(self.batch).skip(first) {
            let mut batch = used.try_recv().unwrap_or_default();
            self.fill(epoch, chosen, &mut batch);
            if send.send(batch).is_err() {
                return; // nobody wants the rest
            }
        }
    }

    fn fill(&self, epoch: usize, chosen: &[u32], batch: &mut Batch) {
        let len = self.data.image_len();
        batch.images.resize(chosen.len() * len, 0.0);
        batch.labels.clear();
        for (&n, out) in chosen.iter().zip(batch.images.chunks_exact_mut(len)) {
            let n = n as usize;
            let change = self.augment.map_or(Change::default(), |a| a.change(self.seed, epoch, n));
            prepare(&self.data, n, change, self.norm, out);
            batch.labels.push(i32::from(self.data.labels[n]));
        }
    }
}

/// Puts `order` into the order of this epoch (Fisher and Yates).
fn shuffle(order: &mut [u32], seed: u64, epoch: usize) {
    let mut random = Keyed::new(&[seed, hash_bytes(b"order"), epoch as u64]);
    for n in (1..order.len()).rev() {
        order.swap(n, random.below(n as u64 + 1) as usize);
    }
}

/// The batches of an epoch, as they become ready. Dropping it stops the thread behind it.
pub struct Feed {
    batches: Option<Receiver<Batch>>,
    recycle: Sender<Batch>,
    thread: Option<JoinHandle<()>>,
}

impl Feed {
    /// The next batch; `None` after the last.
    pub fn next_batch(&mut self) -> Option<Batch> {
        self.batches.as_ref().and_then(|b| b.recv().ok())
    }
    /// Gives a batch's memory back.
    pub fn give_back(&self, batch: Batch) {
        // The thread has ended if it takes nothing back: then the memory is simply freed.
        let _ = self.recycle.send(batch);
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        drop(self.batches.take()); // wakes a thread that waits to hand a batch over
        if let Some(t) = self.thread.take() {
            let _ = t.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loader(augment: Option<Augment>) -> Loader {
        let data = Dataset {
            pixels: (0..23 * 4).map(|i| i as u8).collect(),
            labels: (0..23).collect(),
            channels: 1,
            rows: 2,
            cols: 2,
        };
        Loader { norm: Normalisation { mean: 0.0, std: 1.0 / 255.0 }, data: Arc::new(data), batch: 5, seed: 9, augment }
    }
    fn all(l: &Loader, epoch: usize, first: usize) -> Vec<Batch> {
        let mut feed = l.start(epoch, first);
        let mut out = Vec::new();
        while let Some(b) = feed.next_batch() {
            out.push(b.clone());
            feed.give_back(b);
        }
        out
    }

    #[test]
    fn evaluation_is_in_order_and_whole() {
        let l = loader(None);
        let batches = all(&l, 0, 0);
        assert_eq!(batches.len(), l.batches());
        assert_eq!(batches.iter().map(|b| b.labels.len()).collect::<Vec<_>>(), [5, 5, 5, 5, 3]);
        assert_eq!(l.size(4), 3);
        let labels: Vec<i32> = batches.iter().flat_map(|b| b.labels.clone()).collect();
        assert_eq!(labels, (0..23).collect::<Vec<_>>());
        assert_eq!(batches[1].images[..2].iter().map(|x| x.round()).collect::<Vec<_>>(), [20.0, 21.0]);
    }

    #[test]
    fn an_epoch_goes_on_from_any_batch() {
        let l = loader(Some(Augment { flip: 0.5, shift: 1 }));
        let whole = all(&l, 3, 0);
        assert_eq!(all(&l, 3, 2), whole[2..]);
        assert_ne!(all(&l, 4, 0), whole);
        let mut labels: Vec<i32> = whole.iter().flat_map(|b| b.labels.clone()).collect();
        assert_ne!(labels, (0..23).collect::<Vec<_>>());
        labels.sort_unstable();
        assert_eq!(labels, (0..23).collect::<Vec<_>>());
    }

    #[test]
    fn dropping_early_ends_the_thread() {
        let l = loader(None);
        let mut feed = l.start(0, 0);
        let _ = feed.next_batch();
        drop(feed);
    }
}
