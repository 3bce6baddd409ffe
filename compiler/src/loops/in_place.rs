//! Which buffer of a kernel may lie where another one lies: a result that takes the place of what it was computed from.
//!
//! That is so when every work item reads of the one just the elements that it writes of the other, no other item writes them, and what it writes
//! depends on what it read there, so that no order of its operations reads an element after it was written. Items may write the same
//! element twice where a kernel's last item is moved back to end with the buffer; then neither may replace the other. Which elements
//! items touch is found by computing their addresses.

use super::{BufferId, Kernel, Op, Stmt, ValueId};
use crate::ir::{BinaryOp, Elem};
use std::collections::{HashMap, HashSet};

/// Steps of address arithmetic that are tried at most; a kernel with more has its results elsewhere.
const MOST_STEPS: usize = 1 << 26;

/// A pair of buffers of a kernel that may be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InPlace {
    /// The buffer that is read.
    pub read: BufferId,
    /// The buffer that is written.
    pub written: BufferId,
}

/// An access to a buffer: where, and how many elements.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Access {
    index: ValueId,
    lanes: usize,
}

/// All pairs of a kernel's buffers that may be one. Kernels with loops or conditions have none.
pub fn in_place(kernel: &Kernel) -> Vec<InPlace> {
    let Some(flat) = Flat::of(kernel) else { return Vec::new() };
    let mut out = Vec::new();
    for (written, stores) in &flat.stores {
        let buffer = |id: BufferId| &kernel.buffers[id.0 as usize];
        // What is read and written under one name already is no pair of buffers.
        if flat.loads.contains_key(written) || buffer(*written).elem == Elem::Bool {
            continue;
        }
        let fits = |read: &BufferId| {
            let same = buffer(*read).elem == buffer(*written).elem && buffer(*read).len == buffer(*written).len;
            same && !flat.stores.contains_key(read) && flat.loads[read].iter().all(|load| flat.feeds(load, stores))
        };
        let mut reads: Vec<BufferId> = flat.loads.keys().copied().filter(fits).collect();
        reads.sort();
        if !reads.is_empty() && flat.apart(stores, buffer(*written).len) {
            out.extend(reads.into_iter().map(|read| InPlace { read, written: *written }));
        }
    }
    out.sort_by_key(|pair| (pair.written, pair.read));
    out
}

/// A kernel without loops.
struct Flat<'a> {
    kernel: &'a Kernel,
    ops: HashMap<ValueId, &'a Op>,
    /// What is loaded of each buffer: the access, and the value.
    loads: HashMap<BufferId, Vec<(Access, ValueId)>>,
    /// What is stored to each buffer.
    stores: HashMap<BufferId, Vec<(Access, ValueId)>>,
}

