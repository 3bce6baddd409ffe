//! Functions that are called more than once.

use super::points::expr;
use super::{Draw, Known, Scope, World, definitions};
use foveate_compiler::ir::*;

/// A function of a tensor and a parameter that gives a tensor of the same shape, and perhaps another one: called once, and with another parameter on
/// what that gave, as blocks are.
pub fn repeated(d: &mut Draw, w: &mut World, name: &str) {
    let x = d.of(&w.floats.iter().collect::<Vec<_>>()).clone();
    let mut inside = World::new(w.b.program.axes.clone(), w.batch);
    let ty = w.b.function().tensor(x.id).clone();
    let formal = inside.b.function().new_tensor("x", ty.elem, ty.dims.clone(), None);
    inside.b.function().args.push(Arg { tensor: formal, role: ArgRole::Input("x".to_owned()) });
    inside.floats.push(Known { id: formal, ..x.clone() });
    let weight: Vec<usize> = (0..1 + d.below(2)).map(|_| d.of(&super::SIZES)).collect();
    inside.argument(ArgRole::Param("w".to_owned()), Elem::F64, &weight);
    for n in 0..1 + d.below(2) {
        definitions(d, &mut inside, &format!("e{n}"), false);
    }
    if d.below(2) == 0 {
        inside.give_last();
    }
    // A tensor of the argument's dimensions.
    let vars: Vec<VarId> = ty.dims.iter().map(|&a| inside.b.function().new_var("a", a)).collect();
    let batch = x.batched.then(|| vars[0]);
    let others = vars[usize::from(x.batched)..].iter().copied().zip(x.shape.iter().copied());
    let scope = Scope { batch, vars: others.collect() };
    let body = expr(d, &inside, &scope, 3);
    let y = inside.define("y", &scope, body);
    inside.b.result(y);

    w.b.program.axes = std::mem::take(&mut inside.b.program.axes);
    let mut callee = inside.b.program.functions.remove(0);
    callee.name = format!("f{}", w.callees.len());
    let function = FuncId(w.callees.len() as u32);
    let mut argument = x.id;
    for n in 0..2 {
        let weight = w.argument(ArgRole::Param(format!("{name}.w{n}")), Elem::F64, &weight);
        let mut results = Vec::new();
        for r in &callee.results {
            let ty = callee.tensor(r.tensor).clone();
            let id = w.b.function().new_tensor(format!("{name}.{n}.{}", ty.name), ty.elem, ty.dims.clone(), None);
            results.push(id);
            let sizes: Vec<usize> = ty.dims.iter().map(|&a| w.b.program.size(a)).collect();
            let batched = ty.dims.first().is_some_and(|a| w.b.program.axes[a.index()].name == "Batch");
            w.known(ty.elem).push(Known { id, shape: sizes[usize::from(batched)..].to_vec(), batched });
        }
        let site = format!("{name}.{n}");
        let last = *results.last().expect("a result");
        let call = Call { function, args: vec![argument, weight], results, site };
        w.b.function().body.push(Stmt::Call(call));
        argument = last;
    }
    w.callees.push(callee);
}
