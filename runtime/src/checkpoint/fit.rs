//! Tensors of a file made to fit a model: all there and none besides, grids of another resolution resampled where that is asked for.

use super::tensors::{Data, Tensor, Tensors, same_shape};
use crate::error::{Error, Result};
use foveate_compiler::check::{ParamDecl, Piece};
use std::path::Path;

/// What may be done to make tensors fit.
#[derive(Clone, Debug, Default)]
pub struct Fit {
    /// Resample parameters over a grid (position embeddings, tables of offsets) that have another resolution.
    pub resample: bool,
    /// Names of parameters that are not taken from the file, `*` standing for any text: a head for other classes.
    pub leave: Vec<String>,
}

/// The tensors of a file that fit a model.
#[derive(Clone, Debug)]
pub struct Fitted {
    /// Those that the model has, in its shapes, but for those that were left.
    pub tensors: Tensors,
    /// What was resampled, and from what to what.
    pub resampled: Vec<String>,
    /// What was left.
    pub left: Vec<String>,
}

impl Fitted {
    /// The tensors, where the model is used as it is; an error if one was left.
    pub fn complete(self) -> Result<Tensors> {
        match self.left.first() {
            None => Ok(self.tensors),
            Some(name) => Err(Error::Setting(format!("`{name}` is left without a value; only training gives it one"))),
        }
    }

    /// What was done, in lines for people; `path` is where the tensors come from.
    pub fn describe(&self, path: &Path) -> Vec<String> {
        let mut lines = vec![format!("{} tensors from {}", self.tensors.len(), path.display())];
        lines.extend(self.resampled.iter().map(|r| format!("resampled {r}")));
        lines.extend(self.left.iter().map(|l| format!("left `{l}` as initialised")));
        lines
    }
}

impl Fit {
    /// Whether the tensor of this name is not taken.
    pub fn leaves(&self, name: &str) -> bool {
        self.leave.iter().any(|p| matches(p, name))
    }

    /// Fits tensors to declarations. What is missing, extra or of another shape is an error that lists all of it; `path` is only for that.
    pub fn apply(&self, path: &Path, tensors: Tensors, decls: &[ParamDecl]) -> Result<Fitted> {
        let names = || decls.iter().map(|d| d.name.as_str()).chain(tensors.iter().map(|(name, _)| name.as_str()));
        if let Some(pattern) = self.leave.iter().find(|p| !names().any(|n| matches(p, n))) {
            let problem = format!("`{pattern}` was to be left, but neither file nor model has a tensor of such a name");
            return Err(Error::Tensors { path: path.to_owned(), problems: vec![problem] });
        }
        let mut out = Fitted { tensors, resampled: Vec::new(), left: Vec::new() };
        out.left = decls.iter().filter(|d| self.leaves(&d.name)).map(|d| d.name.clone()).collect();
        out.tensors.retain(|name| !self.leaves(name));
        let kept = || decls.iter().filter(|d| !self.leaves(&d.name));
        let mut could = Vec::new();
        for decl in kept() {
            let Some(tensor) = out.tensors.get(&decl.name).filter(|t| !same_shape(&t.shape, &decl.shape)) else {
                continue;
            };
            match resampled(decl, tensor) {
                Some((fitted, how)) if self.resample => {
                    out.resampled.push(format!("`{}` {how}", decl.name));
                    out.tensors.insert(decl.name.clone(), fitted);
                }
                Some(_) => could.push(format!("`{}`: ", decl.name)),
                None => {}
            }
        }
        let expected = kept().map(|d| (d.name.as_str(), d.shape.as_slice()));
        match out.tensors.expect(path, expected) {
            Ok(()) => Ok(out),
            Err(Error::Tensors { path, mut problems }) => {
                for p in problems.iter_mut().filter(|p| could.iter().any(|c| p.starts_with(c))) {
                    *p += " (--resample makes it fit)";
                }
                Err(Error::Tensors { path, problems })
            }
            Err(other) => Err(other),
        }
    }
}

/// Whether a pattern, in which `*` stands for any text, is that of a text.
pub fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == text };
    let Some(rest) = text.strip_prefix(head) else { return false };
    (0..=rest.len()).filter(|&n| rest.is_char_boundary(n)).any(|n| matches(tail, &rest[n..]))
}

