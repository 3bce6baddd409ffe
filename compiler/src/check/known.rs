//! What one elaboration of a check leaves to those after it.
//!
//! A check elaborates every item several times, and most of what an item holds is held by others too. Where only what is wrong is asked
//! for, a module with given arguments is looked at once: it is made an instance once, and its `forward` is run once for inputs of the same
//! types. Only what went through without a word is kept, so that nothing that is wrong is passed over.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use foveate_dsl::ast::Span;
use rustc_hash::FxHashMap;

use super::axes::Axis;
use super::instance::Instance;
use crate::lower::builder::View;

/// What is known of the modules of a spec.
#[derive(Default)]
pub(crate) struct Known<'a> {
    /// The last number that was given out.
    number: Cell<u32>,
    /// For inference and for training; what never asked which is in both.
    modes: [RefCell<Facts<'a>>; 2],
}

#[derive(Default)]
struct Facts<'a> {
    uses: FxHashMap<String, Fact<Use<'a>>>,
    instances: FxHashMap<String, Fact<Rc<Instance<'a>>>>,
    calls: FxHashMap<String, Fact<Rc<Outcome>>>,
}

/// Something known, and for what it holds.
#[derive(Clone)]
pub(crate) struct Fact<T> {
    pub what: T,
    /// Whether it holds in one mode only.
    pub of_mode: bool,
    /// Whether it holds for these very rates only.
    pub exact: bool,
}

/// What arguments of a module lead to.
#[derive(Clone)]
pub(crate) struct Use<'a> {
    pub instance: Rc<Instance<'a>>,
    /// For each axis of the arguments, in order, the one that stands for it in the instance.
    pub inner: Rc<[Option<Axis>]>,
}

/// What a call gives, by the axes of the instance.
pub(crate) struct Outcome {
    /// The results; their tensors mean nothing.
    pub results: Vec<View>,
    /// Exposed values by path from the instance.
    pub exposed: Vec<(String, View)>,
    /// The states that it updates, by name from the instance, with the places that say so.
    pub states: Vec<(String, Span)>,
}

impl<'a> Known<'a> {
    /// A number that was not used before.
    pub fn fresh(&self) -> u32 {
        self.number.set(self.number.get() + 1);
        self.number.get()
    }

    /// What arguments as they are written lead to.
    pub fn used(&self, training: bool, key: &str) -> Option<Fact<Use<'a>>> {
        self.modes[usize::from(training)].borrow().uses.get(key).cloned()
    }

    /// The instance for parameters as they are bound.
    pub fn instance(&self, training: bool, key: &str) -> Option<Fact<Rc<Instance<'a>>>> {
        self.modes[usize::from(training)].borrow().instances.get(key).cloned()
    }

    /// The outcome of a call.
    pub fn outcome(&self, training: bool, key: &str) -> Option<Fact<Rc<Outcome>>> {
        self.modes[usize::from(training)].borrow().calls.get(key).cloned()
    }

    pub fn add_use(&self, training: bool, key: String, fact: Fact<Use<'a>>) {
        self.add(training, key, fact, |facts| &mut facts.uses);
    }

    pub fn add_instance(&self, training: bool, key: String, fact: Fact<Rc<Instance<'a>>>) {
        self.add(training, key, fact, |facts| &mut facts.instances);
    }

    pub fn add_outcome(&self, training: bool, key: String, fact: Fact<Rc<Outcome>>) {
        self.add(training, key, fact, |facts| &mut facts.calls);
    }

    fn add<T: Clone>(
        &self,
        training: bool,
        key: String,
        fact: Fact<T>,
        table: impl for<'f> Fn(&'f mut Facts<'a>) -> &'f mut FxHashMap<String, Fact<T>>,
    ) {
        if !fact.of_mode {
            table(&mut self.modes[usize::from(!training)].borrow_mut()).insert(key.clone(), fact.clone());
        }
        table(&mut self.modes[usize::from(training)].borrow_mut()).insert(key, fact);
    }
}
