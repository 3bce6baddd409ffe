//! The names of parameters and submodules, which meet where a submodule is flat or a name has dots.

use std::collections::BTreeMap;
use std::rc::Rc;

use foveate_dsl::ast::Span;

use super::instance::Instance;

/// The names in a module and its flat submodules.
#[derive(Default)]
pub(crate) struct Names<'a>(BTreeMap<String, (Span, Named<'a>)>);

/// What has a name.
pub(crate) enum Named<'a> {
    /// A parameter or state.
    Slot,
    /// A submodule that is not flat.
    Module(Rc<Instance<'a>>),
}

impl Named<'_> {
    /// Whether what is called `own` has nothing in it that begins like the rest of `longer`, which goes on where `own` ends.
    fn is_apart(&self, own: &str, longer: &str) -> bool {
        match (self, longer.strip_prefix(own).and_then(|rest| rest.strip_prefix('.'))) {
            (Named::Module(instance), Some(rest)) => !instance.begins(rest.split('.').next().unwrap_or_default()),
            _ => false,
        }
    }

    /// The full names of the parameters and states.
    fn slots(&self, name: &str) -> Vec<String> {
        match self {
            Named::Slot => vec![name.to_owned()],
            Named::Module(instance) => {
                let mut out = Vec::new();
                instance.slot_names(&format!("{name}."), &mut out);
                out
            }
        }
    }
}

impl<'a> Names<'a> {
    /// Adds a name. If a parameter has a full name then that another one has, gives that name and the place of the other.
    pub fn add(&mut self, name: &str, span: Span, named: Named<'a>) -> Option<(String, Span)> {
        let met = self.meeting(name, &named);
        self.0.insert(name.to_owned(), (span, named));
        met
    }

    fn meeting(&self, name: &str, named: &Named<'a>) -> Option<(String, Span)> {
        let shared = |other: &str, (span, which): &(Span, Named<'a>)| {
            if which.is_apart(other, name) || named.is_apart(name, other) {
                return None;
            }
            let others = which.slots(other);
            named.slots(name).into_iter().find(|slot| others.contains(slot)).map(|slot| (slot, *span))
        };
        // Equal names, and names of which one goes on with a dot where the other ends.
        let above = name.match_indices('.').map(|(at, _)| &name[..at]);
        let mut near = above.chain([name]).filter_map(|other| Some((other, self.0.get(other)?)));
        if let Some(met) = near.find_map(|(other, entry)| shared(other, entry)) {
            return Some(met);
        }
        let inside = format!("{name}.");
        let mut below = self.0.range(inside.clone()..).take_while(|(other, _)| other.starts_with(&inside));
        below.find_map(|(other, entry)| shared(other, entry))
    }
}