/// A tensor in the shape of a declaration, if only the resolution of grids differs, and what was done to it.
fn resampled(decl: &ParamDecl, tensor: &Tensor) -> Option<(Tensor, String)> {
    if tensor.shape.len() != decl.shape.len() || matches!(tensor.data, Data::I64(_)) {
        return None;
    }
    let mut shape = tensor.shape.clone();
    let mut data = tensor.data.to_f64();
    let mut how = Vec::new();
    for (d, pieces) in decl.pieces.iter().enumerate() {
        if shape[d] == decl.shape[d] {
            continue;
        }
        let mut grids = pieces.iter().filter(|p| p.grid.is_some());
        let (Some(Piece { grid: Some(to), len }), None) = (grids.next(), grids.next()) else { return None };
        let others = decl.shape[d] - len;
        let from = grid_of(shape[d].checked_sub(others)?, *to)?;
        data = along(&data, &shape, d, pieces, from, *to);
        how.push(format!("from {} x {} to {} x {}", from.0, from.1, to.0, to.1));
        shape[d] = decl.shape[d];
    }
    let data = match tensor.data {
        Data::F64(_) => Data::F64(data),
        _ => Data::F32(data.iter().map(|&x| x as f32).collect()),
    };
    Some((Tensor { shape, data }, how.join(", ")))
}

/// Rows and columns of a grid of so many points whose sides are most nearly in the ratio of another's. None if no ratio is near.
fn grid_of(points: usize, like: (usize, usize)) -> Option<(usize, usize)> {
    let off = |(rows, columns): (usize, usize)| ((rows * like.1) as f64 / (columns * like.0) as f64).ln().abs();
    let side = (1..=points.isqrt()).filter(|r| points.is_multiple_of(*r));
    let grids = side.flat_map(|r| [(r, points / r), (points / r, r)]);
    grids.min_by(|a, b| off(*a).total_cmp(&off(*b))).filter(|&grid| off(grid) < 0.2)
}

/// Resamples the grid among the pieces of one dimension; the other pieces stay as they are.
fn along(
    data: &[f64],
    shape: &[usize],
    d: usize,
    pieces: &[Piece],
    from: (usize, usize),
    to: (usize, usize),
) -> Vec<f64> {
    let inner: usize = shape[d + 1..].iter().product();
    let outer: usize = shape[..d].iter().product();
    let (rows, columns) = (taps(from.0, to.0), taps(from.1, to.1));
    let mut out = Vec::new();
    for block in 0..outer {
        let mut at = block * shape[d];
        for piece in pieces {
            if piece.grid.is_none() {
                out.extend_from_slice(&data[at * inner..(at + piece.len) * inner]);
                at += piece.len;
                continue;
            }
            for row in &rows {
                for column in &columns {
                    for c in 0..inner {
                        let value = |&(r, wr): &(usize, f64)| {
                            let line = |&(k, wk): &(usize, f64)| wk * data[(at + r * from.1 + k) * inner + c];
                            wr * column.iter().map(line).sum::<f64>()
                        };
                        out.push(row.iter().map(value).sum());
                    }
                }
            }
            at += from.0 * from.1;
        }
    }
    out
}

