//! The training loop.

use super::evaluate::{Evaluation, evaluate, timed};
use super::metrics::{EpochRecord, Log, Record, Running, StepRecord};
use super::model::{Model, read_arena, write_arena};
use super::optimizer::Optimizer;
use super::previous::set_aside;
use super::progress::{Progress, duration};
use super::settings::Settings;
use super::{Outcome, TrainOptions, tuning};
use crate::checkpoint::{self, Checkpoint, Fit, State, Tensors, VERSION};
use crate::data::{Images, Loader};
use crate::device::Device;
use crate::driver::Source;
use crate::error::{Error, Result};
use crate::report;
use crate::tune::Tuning;
use foveate_compiler::schedule::variants::Choices;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Trains a recipe of a spec. See [`TrainOptions`].
///
/// An interrupt (Ctrl-C) ends the step under way, saves a checkpoint and returns with `interrupted`.
pub fn train(options: &TrainOptions) -> Result<Outcome> {
    let begin = Instant::now();
    let source = Source::load(&options.spec)?;
    let settings = Settings::resolve(&source, &options.spec, options.recipe.as_deref(), &options.settings)?;
    let device = Device::open(&options.device)?;
    let resumed = if options.resume { find_checkpoint(options, &source, &settings)? } else { None };
    make_writable(&options.out)?;

    // What is given is looked at before time goes into compiling.
    let init = match (&resumed, &options.init) {
        (None, Some((path, fit))) => Some((checkpoint::read_model(path)?, fit)),
        _ => None,
    };
    let directory = options.data.as_ref().unwrap_or(&settings.data.path);
    let (train_data, test_data) = settings.data.layout.read_both(directory)?;
    let (choices, tuning) = choose(options, &source, &settings, &device, resumed.as_ref().map(|(_, c)| &c.state))?;
    let mut model = Model::for_training(&source, &settings, &device, options.memory, &choices)?;
    let decay = model.decay_mask();
    let params = model.param_arena;
    let grads = model.grad_arena().ok_or_else(|| Error::Device("the model has no memory for gradients".to_owned()))?;
    let optimizer = Optimizer::new(&source, &settings.optimizer, &mut model.memory, params, grads, decay, &choices)?;

    let loader = |data: Images, augment| Loader {
        data: Arc::new(data),
        norm: settings.data.normalisation.clone(),
        batch: settings.batch,
        seed: settings.seed,
        augment,
    };
    let train_loader = loader(train_data, Some(settings.augment));
    let test_loader = loader(test_data, None);

    if let Some(((file, tensors), fit)) = init {
        let fitted = model.load(&file, tensors, fit)?;
        if !options.quiet {
            fitted.describe(&file).iter().for_each(|line| eprintln!("{line}"));
        }
    }

    // Nothing in the directory is touched before all is known to be well.
    let aside = if resumed.is_none() { set_aside(&options.out)? } else { None };
    if let Some(to) = aside.filter(|_| !options.quiet) {
        eprintln!("{} held a run, which is in {} now", options.out.display(), to.display());
    }
    let mut trainer = Trainer {
        options,
        settings: &settings,
        state: State {
            version: VERSION,
            recipe: settings.recipe.clone(),
            settings: settings.to_json(),
            spec_hash: source.hash(),
            seed: settings.seed,
            epoch: 0,
            step: 0,
            step_in_epoch: 0,
            running: serde_json::Value::Null,
            history: Vec::new(),
            choices: choices.clone(),
        },
        log: Log::open(&options.out.join("metrics.jsonl"), resumed.as_ref().map(|(_, c)| c.state.step))?,
        model,
        optimizer,
        running: Running::default(),
        seconds: 0.0,
        saved: None,
        tuning,
    };
    if let Some((path, checkpoint)) = resumed {
        trainer.restore(&path, checkpoint)?;
    }
    trainer.run(&train_loader, &test_loader, begin)
}

/// The state of a run.
struct Trainer<'a> {
    options: &'a TrainOptions,
    settings: &'a Settings,
    model: Model<'a>,
    optimizer: Optimizer,
    state: State,
    log: Log,
    running: Running,
    /// Seconds of training before this run.
    seconds: f64,
    saved: Option<PathBuf>,
    tuning: Option<Tuning>,
}

