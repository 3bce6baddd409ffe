//! The command line: verbs, their options and their help.

use crate::size::Bytes;
use clap::{Args, Parser, Subcommand, ValueEnum};
use foveate_runtime::checkpoint::Fit;
use std::path::PathBuf;
use std::str::FromStr;

/// Compiles, checks and trains attention variants, losses and vision models written in index notation.
#[derive(Debug, Parser)]
#[command(name = "foveate", version, propagate_version = true, disable_help_subcommand = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 a check failed or the input is bad, 2 wrong usage. The language: docs/language.md."
)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Parse and check files; report every error found
    Check(Check),
    /// Write files in the canonical format
    Fmt(Fmt),
    /// Show the derivation: rewrites, algorithm, kernels, memory
    Explain(Explain),
    /// Write a stage of the pipeline as text
    Emit(Emit),
    /// Compare an item with tensors of another implementation
    Verify(Verify),
    /// Count parameters, operations and memory of a model
    Info(Info),
    /// Measure how fast an item runs and what memory it takes
    Bench(Bench),
    /// Train by a recipe
    Train(Train),
    /// Measure a checkpoint on the test images
    Eval(Eval),
    /// Classify images; draw what the model attends to
    Predict(Predict),
    /// Write the tensors of a PyTorch file as safetensors
    Convert(Convert),
    /// List the devices and what they can do
    Devices(Devices),
}

/// `foveate check`.
#[derive(Debug, Args)]
#[command(after_help = "Example: foveate check specs/attention/*.fov")]
pub struct Check {
    /// The files
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Write the findings as JSON to standard output
    #[arg(long)]
    pub json: bool,
}

/// `foveate fmt`.
#[derive(Debug, Args)]
#[command(after_help = "Example: foveate fmt --check specs/attention/*.fov")]
pub struct Fmt {
    /// The files, rewritten in place
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Change nothing; list the files that are not in the canonical format and fail if there are any
    #[arg(long)]
    pub check: bool,
    /// Write the list of files that differ as JSON to standard output
    #[arg(long)]
    pub json: bool,
}

/// An item with the values of its arguments.
#[derive(Debug, Args)]
pub struct Target {
    /// The file, and the item where it has more than one: specs/attention/vicinity.fov:VicinityAttention
    #[arg(value_name = "FILE[:ITEM]")]
    pub item: ItemRef,
    #[command(flatten)]
    pub settings: Settings,
}

/// Values given on the command line.
#[derive(Debug, Args)]
pub struct Settings {
    /// Give an argument its value: H=3, grid=5x7, dims=16,24, qkv_bias=true, form=product
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<Setting>,
}

/// `foveate explain`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: foveate explain specs/attention/vicinity.fov:VicinityAttentionQuadratic --set C=64 --set H=2 --set grid=14x14"
)]
pub struct Explain {
    #[command(flatten)]
    pub target: Target,
    /// Explain the inference program instead of the training step
    #[arg(long)]
    pub inference: bool,
    /// Images in a batch
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = batch)]
    pub batch: usize,
    /// What arguments, results and temporaries may take at most: 4GiB, 800MiB. Blocks that occur several times are computed again in the backward to keep to it
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<Bytes>,
    /// Run it too, and put the time of each kernel beside its estimate
    #[arg(long)]
    pub measure: bool,
    /// Measure other schedules of every kernel first and take those that are faster; what was found is kept in ~/.cache/foveate ($FOVEATE_CACHE)
    #[arg(long, requires = "measure")]
    pub tune: bool,
    /// Which device it is explained for
    #[arg(long, value_enum, default_value_t = DeviceName::Cpu, value_name = "DEVICE")]
    pub device: DeviceName,
    /// Write the derivation as JSON to standard output
    #[arg(long)]
    pub json: bool,
}

/// A stage that `emit` can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// The index IR after every pass
    Ir,
    /// The kernels as loop nests
    Loops,
}

/// `foveate emit`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: foveate emit specs/attention/mcsa.fov --target loops --set C=64 --set H=1 --set grid=56x56 -o out"
)]
pub struct Emit {
    #[command(flatten)]
    pub target: Target,
    /// Which stage
    #[arg(long = "target", value_enum, value_name = "STAGE")]
    pub stage: Stage,
    /// The directory to write to; made if it is not there
    #[arg(short, long, value_name = "DIR")]
    pub out: PathBuf,
    /// With `loops`, only the kernels whose name has this text in it
    #[arg(long, value_name = "TEXT")]
    pub kernel: Option<String>,
    /// Emit the inference program instead of the training step
    #[arg(long)]
    pub inference: bool,
    /// Images in a batch
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = batch)]
    pub batch: usize,
    /// With `loops`, which device they are for
    #[arg(long, value_enum, default_value_t = DeviceName::Cpu, value_name = "DEVICE")]
    pub device: DeviceName,
}