/// For each new point of a side the old points it is made of with their weights: cubic convolution (Keys, "Cubic Convolution Interpolation
/// for Digital Image Processing", 1981) with a = -0.75, points in the middle of their cells, the border repeated. So does PyTorch's
/// `interpolate(mode="bicubic", align_corners=False)`, with which the published models are fine-tuned at other resolutions.
fn taps(from: usize, to: usize) -> Vec<[(usize, f64); 4]> {
    const A: f64 = -0.75;
    let near = |x: f64| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    (0..to)
        .map(|n| {
            let place = (n as f64 + 0.5) * from as f64 / to as f64 - 0.5;
            let (base, t) = (place.floor(), place - place.floor());
            let at = |k: f64| (base + k).clamp(0.0, from as f64 - 1.0) as usize;
            [(at(-1.0), far(1.0 + t)), (at(0.0), near(t)), (at(1.0), near(1.0 - t)), (at(2.0), far(2.0 - t))]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use foveate_compiler::check::Spec;
    use foveate_compiler::lower::{LowerOptions, lower};

    /// `pos` over a token and a 3 x 3 grid, `table` over the 5 x 5 offsets.
    fn decls() -> Vec<ParamDecl> {
        let text = "\
foveate 1

module M(C = 2) {
    axis Gy = 3
    axis Gx = 3
    axis G = Gy x Gx
    axis Oy = 5
    axis Ox = 5
    axis O = Oy x Ox
    axis Cls = 1
    axis T = Cls | G
    index t: T

    pos: param[1, T, C] = zeros
    table: param[O, C] = zeros

    forward(x[T, C]) -> [T, C] {
        y[t, c] = x[t, c] + pos[0, t, c] + table[(0, 0), c]
        return y
    }
}
";
        let mut sources = foveate_dsl::SourceMap::new();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("m.fov");
        std::fs::write(&path, text).expect("writable");
        let render = |d: Vec<foveate_dsl::Diagnostic>, sources: &_| foveate_dsl::render::render(&d, sources, false);
        let spec = Spec::load(&path, &mut sources);
        let spec = spec.unwrap_or_else(|d| panic!("{}", render(d, &sources)));
        let options = LowerOptions { training: false, random: true, batch: 1, exposed: Vec::new() };
        let lowered = lower(&spec, None, &[], &options, &sources);
        lowered.unwrap_or_else(|d| panic!("{}", render(d, &sources))).params
    }

    fn tensors(pos: usize, table: usize) -> Tensors {
        let mut out = Tensors::default();
        let values = |n: usize| Data::F32((0..n).map(|i| i as f32).collect());
        out.insert("pos".into(), Tensor { shape: vec![1, pos, 2], data: values(pos * 2) });
        out.insert("table".into(), Tensor { shape: vec![table, 2], data: values(table * 2) });
        out
    }

    #[test]
    fn grids_are_resampled_when_asked() {
        let path = Path::new("w");
        let error = Fit::default().apply(path, tensors(5, 9), &decls()).unwrap_err().to_string();
        assert_eq!(
            error,
            "w: the tensors do not fit\n  `pos`: expected shape [1, 10, 2], found [1, 5, 2] (--resample makes it fit)\n  \
             `table`: expected shape [25, 2], found [9, 2] (--resample makes it fit)"
        );
        let fit = Fit { resample: true, ..Fit::default() };
        let fitted = fit.apply(path, tensors(5, 9), &decls()).expect("fits");
        assert_eq!(fitted.resampled, ["`pos` from 2 x 2 to 3 x 3", "`table` from 3 x 3 to 5 x 5"]);
        let pos = fitted.tensors.get("pos").expect("there").data.to_f64();
        // The class token stays; the middle of the grid is the mean of its corners.
        assert_eq!((&pos[..2], pos.len()), (&[0.0, 1.0][..], 20));
        assert!((pos[2 * 5] - 5.0).abs() < 1e-6, "{pos:?}");
        // torch.nn.functional.interpolate(torch.arange(9.).view(1, 1, 3, 3), size=5, mode="bicubic")[0, 0, 0, :3] * 2
        let table = fitted.tensors.get("table").expect("there").data.to_f64();
        for (got, expected) in [table[0], table[2], table[4]].iter().zip([-0.768, 0.056, 1.424]) {
            assert!((got - expected).abs() < 1e-5, "{table:?}");
        }
        // As many points but no grid near this shape.
        assert!(fit.apply(path, tensors(1 + 7, 25), &decls()).is_err());
        assert_eq!(fit.apply(path, tensors(10, 25), &decls()).expect("fits").tensors, tensors(10, 25));
    }

    #[test]
    fn some_are_left() {
        let fit = Fit { leave: vec!["tab*".into()], ..Fit::default() };
        let fitted = fit.apply(Path::new("w"), tensors(10, 1000), &decls()).expect("fits");
        assert_eq!((fitted.left, fitted.tensors.len()), (vec!["table".to_owned()], 1));
        let fit = Fit { leave: vec!["head*".into()], ..Fit::default() };
        let error = fit.apply(Path::new("w"), tensors(10, 25), &decls()).unwrap_err().to_string();
        assert!(
            error.contains("`head*` was to be left, but neither file nor model has a tensor of such a name"),
            "{error}"
        );
    }
}