impl<'a> Flat<'a> {
    fn of(kernel: &'a Kernel) -> Option<Flat<'a>> {
        let mut flat = Flat { kernel, ops: HashMap::new(), loads: HashMap::new(), stores: HashMap::new() };
        let lanes = |v: ValueId| usize::from(kernel.values[v.0 as usize].lanes);
        for stmt in &kernel.body {
            match stmt {
                Stmt::Let(value, op) => {
                    match op {
                        Op::Load { buffer, index } => {
                            let access = Access { index: *index, lanes: lanes(*value) };
                            flat.loads.entry(*buffer).or_default().push((access, *value));
                        }
                        // Elements here and there: no access of a store is like that.
                        Op::Gather { buffer, index } => {
                            let access = Access { index: *index, lanes: 0 };
                            flat.loads.entry(*buffer).or_default().push((access, *value));
                        }
                        _ => {}
                    }
                    flat.ops.insert(*value, op);
                }
                Stmt::Store { buffer, index, value } => {
                    let access = Access { index: *index, lanes: lanes(*value) };
                    flat.stores.entry(*buffer).or_default().push((access, *value));
                }
                Stmt::Prefetch { .. } => {}
                _ => return None,
            }
        }
        Some(flat)
    }

    /// Whether what is stored at the place of a load depends on it.
    fn feeds(&self, (access, loaded): &(Access, ValueId), stores: &[(Access, ValueId)]) -> bool {
        stores.iter().any(|(place, value)| place == access && self.depends(*value, *loaded))
    }

    fn depends(&self, value: ValueId, on: ValueId) -> bool {
        let (mut seen, mut open) = (HashSet::new(), vec![value]);
        while let Some(v) = open.pop() {
            if v == on {
                return true;
            }
            if seen.insert(v)
                && let Some(op) = self.ops.get(&v)
            {
                open.extend(op.operands());
            }
        }
        false
    }

    /// Whether no two stores of all items write the same element.
    fn apart(&self, stores: &[(Access, ValueId)], len: usize) -> bool {
        let mut order = Vec::new();
        for (access, _) in stores {
            if !self.address(access.index, &mut order) {
                return false;
            }
        }
        let items = self.kernel.items;
        if (items as usize).saturating_mul(order.len() + stores.len()) > MOST_STEPS {
            return false;
        }
        let mut values = vec![0; self.kernel.values.len()];
        let mut written = vec![false; len];
        for item in 0..items {
            for &v in &order {
                let Some(value) = integer(self.ops[&v], &values, i64::from(item)) else { return false };
                values[v.0 as usize] = value;
            }
            for (access, _) in stores {
                let first = values[access.index.0 as usize];
                let Some(range) = usize::try_from(first).ok().map(|first| first..first + access.lanes) else {
                    return false;
                };
                let Some(elements) = written.get_mut(range) else { return false };
                if elements.contains(&true) {
                    return false;
                }
                elements.fill(true);
            }
        }
        true
    }

    /// Adds the values that an address is computed from, operands first; false if they are not integers known from the item alone.
    fn address(&self, value: ValueId, order: &mut Vec<ValueId>) -> bool {
        if order.contains(&value) {
            return true;
        }
        let Some(op) = self.ops.get(&value) else { return false };
        let known = match op {
            Op::Item | Op::Const(_) => true,
            Op::Binary(_, a, b) | Op::Rem(a, b) => self.address(*a, order) && self.address(*b, order),
            _ => false,
        };
        order.push(value);
        known
    }
}

/// The value of integer arithmetic whose operands are known.
fn integer(op: &Op, values: &[i64], item: i64) -> Option<i64> {
    let of = |v: &ValueId| values[v.0 as usize];
    Some(match op {
        Op::Item => item,
        Op::Const(bits) => f64::from_bits(*bits) as i64,
        Op::Rem(a, b) => of(a).checked_rem(of(b))?,
        Op::Binary(op, a, b) => {
            let (a, b) = (of(a), of(b));
            match op {
                BinaryOp::Add => a + b,
                BinaryOp::Sub => a - b,
                BinaryOp::Mul => a.checked_mul(b)?,
                BinaryOp::Div => a.checked_div(b)?,
                BinaryOp::Min => a.min(b),
                BinaryOp::Max => a.max(b),
                _ => return None,
            }
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loops::{Buffer, Type};

    /// y[16 item + shift ..] = x[16 item + shift ..] + x[other ..], for 4 items.
    fn kernel(len: usize, last: f64, other: u32) -> Kernel {
        let scalar = Type { elem: Elem::I32, lanes: 1 };
        let vector = Type { elem: Elem::F32, lanes: 16 };
        let [item, size, start, end, place, x, more, sum] = [0, 1, 2, 3, 4, 5, 6, 7].map(ValueId);
        let load = |index| Op::Load { buffer: BufferId(0), index };
        let body = vec![
            Stmt::Let(item, Op::Item),
            Stmt::Let(size, Op::Const(16f64.to_bits())),
            Stmt::Let(start, Op::Binary(BinaryOp::Mul, item, size)),
            Stmt::Let(end, Op::Const(last.to_bits())),
            Stmt::Let(place, Op::Binary(BinaryOp::Min, start, end)),
            Stmt::Let(x, load(place)),
            Stmt::Let(more, load(ValueId(other))),
            Stmt::Let(sum, Op::Binary(BinaryOp::Add, x, more)),
            Stmt::Store { buffer: BufferId(1), index: place, value: sum },
        ];
        let buffer = |name: &str, written| Buffer { name: name.into(), elem: Elem::F32, len, written };
        Kernel {
            name: "k".into(),
            buffers: vec![buffer("x", false), buffer("y", true)],
            locals: vec![],
            values: vec![scalar, scalar, scalar, scalar, scalar, vector, vector, vector],
            regs: vec![],
            items: 4,
            body,
        }
    }

    #[test]
    fn what_is_read_only_where_it_is_written_may_be_replaced() {
        let pair = InPlace { read: BufferId(0), written: BufferId(1) };
        assert_eq!(in_place(&kernel(64, 48.0, 4)), vec![pair]);
    }

    #[test]
    fn items_that_overlap_do_not_replace() {
        assert_eq!(in_place(&kernel(61, 45.0, 4)), vec![]);
    }

    #[test]
    fn what_other_items_read_is_not_replaced() {
        // The other read is at the end of the buffer for all items.
        assert_eq!(in_place(&kernel(64, 48.0, 3)), vec![]);
    }
}
