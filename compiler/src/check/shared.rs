//! Instances that several modules share, where only what is wrong is asked for.

use std::rc::Rc;

use foveate_dsl::ast::{Module, Span};

use super::axes::Axis;
use super::crossing::Crossing;
use super::elaborator::Elaborator;
use super::instance::Instance;
use super::known::{Fact, Use};
use super::report::R;
use super::spec::ItemRef;
use super::value::Static;

impl<'a> Elaborator<'a> {
    /// An instance for these arguments and how its axes lie to theirs: one that is known, or else a new one. `name` is the submodule's.
    pub(crate) fn shared_instance(
        &mut self,
        item: ItemRef,
        module: &'a Module,
        given: Vec<Option<(Static, Span)>>,
        name: &str,
        span: Span,
    ) -> R<(Rc<Instance<'a>>, Crossing)> {
        self.not_within(item, module, span)?;
        let mut atoms = Vec::new();
        let key = written(item, &given, &mut atoms);
        if let Some(fact) = self.known.used(self.mode(), &key) {
            self.mode_matters |= fact.of_mode;
            self.exact |= fact.exact;
            let pairs = fact.what.inner.iter().zip(atoms).filter_map(|(inner, outer)| Some((inner.clone()?, outer)));
            return Ok((fact.what.instance, Crossing::new(pairs.collect())));
        }
        let (made, seen) = self.watched(|x| x.bound_instance(item, module, given, name, span));
        let (instance, crossing) = made?;
        if seen.quiet {
            let inner = atoms.iter().map(|outer| crossing.inner(outer).cloned()).collect();
            let what = Use { instance: Rc::clone(&instance), inner };
            self.known.add_use(self.mode(), key, Fact { what, of_mode: seen.asked, exact: seen.exact });
        }
        Ok((instance, crossing))
    }

    /// The same by the values that the parameters get, in which rates count by their band only.
    fn bound_instance(
        &mut self,
        item: ItemRef,
        module: &'a Module,
        given: Vec<Option<(Static, Span)>>,
        name: &str,
        span: Span,
    ) -> R<(Rc<Instance<'a>>, Crossing)> {
        let id = self.fresh();
        let (bound, _) = self.parameters(item, module, given, id, span)?;
        let mut atoms = Vec::new();
        let mut key = format!("{}.{}:", item.file, item.item);
        for (_, value) in bound.entries() {
            value.signature(true, &mut atoms, &mut key);
            key.push(';');
        }
        let crossing = |instance: &Instance<'a>| {
            let pairs = instance.formals.iter().cloned().zip(atoms.iter().cloned());
            Crossing::new(pairs.filter(|(_, outer)| !outer.is_owned_by(id)).collect())
        };
        if let Some(fact) = self.known.instance(self.mode(), &key) {
            self.mode_matters |= fact.of_mode;
            let crossing = crossing(&fact.what);
            return Ok((fact.what, crossing));
        }
        let (made, seen) = self.watched(|x| {
            let formals: Vec<Axis> = (atoms.iter())
                .map(|a| if a.is_owned_by(id) { a.clone() } else { a.renumbered(x.fresh(), id) })
                .collect();
            let arguments = bound.replaced(&mut |atom, _| {
                let at = atoms.iter().position(|a| a.id() == atom.id())?;
                Some(formals[at].clone())
            });
            // Its names are its own, wherever it is.
            let names = std::mem::take(&mut x.names);
            let place = x.place.len();
            x.place.push_str(name);
            x.place.push('.');
            let made = x.instance_in(item, module, arguments, String::new(), id, String::new(), formals);
            x.place.truncate(place);
            x.names = names;
            made
        });
        let instance = made?;
        if seen.quiet && !seen.exact {
            let what = Rc::clone(&instance);
            self.known.add_instance(self.mode(), key, Fact { what, of_mode: seen.asked, exact: false });
        }
        let crossing = crossing(&instance);
        Ok((instance, crossing))
    }
}

/// Text for arguments as they are written; their atoms go to `atoms`.
fn written(item: ItemRef, given: &[Option<(Static, Span)>], atoms: &mut Vec<Axis>) -> String {
    let mut key = format!("{}.{}:", item.file, item.item);
    for value in given {
        if let Some((value, _)) = value {
            value.signature(false, atoms, &mut key);
        }
        key.push(';');
    }
    key
}
