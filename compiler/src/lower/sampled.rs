//! Calls of submodules where only what is wrong is asked for: a `forward` is run once for inputs of the same types.

use std::rc::Rc;

use foveate_dsl::Diagnostic;
use foveate_dsl::ast::{AxisRef, Forward};

use super::builder::View;
use crate::check::axes::{Axis, digits};
use crate::check::elaborator::Elaborator;
use crate::check::instance::{Slot, Submodule};
use crate::check::known::{Fact, Outcome};
use crate::check::report::R;
use crate::ir::{Elem, TensorId};

impl<'a> Elaborator<'a> {
    /// The results of a call: by an outcome that is known, or by running `forward`.
    pub(crate) fn sampled_call(
        &mut self,
        name: &str,
        sub: &Rc<Submodule<'a>>,
        forward: &'a Forward,
        inputs: Vec<View>,
        rest: Option<Vec<Axis>>,
    ) -> R<Vec<View>> {
        let instance = &sub.instance;
        let mut guests = Vec::new();
        let mut inward = |axes: &[Axis]| axes.iter().map(|a| sub.crossing.inward(a, &mut guests)).collect::<Vec<_>>();
        let leading = rest.as_ref().map_or(0, Vec::len);
        let rest = rest.map(|axes| inward(&axes));
        let inputs: Vec<View> = (forward.inputs.iter().zip(inputs))
            .map(|(input, view)| {
                let dims = match (input.dims.first(), &rest) {
                    (Some(AxisRef::Rest(_)), Some(rest)) => rest.iter().chain(&view.dims[leading..]).cloned().collect(),
                    _ => view.dims,
                };
                let label = view.label.map(|l| inward(&[l]).remove(0));
                View { dims, label, ..view }
            })
            .collect();
        let key = call_key(instance.id, rest.as_deref(), &inputs);
        let outcome = match self.known.outcome(self.mode(), &key) {
            Some(fact) => {
                self.mode_matters |= fact.of_mode;
                if instance.item.file == self.spec.root() {
                    self.elaborated.insert(instance.id, Rc::clone(instance));
                }
                fact.what
            }
            None => {
                let (outcome, seen) = self.watched(|x| x.outcome(sub, forward, inputs, rest));
                let what = Rc::new(outcome?);
                if seen.quiet && !seen.exact {
                    let fact = Fact { what: Rc::clone(&what), of_mode: seen.asked, exact: false };
                    self.known.add_outcome(self.mode(), key, fact);
                }
                what
            }
        };
        self.take_outcome(name, sub, &outcome, &guests)
    }

    /// Runs a `forward` by itself.
    fn outcome(
        &mut self,
        sub: &Rc<Submodule<'a>>,
        forward: &'a Forward,
        inputs: Vec<View>,
        rest: Option<Vec<Axis>>,
    ) -> R<Outcome> {
        let outer = std::mem::take(&mut self.builder);
        let views = forward.inputs.iter().zip(inputs).map(|(i, view)| self.input(&i.name.text, i.name.span, view));
        let views = views.collect();
        let results = self.run(&sub.instance, forward, views, rest, String::new());
        let builder = std::mem::replace(&mut self.builder, outer);
        let states = builder.next_states.into_iter().map(|(name, _, span)| (name, span)).collect();
        Ok(Outcome { results: results?, exposed: builder.exposed, states })
    }

    /// Makes the outcome of a call known to the caller.
    fn take_outcome(&mut self, name: &str, sub: &Submodule<'a>, outcome: &Outcome, guests: &[Axis]) -> R<Vec<View>> {
        let outward = |x: &mut Self, view: &View| {
            let dims: Rc<[Axis]> = view.dims.iter().map(|d| sub.crossing.outward(d, sub.instance.id, guests)).collect();
            let label = view.label.as_ref().map(|l| sub.crossing.outward_label(l, guests));
            let tensor = x.sampled_tensor(view.elem, view.batched, &dims);
            View { tensor, store: Rc::clone(&dims), dims, label, ..*view }
        };
        let results = outcome.results.iter().map(|view| outward(self, view)).collect();
        let mut exposed = Vec::new();
        for (rest, view) in &outcome.exposed {
            exposed.push((format!("{}{name}.{rest}", self.frame.path), outward(self, view)));
        }
        for (state, span) in &outcome.states {
            let full = format!("{}{state}", sub.prefix);
            if self.builder.next_states.iter().any(|(n, ..)| *n == full) {
                let d = Diagnostic::error("E0412", format!("the state `{full}` is updated twice in a step"));
                return self.fail(d.primary(*span, ""));
            }
            self.builder.next_states.push((full, TensorId(0), *span));
        }
        for (path, view) in exposed {
            self.builder.exposed.retain(|(n, _)| *n != path);
            self.builder.exposed.push((path, view));
        }
        Ok(results)
    }

    /// A tensor of which only its type matters.
    fn sampled_tensor(&mut self, elem: Elem, batched: bool, dims: &[Axis]) -> TensorId {
        let mut ids = self.dims(dims);
        if batched {
            let batch = self.batch.clone();
            ids.insert(0, self.dim(&batch));
        }
        self.builder.function.new_tensor("", elem, ids, None)
    }

    /// The tensor of a parameter or state, made where it is first asked for. `path` is its name from the module at hand.
    pub(crate) fn sampled_slot(&mut self, path: &str, slot: &Slot) -> TensorId {
        if let Some(tensor) = self.builder.slots.get(path) {
            return *tensor;
        }
        let tensor = self.sampled_tensor(Elem::F32, false, &slot.dims);
        self.builder.slots.insert(path.to_owned(), tensor);
        tensor
    }
}

/// Text that is equal exactly for calls of an instance on inputs of the same types.
fn call_key(instance: u32, rest: Option<&[Axis]>, inputs: &[View]) -> String {
    let mut key = String::new();
    digits(u64::from(instance), &mut key);
    key.push(':');
    let put = |axis: &Axis, key: &mut String| {
        // Atoms of the instance and guests have numbers that belong to them.
        let id = |atom: &Axis, key: &mut String| {
            key.push('@');
            digits(u64::from(atom.id().unwrap_or_default()), key);
        };
        axis.signature(&mut { id }, key);
        key.push(';');
    };
    if let Some(rest) = rest {
        key.push('r');
        rest.iter().for_each(|axis| put(axis, &mut key));
    }
    for view in inputs {
        key.push(if view.batched { 'b' } else { '-' });
        if let Some(label) = &view.label {
            put(label, &mut key);
        }
    }
    key
}
