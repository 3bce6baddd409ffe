//! `foveate predict`: a model on images.

use crate::args::Predict;
use crate::failure::Failure;
use crate::output::{self, Align, Table};
use crate::source;
use foveate_runtime::error::Error;
use foveate_runtime::predict::{PredictOptions, Prediction, predict};

/// Predicts, and shows the likeliest classes of every image as soon as it is done.
pub fn run(arguments: &Predict) -> Result<(), Failure> {
    let labels = match &arguments.labels {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
            text.lines().map(str::to_owned).collect()
        }
        None => Vec::new(),
    };
    let options = PredictOptions {
        spec: arguments.target.item.file.clone(),
        item: arguments.target.item.item.clone(),
        settings: source::values(&arguments.target.settings.set)?,
        weights: arguments.weights.clone(),
        fit: arguments.fitting.fit(),
        device: arguments.device.name().to_owned(),
        images: arguments.images.clone(),
        crop: arguments.crop,
        mean: arguments.mean.clone(),
        std: arguments.std.clone(),
        maps: arguments.maps.clone().map(|directory| (directory, arguments.only.clone())),
    };
    let mut all = Vec::new();
    let mut failed = None;
    let remark = predict(&options, &mut |found| {
        let mut found = found.clone();
        found.classes.truncate(arguments.top);
        if !arguments.json && failed.is_none() {
            failed = output::say(&text(&found, &labels)).err();
        }
        all.push(found);
        Ok(())
    })?;
    if let Some(failure) = failed {
        return Err(failure);
    }
    if let Some(remark) = remark {
        output::complain(&format!("warning: {remark}\n"));
    }
    if arguments.json { output::say_json(&all) } else { Ok(()) }
}

fn text(found: &Prediction, labels: &[String]) -> String {
    let mut table = Table::new([("probability", Align::Right), ("class", Align::Right), ("", Align::Left)]);
    for &(class, probability) in &found.classes {
        let name = labels.get(class).cloned().unwrap_or_default();
        table.row([format!("{:.2} %", 100.0 * probability), class.to_string(), name]);
    }
    let mut out = format!("{}\n{}\n", found.image.display(), table.render().trim_end());
    for picture in &found.maps {
        out += &format!("  {}\n", picture.file.display());
    }
    out
}
