//! A model on images: the likeliest classes, and pictures of what the model exposes.

use crate::checkpoint::{self, Data, Fit, fit::matches};
use crate::device::Device;
use crate::driver::{Request, Source};
use crate::error::{Error, Result};
use crate::maps::{Kind, Maps};
use crate::picture;
use crate::plan::{Bindings, Memory, Place, Session};
use foveate_compiler::check::Value;
use foveate_compiler::ir::{ArgRole, Elem, ResultRole};
use foveate_compiler::lower::{Exposed, InputDecl};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Mean of ImageNet's red, green and blue, of values in 0 to 1: what vision models are commonly trained with.
pub const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of the same.
pub const STD: [f64; 3] = [0.229, 0.224, 0.225];

/// What to predict.
#[derive(Clone, Debug)]
pub struct PredictOptions {
    /// The spec file.
    pub spec: PathBuf,
    /// The model; `None` if the file has only one.
    pub item: Option<String>,
    /// Its arguments; what follows from the weights may be left out.
    pub settings: Vec<(String, Value)>,
    /// A safetensors or PyTorch file, a checkpoint, or a training run's directory.
    pub weights: PathBuf,
    /// How its tensors are made to fit.
    pub fit: Fit,
    /// A device's name.
    pub device: String,
    /// JPEG or PNG files.
    pub images: Vec<PathBuf>,
    /// Share of the resized shorter side that is kept.
    pub crop: f64,
    /// Mean of each channel, of values in 0 to 1; if empty, `MEAN` for three channels and 0 for one.
    pub mean: Vec<f64>,
    /// Standard deviation of each channel; if empty, `STD` for three channels and 1 for one.
    pub std: Vec<f64>,
    /// Where pictures of exposed values go, a directory an image, and which values: all that match the pattern.
    pub maps: Option<(PathBuf, String)>,
}

/// What the model makes of an image.
#[derive(Clone, Debug, Serialize)]
pub struct Prediction {
    /// The file.
    pub image: PathBuf,
    /// Classes with their probabilities, the likeliest first.
    pub classes: Vec<(usize, f64)>,
    /// The pictures that were written.
    pub maps: Vec<Picture>,
}

/// A picture of an exposed value.
#[derive(Clone, Debug, Serialize)]
pub struct Picture {
    /// The value.
    pub value: String,
    /// What its panels are.
    pub kind: Kind,
    /// The smallest and largest value of every panel: the ends of its colours.
    pub ranges: Vec<(f64, f64)>,
    /// The file.
    pub file: PathBuf,
}

/// Runs the model on the images, one after the other; `watch` is told each result. Gives what a person should know besides.
pub fn predict(options: &PredictOptions, watch: &mut dyn FnMut(&Prediction) -> Result<()>) -> Result<Option<String>> {
    let source = Source::load(&options.spec)?;
    let device = Device::open(&options.device)?;
    let (file, tensors) = checkpoint::read_model(&options.weights)?;
    let item = options.item.as_deref();
    let kept = tensors.iter().filter(|(name, _)| !options.fit.leaves(name));
    let shapes: Vec<_> = kept.map(|(name, t)| (name.clone(), t.shape.clone())).collect();
    let settings = source.infer(item, &options.settings, &[], &shapes)?;

    let mut request = Request::inference(item, &settings, 1);
    let able = source.lower(&request)?;
    let input = Input::of(&able.inputs)?;
    if !(options.crop > 0.0 && options.crop <= 1.0) {
        return Err(Error::Setting(format!("the crop must lie in (0, 1], found {}", options.crop)));
    }
    let mean = input.each_channel("mean", &options.mean, &MEAN, 0.0)?;
    let std = input.each_channel("standard deviation", &options.std, &STD, 1.0)?;
    let shown: Vec<&Exposed> = match &options.maps {
        Some((_, pattern)) => able.exposed.iter().filter(|e| matches(pattern, &e.name) && pictured(e)).collect(),
        None => Vec::new(),
    };
    let mut remark = None;
    if let (Some((_, pattern)), true) = (&options.maps, shown.is_empty()) {
        let names: Vec<String> = able.exposed.iter().filter(|e| pictured(e)).map(|e| format!("`{}`", e.name)).collect();
        if !names.is_empty() {
            let given = names.join(", ");
            return Err(Error::Setting(format!("no exposed value matches `{pattern}`; the model exposes {given}")));
        }
        remark = Some(
            "no maps are drawn: the model exposes no value over a grid (`expose NAME` in its spec does)".to_owned(),
        );
    }
    request.exposed = shown.iter().map(|e| e.name.clone()).collect();
    let decls: Vec<_> = able.params.iter().chain(&able.states).cloned().collect();
    let weights = options.fit.apply(&file, tensors, &decls)?.complete()?;

    let compiled = source.compile(&request, device.facts().as_ref())?;
    let mut memory = Memory::new(device)?;
    let session = Session::new(&mut memory, &compiled.program, compiled.graph.as_ref(), &Bindings::NONE)?;
    let mut image_place: Option<Place> = None;
    for arg in &compiled.program.entry().args {
        let Some(place) = session.arg(&arg.role) else { continue };
        match &arg.role {
            ArgRole::Param(n) | ArgRole::State(n) => {
                if let Some(t) = weights.get(n) {
                    memory.write(place, &t.data)?;
                }
            }
            ArgRole::Input(n) if *n == input.name => image_place = Some(place),
            // Labels of an objective: no result that is shown depends on them.
            ArgRole::Input(_) | ArgRole::Key => memory.write(place, &Data::I64(vec![0; place.len]))?,
            ArgRole::Cotangent(_) | ArgRole::Saved(_) => {}
        }
    }
    let logits = able.results.first().map(|n| ResultRole::Output(n.clone()));
    let logits = logits.and_then(|role| session.result(&role)).filter(|(_, _, shape)| matches!(shape, [1, _]));
    let (logits, ..) = logits.ok_or_else(|| {
        Error::Setting("the first result is no vector of classes: not a model to predict with".to_owned())
    })?;

    let folders = folders(&options.images);
    for (path, folder) in options.images.iter().zip(folders) {
        let image = picture::middle(&picture::read(path)?, input.rows as u32, input.cols as u32, options.crop);
        let pixels = picture::planes(&image, input.channels, &mean, &std);
        if let Some(place) = image_place {
            memory.write(place, &Data::F32(pixels))?;
        }
        session.run(&mut memory)?;
        let classes = ranked(&memory.read_f64(logits, Elem::F32)?);
        let mut maps = Vec::new();
        for value in &shown {
            let Some((place, elem, _)) = session.result(&ResultRole::Exposed(value.name.clone())) else { continue };
            let whole = matches!(elem, Elem::I32 | Elem::U32);
            let (Some(found), Some((directory, _))) =
                (Maps::of(&value.dims, whole, &memory.read_f64(place, elem)?), &options.maps)
            else {
                continue;
            };
            let file = directory.join(&folder).join(format!("{}.png", value.name));
            found.write(&file, &image)?;
            maps.push(Picture { value: value.name.clone(), kind: found.kind, ranges: found.ranges(), file });
        }
        watch(&Prediction { image: path.clone(), classes, maps })?;
    }
    Ok(remark)
}