/// Where programs run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DeviceName {
    /// Generated kernels on the processor
    Cpu,
    /// The reference interpreter, in float64; slow
    Interpreter,
    /// Generated kernels through Vulkan, Metal or DirectX
    Wgpu,
}

impl DeviceName {
    /// The name that the runtime knows it by.
    pub fn name(self) -> &'static str {
        match self {
            DeviceName::Cpu => "cpu",
            DeviceName::Interpreter => "interpreter",
            DeviceName::Wgpu => "wgpu",
        }
    }
}

/// `foveate verify`.
#[derive(Debug, Args)]
#[command(after_help = "The file holds input/N, param/N, output/N and, for gradients, cotangent/N and grad/N.\n\
    Example: foveate verify specs/attention/mcsa.fov --against tests/golden/ops/central_6x6_k5.safetensors \
    --set H=4 --set grid=6x6 --set k=5")]
pub struct Verify {
    #[command(flatten)]
    pub target: Target,
    /// The tensors to compare with: safetensors, or what torch.save wrote (.pth, .pt)
    #[arg(long, value_name = "FILE")]
    pub against: PathBuf,
    /// Where to run
    #[arg(long, value_enum, default_value_t = DeviceName::Cpu, value_name = "DEVICE")]
    pub device: DeviceName,
    /// Largest relative L2 error of an output [default: 1e-5 on the CPU, 1e-4 on GPUs, 1e-6 in the interpreter]
    #[arg(long, value_name = "X", value_parser = bound)]
    pub rtol: Option<f64>,
    /// Largest relative L2 error of a gradient [default: 1e-4 on the CPU, 1e-3 on GPUs, 1e-6 in the interpreter]
    #[arg(long, value_name = "X", value_parser = bound)]
    pub grad_rtol: Option<f64>,
    /// Compare only the tensors whose name matches; `*` stands for any text (output/y, grad/*)
    #[arg(long, value_name = "PATTERN")]
    pub only: Option<String>,
    /// Write the table as JSON to standard output
    #[arg(long)]
    pub json: bool,
}

/// `foveate info`.
#[derive(Debug, Args)]
#[command(after_help = "Example: foveate info specs/demo/fashion.fov:FashionNet --params")]
pub struct Info {
    #[command(flatten)]
    pub target: Target,
    /// List every parameter with its shape
    #[arg(long)]
    pub params: bool,
    /// List the innermost layers instead of the model's direct parts
    #[arg(long)]
    pub layers: bool,
    /// Images in a batch
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = batch)]
    pub batch: usize,
    /// Write the numbers as JSON to standard output
    #[arg(long)]
    pub json: bool,
}

/// `foveate train`.
#[derive(Debug, Args)]
#[command(after_help = "An interrupt (Ctrl-C) finishes the step, saves and stops; --resume goes on from there.\n\
    Example: foveate train specs/demo/fashion.fov --set epochs=3 --out out/demo")]
pub struct Train {
    /// The file, and the recipe where it has more than one
    #[arg(value_name = "FILE[:RECIPE]")]
    pub item: ItemRef,
    #[command(flatten)]
    pub settings: Settings,
    /// The data set, instead of the recipe's
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where to run
    #[arg(long, value_enum, default_value_t = DeviceName::Cpu, value_name = "DEVICE")]
    pub device: DeviceName,
    /// Where checkpoints and the report go; an earlier run there is moved to DIR/previous [default: out/RECIPE]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// What the tensors may take at most: 4GiB, 800MiB. Blocks that occur several times are computed again in the backward to keep to it
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<Bytes>,
    /// Measure other schedules of every kernel first and take those that are faster; what was found is kept in ~/.cache/foveate ($FOVEATE_CACHE),
    /// and with the checkpoints, so that --resume goes on with it
    #[arg(long)]
    pub tune: bool,
    /// Go on from the checkpoint in the output directory
    #[arg(long)]
    pub resume: bool,
    /// Begin with these weights: safetensors, what torch.save wrote (.pth, .pt), or the directory of a training run
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    pub init: Option<PathBuf>,
    #[command(flatten)]
    pub fitting: Fitting,
    /// Write the outcome as JSON to standard output, and no progress
    #[arg(long)]
    pub json: bool,
}

