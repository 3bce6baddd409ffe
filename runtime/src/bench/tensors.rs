//! What a benchmark runs on: the tensors of a file, or random ones.

use super::as_data;
use crate::checkpoint::{Data, Tensors};
use crate::driver::Compiled;
use crate::error::{Error, Result};
use crate::init;
use crate::plan::{Memory, Session};
use crate::rng::{Keyed, hash_bytes};
use foveate_compiler::ir::ArgRole;
use std::path::{Path, PathBuf};

/// The tensors of a file, under the keys that `verify` knows.
pub struct Given {
    path: PathBuf,
    tensors: Tensors,
}

impl Given {
    /// Reads them.
    pub fn read(path: &Path) -> Result<Given> {
        Ok(Given { path: path.to_owned(), tensors: Tensors::read(path)? })
    }
    /// Names and shapes of those whose keys have a prefix.
    pub fn shapes(&self, prefix: &str) -> Vec<(String, Vec<usize>)> {
        let named = self.tensors.iter().filter_map(|(k, t)| Some((k.strip_prefix(prefix)?, t)));
        named.map(|(name, t)| (name.to_owned(), t.shape.clone())).collect()
    }
    /// Images a batch: the first dimension of the first input.
    pub fn batch(&self) -> usize {
        self.shapes("input/").first().and_then(|(_, shape)| shape.first().copied()).unwrap_or(1)
    }
    fn get(&self, key: &str, len: usize) -> Result<Data> {
        let found = self.tensors.get(key).filter(|t| t.data.len() == len).map(|t| t.data.clone());
        found.ok_or_else(|| Error::file(&self.path, format!("expected `{key}` with {len} elements")))
    }
}

/// Gives every argument of the program its values: from the file; or else parameters as initialised, inputs and cotangents normal, labels
/// even.
pub fn fill(memory: &mut Memory, session: &Session, compiled: &Compiled, given: Option<&Given>) -> Result<()> {
    let lowered = &compiled.lowered;
    for arg in &compiled.program.entry().args {
        let Some(place) = session.arg(&arg.role) else { continue };
        let normal = |name: &str| {
            let mut random = Keyed::new(&[hash_bytes(b"bench"), hash_bytes(name.as_bytes())]);
            as_data((0..place.len).map(|_| random.normal()).collect(), false)
        };
        let data = match &arg.role {
            ArgRole::Param(name) | ArgRole::State(name) => {
                let decl = lowered.params.iter().chain(&lowered.states).find(|d| d.name == *name);
                let Some(decl) = decl else { continue };
                let key = format!("param/{name}");
                match given {
                    // Counters of steps may be left out.
                    Some(g) if matches!(arg.role, ArgRole::Param(_)) || g.tensors.get(&key).is_some() => {
                        g.get(&key, place.len)?
                    }
                    _ => Data::F32(init::values(decl.init, 0, name, place.len)),
                }
            }
            ArgRole::Input(name) => match given {
                Some(g) => {
                    let key = format!("input/{name}");
                    let data = g.get(&key, place.len)?;
                    compiled.check_labels(name, &data).map_err(|e| Error::file(&g.path, format!("`{key}`: {e}")))?;
                    data
                }
                None => {
                    let classes = lowered.inputs.iter().find(|i| i.name == *name).and_then(|i| i.label_classes);
                    match classes {
                        Some(n) => as_data((0..place.len).map(|i| (i % n) as f64).collect(), true),
                        None => normal(name),
                    }
                }
            },
            ArgRole::Cotangent(name) => match given {
                Some(g) => g.get(&format!("cotangent/{name}"), place.len)?,
                None if place.len == 1 => Data::F32(vec![1.0]),
                None => normal(name),
            },
            ArgRole::Key => Data::I64(vec![0; place.len]),
            ArgRole::Saved(_) => continue,
        };
        memory.write(place, &data)?;
    }
    Ok(())
}