/// Whether a value's axes have a picture.
fn pictured(value: &Exposed) -> bool {
    Maps::of(&value.dims, false, &[]).is_some()
}

/// The image that a model takes.
struct Input {
    name: String,
    channels: usize,
    rows: usize,
    cols: usize,
}

impl Input {
    fn of(inputs: &[InputDecl]) -> Result<Input> {
        let images: Vec<&InputDecl> = inputs.iter().filter(|i| i.label_classes.is_none()).collect();
        let [one] = images.as_slice() else {
            return Err(Error::Setting(format!(
                "expected a model with one image for input, found {} inputs",
                images.len()
            )));
        };
        let (channels, rows, cols) = match one.shape[..] {
            [rows, cols] => (1, rows, cols),
            [channels @ (1 | 3), rows, cols] => (channels, rows, cols),
            _ => {
                let (name, shape) = (&one.name, &one.shape);
                return Err(Error::Setting(format!(
                    "input `{name}` has shape {shape:?}; expected an image: [3, rows, columns], [1, rows, columns] or [rows, columns]"
                )));
            }
        };
        Ok(Input { name: one.name.clone(), channels, rows, cols })
    }

    /// One value for all channels or one for each; the default where none is given.
    fn each_channel(&self, what: &str, given: &[f64], colours: &[f64], grey: f64) -> Result<Vec<f64>> {
        match given.len() {
            0 if self.channels == colours.len() => Ok(colours.to_vec()),
            0 => Ok(vec![grey]),
            n if n == 1 || n == self.channels => Ok(given.to_vec()),
            n => {
                let channels = self.channels;
                Err(Error::Setting(format!("expected one {what} or one for each of {channels} channels, found {n}")))
            }
        }
    }
}

/// Classes with their probabilities, the likeliest first.
fn ranked(logits: &[f64]) -> Vec<(usize, f64)> {
    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = logits.iter().map(|x| libm::exp(x - most)).sum();
    let mut out: Vec<(usize, f64)> = logits.iter().map(|x| libm::exp(x - most) / total).enumerate().collect();
    out.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    out
}

/// A name for each file's folder: its own without the ending, with a number if others have it too.
fn folders(files: &[PathBuf]) -> Vec<String> {
    let stem = |p: &Path| p.file_stem().map_or_else(|| "image".to_owned(), |s| s.to_string_lossy().into_owned());
    let mut out: Vec<String> = Vec::new();
    for file in files {
        let name = stem(file);
        let same = (2..).map(|n| format!("{name}-{n}"));
        let free = std::iter::once(name.clone()).chain(same).find(|n| !out.contains(n));
        out.push(free.unwrap_or(name));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_ranked() {
        let found = ranked(&[0.0, 1000.0, f64::ln(3.0) + 1000.0]);
        assert_eq!(found.iter().map(|c| c.0).collect::<Vec<_>>(), [2, 1, 0]);
        assert!((found[0].1 - 0.75).abs() < 1e-12 && found[2].1 < 1e-12);
    }

    #[test]
    fn every_image_has_a_folder() {
        let files = ["a/cat.png", "b/cat.jpg", "dog.png"].map(PathBuf::from);
        assert_eq!(folders(&files), ["cat", "cat-2", "dog"]);
    }
}