/// `foveate bench`.
#[derive(Debug, Args)]
#[command(
    after_help = "Operations and bytes are those that the kernels do; with --ceilings, shares of what the device can do at best.\n\
    Example: foveate bench specs/models/vvt.fov:VvtTinyLoss --part step --batch 4 --kernels"
)]
pub struct Bench {
    #[command(flatten)]
    pub target: Target,
    /// What to measure
    #[arg(long, value_enum, default_value_t = Part::Gradients)]
    pub part: Part,
    /// Measure results and gradients: the same as --part gradients
    #[arg(long, conflicts_with = "part")]
    pub backward: bool,
    /// Images in a batch
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = batch)]
    pub batch: usize,
    /// Take inputs and parameters from a safetensors file as `verify` reads it; without one they are random
    #[arg(long, value_name = "FILE", conflicts_with = "batch")]
    pub against: Option<PathBuf>,
    /// What the tensors may take at most: 4GiB, 800MiB. Blocks that occur several times are computed again in the backward to keep to it
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<Bytes>,
    /// Measure other schedules of every kernel first and take those that are faster; what was found is kept in ~/.cache/foveate ($FOVEATE_CACHE)
    #[arg(long)]
    pub tune: bool,
    /// Seconds to measure for
    #[arg(long, default_value_t = 3.0, value_name = "S", value_parser = seconds)]
    pub seconds: f64,
    /// Measure every kernel too
    #[arg(long)]
    pub kernels: bool,
    /// Measure what the device can do at best, and give shares of it
    #[arg(long)]
    pub ceilings: bool,
    /// Where to run
    #[arg(long, value_enum, default_value_t = DeviceName::Cpu, value_name = "DEVICE")]
    pub device: DeviceName,
    /// Write the measurement as JSON to standard output
    #[arg(long)]
    pub json: bool,
}

/// What `bench` measures.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Part {
    /// The results, in inference mode
    Inference,
    /// Results and gradients, in training mode
    Gradients,
    /// The same, and an AdamW update of all parameters
    Step,
}

/// How tensors of a file are made to fit a model.
#[derive(Debug, Args)]
pub struct Fitting {
    /// Resample position embeddings and tables of offsets that have another resolution
    #[arg(long)]
    pub resample: bool,
    /// Do not take the tensors of this name from the file; `*` stands for any text (head.*)
    #[arg(long, value_name = "PATTERN")]
    pub leave: Vec<String>,
}

impl Fitting {
    /// Whether anything is asked for.
    pub fn is_set(&self) -> bool {
        self.resample || !self.leave.is_empty()
    }
    /// For the runtime.
    pub fn fit(&self) -> Fit {
        Fit { resample: self.resample, leave: self.leave.clone() }
    }
}

/// `foveate convert`.
#[derive(Debug, Args)]
#[command(after_help = "Nothing in a PyTorch file is run.\n\
    Example: foveate convert simvit_tiny.pth -o simvit_tiny.safetensors --for specs/models/simvit.fov:SimVitTiny")]
pub struct Convert {
    /// The tensors: safetensors, or what torch.save wrote (.pth, .pt)
    #[arg(value_name = "FILE")]
    pub from: PathBuf,
    /// The file to write
    #[arg(short, long, value_name = "FILE.safetensors")]
    pub out: PathBuf,
    /// Check that the tensors are those of this item
    #[arg(long = "for", value_name = "FILE[:ITEM]")]
    pub item: Option<ItemRef>,
    #[command(flatten)]
    pub settings: Settings,
    #[command(flatten)]
    pub fitting: Fitting,
    /// Write what was done as JSON to standard output
    #[arg(long)]
    pub json: bool,
}

/// `foveate eval`.
#[derive(Debug, Args)]
#[command(after_help = "Example: foveate eval specs/demo/fashion.fov --weights out/demo/model.safetensors")]
pub struct Eval {
    /// The file, and the recipe where it has more than one
    #[arg(value_name = "FILE[:RECIPE]")]
    pub item: ItemRef,
    #[command(flatten)]
    pub settings: Settings,
    /// The weights: safetensors, what torch.save wrote (.pth, .pt), or the directory of a training run
    #[arg(long, value_name = "FILE")]
    pub weights: PathBuf,
    #[command(flatten)]
    pub fitting: Fitting,
    /// The data set, instead of the recipe's
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where to run
    #[arg(long, value_enum, default_value_t = DeviceName::Cpu, value_name = "DEVICE")]
    pub device: DeviceName,
    /// Write the result as JSON to standard output
    #[arg(long)]
    pub json: bool,
}

