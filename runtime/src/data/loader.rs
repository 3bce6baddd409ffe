//! Batches: their order, and threads that make them ahead of their use.

use super::augment::Augment;
use super::dataset::Normalisation;
use super::images::Images;
use crate::error::Result;
use crate::rng::{Keyed, hash_bytes};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

/// Batches that are ready at any time, at most: this bounds the memory, whatever the data set.
const AHEAD: usize = 4;

/// What an epoch draws from.
#[derive(Clone, Debug)]
pub struct Loader {
    /// The images.
    pub data: Arc<Images>,
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

    fn feed(
        &self,
        epoch: usize,
        first: usize,
        order: &[u32],
        send: &SyncSender<Result<Batch>>,
        used: &Receiver<Batch>,
    ) {
        for chosen in order.chunks(self.batch).skip(first) {
            let mut batch = used.try_recv().unwrap_or_default();
            let filled = self.fill(epoch, chosen, &mut batch).map(|()| batch);
            let failed = filled.is_err();
            if send.send(filled).is_err() || failed {
                return; // nobody wants the rest
            }
        }
    }

    /// All images of a batch at once, on as many threads as there are: files must be decoded.
    fn fill(&self, epoch: usize, chosen: &[u32], batch: &mut Batch) -> Result<()> {
        let len = self.data.shape().iter().product();
        batch.images.resize(chosen.len() * len, 0.0);
        batch.labels.clear();
        batch.labels.extend(chosen.iter().map(|&n| self.data.label(n as usize) as i32));
        let augment = self.augment.as_ref().map(|a| (a, self.seed, epoch));
        let prepare = |(&n, out): (&u32, &mut [f32])| self.data.prepare(n as usize, augment, &self.norm, out);
        match (&*self.data, decoders()) {
            (Images::Folder(_), Some(pool)) => {
                let each = chosen.par_iter().zip(batch.images.par_chunks_exact_mut(len));
                pool.install(|| each.try_for_each(prepare))
            }
            // What is in memory already is not worth other threads.
            _ => chosen.iter().zip(batch.images.chunks_exact_mut(len)).try_for_each(prepare),
        }
    }
}

/// The threads that decode. They are not those of rayon's own pool, on which kernels are compiled: images would wait for them.
fn decoders() -> Option<&'static ThreadPool> {
    static POOL: OnceLock<Option<ThreadPool>> = OnceLock::new();
    POOL.get_or_init(|| ThreadPoolBuilder::new().thread_name(|n| format!("decode-{n}")).build().ok()).as_ref()
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
    batches: Option<Receiver<Result<Batch>>>,
    recycle: Sender<Batch>,
    thread: Option<JoinHandle<()>>,
}

impl Feed {
    /// The next batch; `None` after the last. An image that cannot be read is an error that names its file, and the end.
    pub fn next_batch(&mut self) -> Result<Option<Batch>> {
        self.batches.as_ref().and_then(|b| b.recv().ok()).transpose()
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
    use crate::data::{Dataset, Split};
    use image::{Rgb, RgbImage};

    fn loader(augment: Option<Augment>) -> Loader {
        let data = Dataset {
            pixels: (0..23 * 4).map(|i| i as u8).collect(),
            labels: (0..23).collect(),
            channels: 1,
            rows: 2,
            cols: 2,
        };
        let norm = Normalisation { mean: vec![0.0], std: vec![1.0 / 255.0] };
        Loader { norm, data: Arc::new(Images::Memory(data)), batch: 5, seed: 9, augment }
    }
    fn all(l: &Loader, epoch: usize, first: usize) -> Vec<Batch> {
        let mut feed = l.start(epoch, first);
        let mut out = Vec::new();
        while let Some(b) = feed.next_batch().expect("good images") {
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
        let l = loader(Some(Augment { flip: 0.5, shift: 1, area: None }));
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

    #[test]
    fn files_are_decoded_ahead_and_a_bad_one_is_named() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (class, half) in [("a", "train"), ("b", "train")] {
            let folder = dir.path().join(half).join(class);
            std::fs::create_dir_all(&folder).expect("writable");
            for n in 0..6u8 {
                let value = if class == "a" { n } else { 100 + n };
                RgbImage::from_pixel(9, 7, Rgb([value, 0, 255]))
                    .save(folder.join(format!("{n}.png")))
                    .expect("writable");
            }
        }
        let read = || super::super::Folder::read(dir.path(), Split::Train, (4, 4), 1.0, 2).expect("a good data set");
        let norm = Normalisation { mean: vec![0.0, 0.0, 1.0], std: vec![1.0 / 255.0] };
        let augment = Some(Augment { flip: 0.5, shift: 0, area: Some(0.5) });
        let l = Loader { norm, data: Arc::new(Images::Folder(read())), batch: 5, seed: 1, augment };
        let whole = all(&l, 0, 0);
        assert_eq!(whole.iter().map(|b| b.labels.len()).collect::<Vec<_>>(), [5, 5, 2]);
        assert_eq!(all(&l, 0, 1), whole[1..]);
        for batch in &whole {
            for (image, &label) in batch.images.chunks_exact(48).zip(&batch.labels) {
                assert_eq!(label == 1, image[0] > 50.0);
                assert!(image[16].abs() < 1e-3 && image[47].abs() < 1e-3);
            }
        }
        std::fs::write(dir.path().join("train/b/3.png"), b"\x89PNG").expect("writable");
        let mut feed = l.start(0, 0);
        let failed = std::iter::from_fn(|| feed.next_batch().transpose()).find_map(std::result::Result::err);
        assert!(failed.expect("refused").to_string().contains("train/b/3.png: expected a JPEG or PNG"));
        assert!(feed.next_batch().is_ok_and(|b| b.is_none()));
    }
}