impl Trainer<'_> {
    fn run(&mut self, train: &Loader, test: &Loader, begin: Instant) -> Result<Outcome> {
        let per_epoch = train.batches();
        let total = (self.settings.epochs * per_epoch) as u64;
        let stop = self.options.max_steps.unwrap_or(u64::MAX).min(total);
        let progress = Progress::new(self.settings.epochs, total, self.state.step, self.options.quiet);
        let interrupt = Interrupt::new()?;
        progress.say(&self.headline(train, test));
        if let Some(saving) = &self.model.saving {
            progress.say(&format!("memory: {saving}"));
        }
        let first_step = self.state.step;
        let mut first_step_seconds = None;
        let clock = Instant::now();
        let mut evaluation: Option<Evaluation> = None;
        let mut warned = false;
        let mut stopped = false;

        let mut next = None;
        while self.state.epoch < self.settings.epochs && !stopped {
            if self.state.step >= stop {
                break;
            }
            let mut feed = next.take().unwrap_or_else(|| train.start(self.state.epoch, self.state.step_in_epoch));
            let mut lap = Instant::now();
            while let Some(batch) = timed(&mut self.running.waited, || feed.next_batch())? {
                let lr = self.settings.lr.at(self.state.step, per_epoch, total);
                let weights: Vec<f64> =
                    (self.settings.weights.iter()).map(|(_, w)| w.at(self.state.step, per_epoch, total)).collect();
                let result = self.model.step(&batch, self.state.step, &weights)?;
                let update = self.optimizer.update(&mut self.model.memory, self.state.step + 1, lr)?;
                self.state.step += 1;
                self.state.step_in_epoch += 1;
                let images = batch.labels.len();
                feed.give_back(batch);
                if !warned && !result.left_out.is_empty() {
                    warned = true;
                    progress.say(&format!(
                        "step {}: the loss {} is not finite; such steps are trained without it",
                        self.state.step,
                        result.left_out.join(", ")
                    ));
                }
                self.running.add(images, result.right, result.loss, lap.elapsed().as_secs_f64());
                lap = Instant::now();
                first_step_seconds.get_or_insert_with(|| begin.elapsed().as_secs_f64());
                self.log.add(Record::Step(StepRecord {
                    step: self.state.step,
                    epoch: self.state.epoch,
                    lr,
                    loss: result.loss,
                    losses: result.losses.into_iter().map(|(n, l)| (n, l.is_finite().then_some(l))).collect(),
                    accuracy: result.right as f64 / images as f64,
                    grad_norm: update.grad_norm,
                }))?;
                progress.step(self.state.epoch, self.state.step, &self.running, clock.elapsed().as_secs_f64());
                if interrupt.asked() || (self.state.step >= stop && self.state.step_in_epoch < per_epoch) {
                    stopped = true;
                    break;
                }
            }
            if stopped {
                break;
            }
            // The next epoch's first images are made ready in the meantime.
            next = (self.state.epoch + 1 < self.settings.epochs).then(|| train.start(self.state.epoch + 1, 0));
            let e = evaluate(&mut self.model, test)?;
            let record = EpochRecord {
                epoch: self.state.epoch + 1,
                step: self.state.step,
                loss: self.running.mean_loss(),
                accuracy: self.running.accuracy(),
                test_loss: e.loss,
                test_accuracy: e.accuracy,
                images_per_second: self.running.rate(),
                waiting: self.running.waiting(),
                seconds: self.seconds + clock.elapsed().as_secs_f64(),
            };
            progress.epoch(&record);
            self.log.add(Record::Epoch(record))?;
            evaluation = Some(e);
            self.state.epoch += 1;
            self.state.step_in_epoch = 0;
            self.running = Running::default();
            self.save()?;
            stopped = interrupt.asked();
        }

        progress.finish();
        let interrupted = interrupt.asked() && self.state.epoch < self.settings.epochs;
        if self.state.step_in_epoch > 0 || self.saved.is_none() {
            self.save()?;
        }
        if interrupted {
            let saved = self.saved.as_ref().map_or(String::new(), |p| p.display().to_string());
            progress.say(&format!("interrupted after step {}: saved {saved}; go on with --resume", self.state.step));
        }
        let finished = self.state.epoch >= self.settings.epochs;
        if finished && evaluation.is_none() {
            evaluation = Some(evaluate(&mut self.model, test)?);
        }
        let weights = self.options.out.join("model.safetensors");
        if finished {
            self.model.tensors()?.write(&weights)?;
        }
        let seconds = self.seconds + clock.elapsed().as_secs_f64();
        let report = self.options.out.join("report.html");
        if let Some(evaluation) = &evaluation {
            let content = report::Content {
                recipe: &self.settings.recipe,
                settings: &self.settings.to_json(),
                device: self.model.memory.device().name(),
                parameters: self.model.parameter_count(),
                tensors: self.model.params.entries.len(),
                kernels: self.model.kernels,
                memory_bytes: self.model.memory.bytes(),
                scratch_bytes: self.model.scratch_bytes,
                seconds,
                log: &self.log,
                evaluation,
                test: &test.data,
            };
            report::write(&report, &content)?;
        }
        Ok(Outcome {
            report: evaluation.is_some().then_some(report),
            weights: finished.then_some(weights),
            checkpoint: self.saved.clone(),
            steps: self.state.step,
            epochs: self.state.epoch,
            steps_now: self.state.step - first_step,
            test_accuracy: evaluation.as_ref().map(|e| e.accuracy),
            test_loss: evaluation.as_ref().map(|e| e.loss),
            parameters: self.model.parameter_count(),
            seconds,
            first_step_seconds: first_step_seconds.unwrap_or(0.0),
            interrupted,
            tuning: self.tuning.clone(),
        })
    }

    fn headline(&self, train: &Loader, test: &Loader) -> String {
        format!(
            "recipe {} on {}: {} parameters, {} training and {} test images, {} epochs of {} steps; {} kernels, {} launches a step, {:.1} MiB{}",
            self.settings.recipe,
            self.model.memory.device().name(),
            self.model.parameter_count(),
            train.data.len(),
            test.data.len(),
            self.settings.epochs,
            train.batches(),
            self.model.kernels.0,
            self.model.kernels.1,
            self.model.memory.bytes() as f64 / f64::from(1 << 20),
            if self.state.step > 0 {
                format!("; going on after step {} ({} so far)", self.state.step, duration(self.seconds))
            } else {
                String::new()
            }
        )
    }

    /// Writes a checkpoint; the log reaches at least as far.
    fn save(&mut self) -> Result<()> {
        self.log.flush()?;
        let mut optimizer = Tensors::default();
        for (name, arena) in &self.optimizer.moments {
            read_arena(&self.model.memory, &self.model.params, *arena, &format!(".{name}"), &mut optimizer)?;
        }
        self.state.running = to_value(&self.running);
        self.state.history = self.log.epochs().map(to_value).collect();
        let checkpoint = Checkpoint { model: self.model.tensors()?, optimizer, state: self.state.clone() };
        self.saved = Some(checkpoint.save(&self.options.out.join(checkpoint::DIRECTORY))?);
        Ok(())
    }

    fn restore(&mut self, path: &Path, mut checkpoint: Checkpoint) -> Result<()> {
        self.model.load(path, std::mem::take(&mut checkpoint.model), &Fit::default())?;
        let expected: Vec<(String, Vec<usize>)> = (self.optimizer.moments.iter())
            .flat_map(|(m, _)| {
                self.model.params.entries.iter().map(move |e| (format!("{}.{m}", e.name), e.shape.clone()))
            })
            .collect();
        checkpoint.optimizer.expect(path, expected.iter().map(|(n, s)| (n.as_str(), s.as_slice())))?;
        for (name, arena) in &self.optimizer.moments {
            let suffix = format!(".{name}");
            write_arena(&mut self.model.memory, &self.model.params, *arena, &suffix, &checkpoint.optimizer)?;
        }
        let bad = |e: serde_json::Error| Error::file(path, format!("not the state of a training run: {e}"));
        self.running = serde_json::from_value(checkpoint.state.running.clone()).map_err(bad)?;
        self.seconds = self.log.epochs().last().map_or(0.0, |e| e.seconds) + self.running.seconds;
        self.state = checkpoint.state;
        self.saved = Some(path.to_owned());
        Ok(())
    }
}

