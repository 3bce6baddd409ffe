//! `foveate emit`: a stage of the pipeline as text.

use crate::args::{Emit, Stage};
use crate::failure::Failure;
use crate::output;
use crate::source::{self, Item};
use foveate_runtime::checkpoint::atomic::write_file;

/// Writes the files of a stage to a directory, and names them.
pub fn run(arguments: &Emit) -> Result<(), Failure> {
    let item = Item::load(&arguments.target, arguments.batch)?;
    let facts = source::facts();
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
        for (n, kernel) in graph.kernels.iter().enumerate() {
            let launches: Vec<&str> =
                graph.launches.iter().filter(|l| l.kernel == n).map(|l| l.site.as_str()).collect();
            let text = format!("// Launched for: {}\n{kernel}\n", launches.join("; "));
            files.push((format!("{n:03}-{}.loops", file_name(&kernel.name)), text));
        }
    }
    std::fs::create_dir_all(&arguments.out).map_err(|e| Failure::io("create", &arguments.out, e))?;
    let mut said = String::new();
    for (name, text) in &files {
        let path = arguments.out.join(name);
        write_file(&path, text.as_bytes())?;
        said += &format!("{}\n", path.display());
    }
    output::say(&said)
}

/// A name with what is odd in file names replaced.
fn file_name(name: &str) -> String {
    let kept: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' }).collect();
    kept.chars().take(60).collect()
}