/// `foveate predict`.
#[derive(Debug, Args)]
#[command(
    after_help = "With --maps, what the model exposes is drawn: maps over the image, labels, maps over offsets; a panel a head.\n\
    Example: foveate predict specs/models/deit_sar.fov:DeitSarTiny --weights sar_deit_tiny.pth cat.jpg --maps out/maps"
)]
pub struct Predict {
    #[command(flatten)]
    pub target: Target,
    /// The images: JPEG or PNG
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// The weights: safetensors, what torch.save wrote (.pth, .pt), or the directory of a training run
    #[arg(long, value_name = "FILE")]
    pub weights: PathBuf,
    #[command(flatten)]
    pub fitting: Fitting,
    /// Names of the classes, one a line
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// Classes to show
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub top: usize,
    /// Share of the image's shorter side that the model sees; the middle is cut out
    #[arg(long, default_value_t = 0.875, value_name = "SHARE")]
    pub crop: f64,
    /// Mean of each channel, of values in 0 to 1 [default: ImageNet's 0.485,0.456,0.406 for colours, 0 for one channel]
    #[arg(long, value_delimiter = ',', value_name = "R,G,B")]
    pub mean: Vec<f64>,
    /// Standard deviation of each channel [default: ImageNet's 0.229,0.224,0.225 for colours, 1 for one channel]
    #[arg(long, value_delimiter = ',', value_name = "R,G,B")]
    pub std: Vec<f64>,
    /// Write pictures of exposed values to this directory, a folder an image
    #[arg(long, value_name = "DIR")]
    pub maps: Option<PathBuf>,
    /// Which exposed values; `*` stands for any text (blocks.0.*)
    #[arg(long, default_value = "*", value_name = "PATTERN", requires = "maps")]
    pub only: String,
    /// Where to run
    #[arg(long, value_enum, default_value_t = DeviceName::Cpu, value_name = "DEVICE")]
    pub device: DeviceName,
    /// Write the results as JSON to standard output
    #[arg(long)]
    pub json: bool,
}

/// `foveate devices`.
#[derive(Debug, Args)]
pub struct Devices {
    /// Write the list as JSON to standard output
    #[arg(long)]
    pub json: bool,
}

/// `FILE` or `FILE:ITEM`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemRef {
    /// The file.
    pub file: PathBuf,
    /// The item, where given.
    pub item: Option<String>,
}

impl FromStr for ItemRef {
    type Err = String;

    fn from_str(text: &str) -> Result<ItemRef, String> {
        // A colon may also be part of the path (a drive letter), so the item must look like a name.
        let split = text.rsplit_once(':').filter(|(_, item)| is_name(item));
        let (file, item) = split.map_or((text, None), |(file, item)| (file, Some(item.to_owned())));
        if file.is_empty() {
            return Err("expected FILE or FILE:ITEM".to_owned());
        }
        Ok(ItemRef { file: PathBuf::from(file), item })
    }
}

/// `NAME=VALUE`; what the value means depends on the argument's kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The argument, or the path of a recipe's entry (`schedule.warmup_epochs`).
    pub name: String,
    /// The value as typed.
    pub value: String,
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Setting, String> {
        let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE, for example H=3")?;
        if !name.split('.').all(is_name) {
            return Err(format!("`{name}` is not a name; expected NAME=VALUE, for example H=3"));
        }
        if value.is_empty() {
            return Err(format!("`{name}` has no value; expected NAME=VALUE, for example H=3"));
        }
        Ok(Setting { name: name.to_owned(), value: value.to_owned() })
    }
}

fn is_name(text: &str) -> bool {
    let mut characters = text.chars();
    characters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && characters.all(|character| character.is_ascii_alphanumeric() || character == '_')
}

/// Images in a batch.
fn batch(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&n| n > 0).ok_or_else(|| "expected a number of images, at least 1".to_owned())
}

/// A time: a finite number that is not negative.
fn seconds(text: &str) -> Result<f64, String> {
    bound(text).map_err(|_| "expected a number of seconds such as 0.5".to_owned())
}

/// An error bound: a finite number that is not negative.
fn bound(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value >= 0.0 && value.is_finite() => Ok(value),
        _ => Err("expected a number such as 1e-5".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn items_are_split_off() {
        let item: ItemRef = "a/b.fov:Net".parse().expect("an item");
        assert_eq!((item.file, item.item.as_deref()), (PathBuf::from("a/b.fov"), Some("Net")));
        let file: ItemRef = "C:/b.fov".parse().expect("a path");
        assert_eq!((file.file, file.item), (PathBuf::from("C:/b.fov"), None));
        assert!(":Net".parse::<ItemRef>().is_err());
    }

    #[test]
    fn settings_need_a_name_and_a_value() {
        let setting: Setting = "grid=5x7".parse().expect("a setting");
        assert_eq!((setting.name.as_str(), setting.value.as_str()), ("grid", "5x7"));
        for wrong in ["grid", "=3", "H=", "2=3"] {
            assert!(wrong.parse::<Setting>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_are_checked() {
        let parse = |more: &[&str]| Arguments::try_parse_from([&["foveate", "bench", "a.fov"], more].concat()).is_ok();
        assert!(parse(&["--batch", "1", "--seconds", "0", "--backward"]));
        for wrong in
            [["--batch", "0"], ["--batch", "-1"], ["--seconds", "nan"], ["--seconds", "-1"], ["--seconds", "inf"]]
        {
            assert!(!parse(&wrong), "{wrong:?}");
        }
        assert!(!parse(&["--backward", "--part", "inference"]));
    }
}