fn to_value<T: serde::Serialize>(x: &T) -> serde_json::Value {
    serde_json::to_value(x).expect("records have only string keys")
}

/// How units are scheduled: as the run that is resumed had them, so that it ends with the same bits; or as tuning finds.
fn choose(
    options: &TrainOptions,
    source: &Source,
    settings: &Settings,
    device: &Device,
    resumed: Option<&State>,
) -> Result<(Choices, Option<Tuning>)> {
    let say = |text: String| {
        if !options.quiet {
            eprintln!("{text}");
        }
    };
    match (resumed, &options.tune) {
        (Some(state), tune) => {
            let chosen = state.choices.iter().count();
            if chosen > 0 || tune.is_some() {
                say(format!(
                    "tuning: as in the run that is resumed, {chosen} units with another schedule than the usual one"
                ));
            }
            Ok((state.choices.clone(), None))
        }
        (None, Some(tune)) => {
            let (choices, tuning) = tuning::tune(source, settings, device, options.memory, tune)?;
            say(tuning.to_string());
            Ok((choices, Some(tuning)))
        }
        (None, None) => Ok((Choices::default(), None)),
    }
}

/// The checkpoint to go on from, if it is one of this very run.
fn find_checkpoint(
    options: &TrainOptions,
    source: &Source,
    settings: &Settings,
) -> Result<Option<(PathBuf, Checkpoint)>> {
    let directory = options.out.join(checkpoint::DIRECTORY);
    let Some(path) = checkpoint::latest(&directory)? else {
        return Err(Error::file(&directory, "there is no checkpoint to resume from; leave --resume out to start anew"));
    };
    let found = Checkpoint::load(&path)?;
    let bad = |message: String| Err(Error::file(&path, format!("{message}; resume with the same spec and settings")));
    if found.state.recipe != settings.recipe {
        return bad(format!("the checkpoint is of recipe `{}`, not `{}`", found.state.recipe, settings.recipe));
    }
    let now = settings.to_json();
    if let (Some(then), Some(now)) = (found.state.settings.as_object(), now.as_object()) {
        for (key, value) in now {
            let old = then.get(key).unwrap_or(&serde_json::Value::Null);
            if old != value {
                return bad(format!("`{key}` was {old} in the checkpoint and is {value} now"));
            }
        }
    }
    if found.state.spec_hash != source.hash() {
        return bad("the spec has changed since the checkpoint was written".to_owned());
    }
    Ok(Some((path, found)))
}

/// Makes the output directory and sees that files can be written there, before hours are spent.
fn make_writable(out: &Path) -> Result<()> {
    std::fs::create_dir_all(out).map_err(Error::io("create", out))?;
    tempfile::tempfile_in(out).map_err(Error::io("write into", out))?;
    Ok(())
}

/// Whether a person asked to stop. The first Ctrl-C asks; a second one ends the process at once.
struct Interrupt {
    flag: Arc<AtomicBool>,
    ids: Vec<signal_hook::SigId>,
}

impl Interrupt {
    fn new() -> Result<Interrupt> {
        let flag = Arc::new(AtomicBool::new(false));
        let signal = signal_hook::consts::SIGINT;
        let refused = |e: std::io::Error| Error::Device(format!("cannot listen for interrupts: {e}"));
        // In this order: the second one finds the flag set.
        let hard = signal_hook::flag::register_conditional_shutdown(signal, 130, flag.clone()).map_err(refused)?;
        let soft = signal_hook::flag::register(signal, flag.clone()).map_err(refused)?;
        Ok(Interrupt { flag, ids: vec![hard, soft] })
    }
    fn asked(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        self.ids.drain(..).for_each(|id| {
            signal_hook::low_level::unregister(id);
        });
    }
}
