//! Index types: nominal axes, their products, sums and merges, and which of them match.

use std::cell::OnceCell;
use std::fmt;
use std::rc::Rc;

/// Marks an axis in an identity that no other elaboration has.
pub(crate) const OWN: char = '@';

/// An axis of the language. Cloning is cheap.
#[derive(Clone, Debug)]
pub(crate) struct Axis(Rc<Node>);

#[derive(Debug)]
struct Node {
    /// The declared name; for axes that come out of an expression, its text.
    name: Rc<str>,
    /// The expression that gives the size, where there is one.
    text: Option<Rc<str>>,
    size: usize,
    kind: Kind,
    /// A weak atom that looks like this one, made when it is first asked for.
    weak: OnceCell<Axis>,
}

/// How an axis is made.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// A plain index set. A weak one matches any axis of its size.
    Atom {
        /// Tells atoms of equal names apart.
        id: u32,
        /// The module instance that declares it.
        owner: u32,
        /// Whether it came out of a size expression or a call.
        weak: bool,
    },
    /// `A x B`.
    Product(Vec<Axis>),
    /// `A | B`.
    Sum(Vec<Axis>),
    /// `(A, B)`.
    Merged(Vec<Axis>),
    /// The offsets of a window around the index in another dimension.
    Window(Rc<WindowType>),
    /// The batch.
    Batch,
}

/// What a window does at the border.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Border {
    /// Positions outside take part; reads there give 0.
    Zero,
    /// Positions outside do not take part.
    Mask,
    /// The window shifts inward.
    Clamp,
}

/// A window: per factor of its axis, which positions lie around a centre.
#[derive(Clone, Debug)]
pub(crate) struct WindowType {
    /// The axis its positions are in.
    pub axis: Axis,
    /// Sides, one a factor.
    pub sides: Vec<Axis>,
    /// Steps of the centre.
    pub stride: i64,
    /// Steps within the window.
    pub dilation: i64,
    /// Where it starts relative to the centre.
    pub start: Vec<i64>,
    /// What happens outside.
    pub border: Border,
    /// In a tensor's type: the dimension that holds the centre.
    pub base: Option<usize>,
}

impl WindowType {
    /// Whether two windows have the same positions around the same centre.
    pub fn same(&self, other: &WindowType) -> bool {
        self.stride == other.stride
            && self.dilation == other.dilation
            && self.start == other.start
            && self.border == other.border
            && self.axis.matches(&other.axis)
            && self.sides.len() == other.sides.len()
            && self.sides.iter().zip(&other.sides).all(|(a, b)| a.size() == b.size())
    }
}

