//! `foveate emit`: a stage of the pipeline as text.

use crate::args::{DeviceName, Emit, Stage};
use crate::failure::Failure;
use crate::output;
use crate::source::{self, Item};
use foveate_runtime::checkpoint::atomic::write_files;

/// Writes the files of a stage to a directory, and names them.
pub fn run(arguments: &Emit) -> Result<(), Failure> {
    if arguments.kernel.is_some() && arguments.stage != Stage::Loops {
        return Err(Failure::new("--kernel chooses among the kernels of `--target loops`"));
    }
    if arguments.device != DeviceName::Cpu && arguments.stage != Stage::Loops {
        return Err(Failure::new(
            "--device chooses whose kernels `--target loops` writes: the index IR is the same for all",
        ));
    }
    let item = Item::load(&arguments.target, arguments.batch)?;
    let facts = source::facts_of(arguments.device, false, "emit")?;
    let mut files: Vec<(String, String)> = Vec::new();
    let mut last = String::new();
    let mut watch = |stage: &str, program: &foveate_compiler::ir::Program| {
        if arguments.stage != Stage::Ir {
            return;
        }
        let text = program.to_string();
        // A pass that changed nothing is not worth a file.
        if text != last {
            files.push((format!("{:02}-{stage}.ir", files.len()), text.clone()));
            last = text;
        }
    };
    let compiled =
        item.with(!arguments.inference, |source, request| source.compile_watched(request, Some(&facts), &mut watch))?;
    if let (Stage::Loops, Some(graph)) = (arguments.stage, &compiled.graph) {
        let wanted = |name: &str| arguments.kernel.as_ref().is_none_or(|text| name.contains(text));
        if let Some(text) = arguments.kernel.as_ref().filter(|_| !graph.kernels.iter().any(|k| wanted(&k.name))) {
            let mut names: Vec<&str> = graph.kernels.iter().map(|k| k.name.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            return Err(Failure::new(format!("no kernel has `{text}` in its name; there are {}", names.join(", "))));
        }
        for (n, kernel) in graph.kernels.iter().enumerate().filter(|(_, k)| wanted(&k.name)) {
            let launches: Vec<&str> =
                graph.launches.iter().filter(|l| l.kernel == n).map(|l| l.site.as_str()).collect();
            let text = format!("// Launched for: {}\n{kernel}\n", launches.join("; "));
            files.push((format!("{n:03}-{}.loops", file_name(&kernel.name)), text));
        }
    }
    let content: Vec<(&str, &[u8])> = files.iter().map(|(name, text)| (name.as_str(), text.as_bytes())).collect();
    write_files(&arguments.out, &content)?;
    output::say(&files.iter().map(|(name, _)| format!("{}\n", arguments.out.join(name).display())).collect::<String>())
}

/// A name with what is odd in file names replaced.
fn file_name(name: &str) -> String {
    let kept: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' }).collect();
    kept.chars().take(60).collect()
}