impl Axis {
    fn new(name: impl Into<Rc<str>>, text: Option<Rc<str>>, size: usize, kind: Kind) -> Axis {
        Axis(Rc::new(Node { name: name.into(), text, size, kind, weak: OnceCell::new() }))
    }
    /// A declared atom.
    pub fn atom(name: &str, text: Option<String>, size: usize, id: u32, owner: u32) -> Axis {
        Axis::new(name, text.map(Rc::from), size, Kind::Atom { id, owner, weak: false })
    }
    /// An anonymous atom, named by the text of its size.
    pub fn weak(text: &str, size: usize) -> Axis {
        Axis::new(text, None, size, Kind::Atom { id: u32::MAX, owner: u32::MAX, weak: true })
    }
    /// The product of the factors. The caller has checked the size.
    pub fn product(name: &str, factors: Vec<Axis>) -> Axis {
        let size = factors.iter().map(Axis::size).product();
        Axis::new(name, Some(join(&factors, " x ").into()), size, Kind::Product(factors))
    }
    /// The concatenation of the summands.
    pub fn sum(name: &str, summands: Vec<Axis>) -> Axis {
        let size = summands.iter().map(Axis::size).sum();
        Axis::new(name, Some(join(&summands, " | ").into()), size, Kind::Sum(summands))
    }
    /// The row-major merge of axes. The caller has checked the size.
    pub fn merged(parts: Vec<Axis>) -> Axis {
        let size = parts.iter().map(Axis::size).product();
        Axis::new(format!("({})", join(&parts, ", ")), None, size, Kind::Merged(parts))
    }
    /// The offsets of a window.
    pub fn window(ty: Rc<WindowType>) -> Axis {
        let size = ty.sides.iter().map(Axis::size).product();
        Axis::new(format!("window of {}", ty.axis.name()), None, size, Kind::Window(ty))
    }
    /// The batch axis.
    pub fn batch(size: usize) -> Axis {
        Axis::new("Batch", None, size, Kind::Batch)
    }
    /// Its name, or the text of its size.
    pub fn name(&self) -> &str {
        &self.0.name
    }
    /// Number of elements.
    pub fn size(&self) -> usize {
        self.0.size
    }
    /// How it is made.
    pub fn kind(&self) -> &Kind {
        &self.0.kind
    }
    /// Whether it is the batch.
    pub fn is_batch(&self) -> bool {
        matches!(self.0.kind, Kind::Batch)
    }
    /// The factors of a product or the parts of a merge.
    pub fn factors(&self) -> Option<&[Axis]> {
        match &self.0.kind {
            Kind::Product(parts) | Kind::Merged(parts) => Some(parts),
            _ => None,
        }
    }
    /// The dimensions that store it, outermost first: atoms and sums are one, products, merges and windows several.
    pub fn parts(&self) -> Vec<Axis> {
        let mut out = Vec::new();
        self.each_part(&mut |part| out.push(part.clone()));
        out
    }
    /// Hands out those dimensions one after the other.
    pub fn each_part(&self, f: &mut dyn FnMut(&Axis)) {
        match &self.0.kind {
            Kind::Product(parts) | Kind::Merged(parts) => parts.iter().for_each(|part| part.each_part(f)),
            Kind::Window(ty) => ty.sides.iter().for_each(f),
            _ => f(self),
        }
    }
    /// The sizes of those dimensions.
    pub fn part_sizes(&self) -> Vec<usize> {
        let mut out = Vec::new();
        self.each_part(&mut |part| out.push(part.size()));
        out
    }
    /// Where the axis is in memory: equal for clones of one axis, as long as one of them is there.
    pub fn address(&self) -> usize {
        Rc::as_ptr(&self.0) as usize
    }
    /// Whether it matches any axis of its size.
    pub fn is_weak(&self) -> bool {
        match &self.0.kind {
            Kind::Atom { weak, .. } => *weak,
            Kind::Merged(_) => true,
            Kind::Product(parts) | Kind::Sum(parts) => parts.iter().all(Axis::is_weak),
            Kind::Window(_) | Kind::Batch => false,
        }
    }
    /// Whether an index of one axis may be used at the other.
    pub fn matches(&self, other: &Axis) -> bool {
        if Rc::ptr_eq(&self.0, &other.0) {
            return true;
        }
        if self.size() != other.size() {
            return false;
        }
        match (self.kind(), other.kind()) {
            (Kind::Batch, Kind::Batch) => true,
            (Kind::Batch, _) | (_, Kind::Batch) => false,
            (Kind::Window(a), Kind::Window(b)) => a.same(b),
            (Kind::Window(_), _) | (_, Kind::Window(_)) => false,
            (Kind::Atom { id: a, weak: false, .. }, Kind::Atom { id: b, weak: false, .. }) => a == b,
            (Kind::Product(a), Kind::Product(b)) | (Kind::Sum(a), Kind::Sum(b)) => {
                (a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.matches(b))) || self.is_weak() || other.is_weak()
            }
            _ => self.is_weak() || other.is_weak(),
        }
    }
    /// The number of an atom that is not weak.
    pub fn id(&self) -> Option<u32> {
        match self.0.kind {
            Kind::Atom { id, weak: false, .. } => Some(id),
            _ => None,
        }
    }
    /// Whether it is an atom that this module instance declares.
    pub fn is_owned_by(&self, instance: u32) -> bool {
        matches!(self.0.kind, Kind::Atom { owner, .. } if owner == instance)
    }
    /// An atom that looks like this one.
    pub fn renumbered(&self, id: u32, owner: u32) -> Axis {
        let Node { name, text, size, .. } = &*self.0;
        Axis::new(Rc::clone(name), text.clone(), *size, Kind::Atom { id, owner, weak: false })
    }
    /// A weak atom that looks like this one.
    pub fn weakened(&self) -> Axis {
        let Node { name, text, size, weak, .. } = &*self.0;
        let made = || {
            let kind = Kind::Atom { id: u32::MAX, owner: u32::MAX, weak: true };
            Axis::new(Rc::clone(name), text.clone(), *size, kind)
        };
        weak.get_or_init(made).clone()
    }
    /// The axis with other atoms: those for which `f` gives one. It is asked for each that is not weak, and told whether a window is
    /// around it.
    pub fn replaced(&self, f: &mut dyn FnMut(&Axis, bool) -> Option<Axis>) -> Axis {
        self.replaced_within(false, f).unwrap_or_else(|| self.clone())
    }
    fn replaced_within(&self, window: bool, f: &mut dyn FnMut(&Axis, bool) -> Option<Axis>) -> Option<Axis> {
        let node = &*self.0;
        let mut all = |parts: &[Axis]| -> Option<Vec<Axis>> {
            let new: Vec<Option<Axis>> = parts.iter().map(|p| p.replaced_within(window, f)).collect();
            let changed = new.iter().any(Option::is_some);
            changed.then(|| new.into_iter().zip(parts).map(|(new, old)| new.unwrap_or_else(|| old.clone())).collect())
        };
        let kind = match &node.kind {
            Kind::Atom { weak: false, .. } => return f(self, window),
            Kind::Product(parts) => Kind::Product(all(parts)?),
            Kind::Sum(parts) => Kind::Sum(all(parts)?),
            Kind::Merged(parts) => Kind::Merged(all(parts)?),
            Kind::Window(ty) => {
                let axis = ty.axis.replaced_within(true, f)?;
                Kind::Window(Rc::new(WindowType { axis, ..(**ty).clone() }))
            }
            Kind::Atom { .. } | Kind::Batch => return None,
        };
        Some(Axis::new(node.name.clone(), node.text.clone(), node.size, kind))
    }
    /// Text that is equal exactly for axes that cannot be told apart, names included; `atom` adds what tells an atom from others.
    pub fn signature(&self, atom: &mut dyn FnMut(&Axis, &mut String), out: &mut String) {
        use fmt::Write;
        let node = &*self.0;
        // No name and no text of an expression has this character.
        const END: char = '\0';
        for text in [&*node.name, node.text.as_deref().unwrap_or_default()] {
            out.push_str(text);
            out.push(END);
        }
        digits(node.size as u64, out);
        match &node.kind {
            Kind::Atom { weak: false, .. } => atom(self, out),
            Kind::Atom { .. } => out.push('w'),
            Kind::Product(parts) | Kind::Sum(parts) | Kind::Merged(parts) => {
                out.push(match &node.kind {
                    Kind::Product(_) => 'p',
                    Kind::Sum(_) => 's',
                    _ => 'm',
                });
                for part in parts {
                    part.signature(atom, out);
                    out.push(',');
                }
                out.push(')');
            }
            Kind::Window(ty) => {
                let WindowType { axis, sides, stride, dilation, start, border, base } = &**ty;
                let _ = write!(out, "n{stride} {dilation} {start:?} {border:?} {base:?}");
                for part in std::iter::once(axis).chain(sides) {
                    part.signature(atom, out);
                }
                out.push(')');
            }
            Kind::Batch => out.push('b'),
        }
    }
    /// The axis as seen from outside the module instance `owner`: what that declares is weak.
    pub fn seen_from_outside(&self, owner: u32) -> Axis {
        let all = |parts: &[Axis]| -> Option<Vec<Axis>> {
            parts
                .iter()
                .any(|p| p.belongs_to(owner))
                .then(|| parts.iter().map(|p| p.seen_from_outside(owner)).collect())
        };
        let node = &*self.0;
        let kind = match &node.kind {
            Kind::Atom { owner: o, .. } if *o == owner => return self.weakened(),
            Kind::Product(parts) => match all(parts) {
                Some(parts) => Kind::Product(parts),
                None => return self.clone(),
            },
            Kind::Sum(parts) => match all(parts) {
                Some(parts) => Kind::Sum(parts),
                None => return self.clone(),
            },
            Kind::Merged(parts) => match all(parts) {
                Some(parts) => Kind::Merged(parts),
                None => return self.clone(),
            },
            _ => return self.clone(),
        };
        Axis::new(node.name.clone(), node.text.clone(), node.size, kind)
    }
    fn belongs_to(&self, instance: u32) -> bool {
        match &self.0.kind {
            Kind::Atom { owner, .. } => *owner == instance,
            Kind::Product(parts) | Kind::Sum(parts) | Kind::Merged(parts) => {
                parts.iter().any(|p| p.belongs_to(instance))
            }
            _ => false,
        }
    }
    /// Text that is equal exactly for axes of one elaboration that are the same in every respect that lowering can see.
    pub fn identity(&self, out: &mut String) {
        use fmt::Write;
        let mut list = |tag: char, parts: &[Axis]| {
            out.push(tag);
            for part in parts {
                part.identity(out);
                out.push(',');
            }
            out.push(')');
        };
        match &self.0.kind {
            Kind::Atom { id, weak: false, .. } => {
                let _ = write!(out, "{OWN}{id}:{}", self.size());
            }
            Kind::Atom { .. } => {
                let _ = write!(out, "w{}", self.size());
            }
            Kind::Product(parts) => list('p', parts),
            Kind::Sum(parts) => list('s', parts),
            Kind::Merged(parts) => list('m', parts),
            Kind::Window(ty) => {
                let _ = write!(out, "n{ty:?}");
            }
            Kind::Batch => out.push('b'),
        }
    }
}

impl fmt::Display for Axis {
    /// The name, where it comes from, and its size: `Grid = Gy x Gx = 196`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = &*self.0;
        f.write_str(&node.name)?;
        if let Some(text) = &node.text {
            write!(f, " = {text}")?;
        }
        if *node.name != node.size.to_string() {
            write!(f, " = {}", node.size)?;
        }
        Ok(())
    }
}

/// The axes of a shape as text: `[Grid = Gy x Gx = 196, C = 384]`.
pub(crate) fn shape(axes: &[Axis]) -> String {
    let parts: Vec<String> = axes.iter().map(Axis::to_string).collect();
    format!("[{}]", parts.join(", "))
}

/// Adds a number to a text; formatting takes longer.
pub(crate) fn digits(n: u64, out: &mut String) {
    if n > 9 {
        digits(n / 10, out);
    }
    out.push(char::from(b'0' + (n % 10) as u8));
}

fn join(axes: &[Axis], by: &str) -> String {
    axes.iter().map(Axis::name).collect::<Vec<_>>().join(by)
}
