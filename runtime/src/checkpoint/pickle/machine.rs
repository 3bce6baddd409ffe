//! The stack machine of pickles: one operation after the other, each putting values together and none running anything.

use super::names::is_harmless;
use super::{Node, PARTS, Pickle, Value};
use std::collections::HashMap;

/// Why reading ends early.
pub(super) enum Fault {
    /// The bytes end.
    Ends,
    /// A function that is not among the harmless ones.
    Forbidden(String),
    /// More of something than weights need.
    Large(String),
    /// Anything else.
    Bad(String),
}

pub(super) type Step<T> = Result<T, Fault>;

fn bad<T>(what: impl Into<String>) -> Step<T> {
    Err(Fault::Bad(what.into()))
}

/// Most values on the stack.
const STACK: usize = 1 << 20;

pub(super) struct Machine<'a> {
    pub(super) pickle: Pickle<'a>,
    /// The next byte.
    pub(super) at: usize,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u64, Value>,
    /// The functions and classes so far.
    names: HashMap<String, u32>,
    /// Parts that there may still be.
    left: usize,
}

impl<'a> Machine<'a> {
    pub(super) fn new(pickle: Pickle<'a>) -> Machine<'a> {
        let (stack, marks) = (Vec::new(), Vec::new());
        Machine { pickle, at: 0, stack, marks, memo: HashMap::new(), names: HashMap::new(), left: PARTS }
    }

    fn take(&mut self, n: u64) -> Step<&'a [u8]> {
        let end = usize::try_from(n).ok().and_then(|n| self.at.checked_add(n)).ok_or(Fault::Ends)?;
        let bytes = self.pickle.bytes.get(self.at..end).ok_or(Fault::Ends)?;
        self.at = end;
        Ok(bytes)
    }
    /// A little-endian unsigned number of `n` bytes.
    fn number(&mut self, n: u64) -> Step<u64> {
        Ok(self.take(n)?.iter().rev().fold(0, |sum, &b| sum << 8 | u64::from(b)))
    }
    /// The range of the bytes up to the end of the line.
    fn line(&mut self) -> Step<(usize, usize)> {
        let start = self.at;
        let length = self.pickle.bytes[start..].iter().position(|&b| b == b'\n').ok_or(Fault::Ends)?;
        self.at = start + length + 1;
        Ok((start, start + length))
    }
    fn line_text(&mut self) -> Step<&'a str> {
        let (start, end) = self.line()?;
        std::str::from_utf8(&self.pickle.bytes[start..end]).or_else(|_| bad("a line that is not UTF-8"))
    }
    /// A text of `n` bytes that follow.
    fn text(&mut self, n: u64) -> Step<Value> {
        let start = self.at;
        self.take(n)?;
        Ok(Value::Text(start as u32, self.at as u32))
    }
    fn pop(&mut self) -> Step<Value> {
        if self.marks.last() == Some(&self.stack.len()) {
            return bad("a value is expected, but there is a mark");
        }
        self.stack.pop().map_or_else(|| bad("the stack is empty"), Ok)
    }
    fn top(&mut self) -> Step<Value> {
        let value = self.pop()?;
        self.stack.push(value);
        Ok(value)
    }
    /// All above the last mark.
    fn pop_mark(&mut self) -> Step<Vec<Value>> {
        match self.marks.pop() {
            // Not `split_off`, which may hand over the memory of a far larger stack.
            Some(mark) => Ok(self.stack.drain(mark..).collect()),
            None => bad("no mark"),
        }
    }
    /// Takes memory for so many parts.
    fn spend(&mut self, parts: usize) -> Step<()> {
        let Some(left) = self.left.checked_sub(parts) else {
            return Err(Fault::Large(format!("has more than {PARTS} parts")));
        };
        self.left = left;
        Ok(())
    }
    fn push_node(&mut self, node: Node) -> Step<()> {
        self.spend(1)?;
        self.pickle.nodes.push(node);
        self.stack.push(Value::Node(self.pickle.nodes.len() as u32 - 1));
        Ok(())
    }
    fn remember(&mut self, place: u64) -> Step<()> {
        let value = self.top()?;
        if self.memo.insert(place, value).is_none() {
            self.spend(1)?;
        }
        Ok(())
    }
    fn recall(&mut self, place: u64) -> Step<()> {
        match self.memo.get(&place) {
            Some(&value) => self.stack.push(value),
            None => return bad(format!("memo {place} was never set")),
        }
        Ok(())
    }
    fn push_global(&mut self, module: &str, name: &str) -> Step<()> {
        // Python 2 had other names for these modules.
        let module = match module {
            "__builtin__" => "builtins",
            "copy_reg" => "copyreg",
            other => other,
        };
        let full = format!("{module}.{name}");
        let n = match self.names.get(&full) {
            Some(&n) => n,
            None if !is_harmless(&full) => return Err(Fault::Forbidden(full)),
            None => {
                let n = self.pickle.globals.len() as u32;
                self.pickle.globals.push(full.clone());
                self.names.insert(full, n);
                n
            }
        };
        self.stack.push(Value::Global(n));
        Ok(())
    }
    /// Puts a call in the place of a function and its arguments. Dictionaries with another name are dictionaries.
    fn push_call(&mut self, function: Value, arguments: Value) -> Step<()> {
        let Some(name) = self.pickle.global(function) else { return bad("a call of something that is no function") };
        let Some(given) = self.pickle.sequence(arguments) else { return bad("arguments that are no tuple") };
        let pairs = match (name, given) {
            ("collections.OrderedDict" | "builtins.dict" | "collections.Counter", []) => Some(Vec::new()),
            ("collections.defaultdict", _) => Some(Vec::new()),
            ("collections.OrderedDict", [items]) => {
                let pair = |&item: &Value| match self.pickle.sequence(item)? {
                    [key, value] => Some((*key, *value)),
                    _ => None,
                };
                self.pickle.sequence(*items).and_then(|items| items.iter().map(pair).collect())
            }
            _ => None,
        };
        self.spend(pairs.as_ref().map_or(0, Vec::len))?;
        self.push_node(pairs.map_or(Node::Call(function, arguments), Node::Dictionary))
    }
    fn extend(&mut self, items: Vec<Value>) -> Step<()> {
        match self.top()? {
            Value::Node(n) => match &mut self.pickle.nodes[n as usize] {
                Node::Sequence(list) => list.extend(items),
                // A list of another class: nobody asks for it.
                Node::Call(..) => {}
                _ => return bad("elements for something that is no list"),
            },
            Value::None => {}
            _ => return bad("elements for something that is no list"),
        }
        Ok(())
    }
    fn set_items(&mut self, items: &[Value]) -> Step<()> {
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return bad("a key without a value");
        }
        match self.top()? {
            Value::Node(n) => match &mut self.pickle.nodes[n as usize] {
                Node::Dictionary(entries) => entries.extend(pairs.iter().map(|&[key, value]| (key, value))),
                Node::Call(..) => {}
                _ => return bad("entries for something that is no dictionary"),
            },
            _ => return bad("entries for something that is no dictionary"),
        }
        Ok(())
    }

    /// Does one operation; true at the last.
    pub(super) fn step(&mut self) -> Step<bool> {
        if self.stack.len().max(self.marks.len()) > STACK {
            return Err(Fault::Large(format!("stacks more than {STACK} values")));
        }
        let code = self.take(1)?[0];
        match code {
            0x80 => match self.number(1)? {
                0..=5 => {}
                other => return bad(format!("protocol {other}; those up to 5 are read")),
            },
            0x95 => {
                self.take(8)?; // a frame's length: nothing depends on it
            }
            b'.' => {
                self.pickle.root = self.pop()?;
                return Ok(true);
            }
            b'(' => self.marks.push(self.stack.len()),
            b'0' => match self.marks.last() == Some(&self.stack.len()) {
                true => _ = self.marks.pop(),
                false => _ = self.pop()?,
            },
            b'1' => _ = self.pop_mark()?,
            b'2' => {
                let value = self.top()?;
                self.stack.push(value);
            }
            b'N' => self.stack.push(Value::None),
            0x88 => self.stack.push(Value::Bool(true)),
            0x89 => self.stack.push(Value::Bool(false)),
            b'J' => {
                let n = self.number(4)? as u32;
                self.stack.push(Value::Int(i64::from(n.cast_signed())));
            }
            b'K' | b'M' => {
                let n = self.number(if code == b'K' { 1 } else { 2 })?;
                self.stack.push(Value::Int(n.cast_signed()));
            }
            b'I' | b'L' => {
                let text = self.line_text()?;
                self.stack.push(match text {
                    "00" => Value::Bool(false),
                    "01" => Value::Bool(true),
                    _ => text.trim_end_matches('L').parse().map_or(Value::None, Value::Int),
                });
            }
            0x8a | 0x8b => {
                let n = self.number(if code == 0x8a { 1 } else { 4 })?;
                let bytes = self.take(n)?;
                self.stack.push(signed(bytes).map_or(Value::None, Value::Int));
            }
            b'F' => {
                let text = self.line_text()?;
                self.stack.push(text.parse().map_or(Value::None, Value::Float));
            }
            b'G' => {
                let bits = self.take(8)?.iter().fold(0, |sum: u64, &b| sum << 8 | u64::from(b));
                self.stack.push(Value::Float(f64::from_bits(bits)));
            }
            b'S' => {
                let (start, end) = self.line()?;
                if end - start < 2 {
                    return bad("a string without quotes");
                }
                self.stack.push(Value::Text(start as u32 + 1, end as u32 - 1));
            }
            b'V' => {
                let (start, end) = self.line()?;
                self.stack.push(Value::Text(start as u32, end as u32));
            }
            b'U' | 0x8c | b'C' => self.push_text(1)?,
            b'T' | b'X' | b'B' => self.push_text(4)?,
            0x8d | 0x8e | 0x96 => self.push_text(8)?,
            b']' | b')' => self.push_node(Node::Sequence(Vec::new()))?,
            b'}' => self.push_node(Node::Dictionary(Vec::new()))?,
            0x8f => self.stack.push(Value::None),
            b't' | b'l' => {
                let items = self.pop_mark()?;
                self.push_node(Node::Sequence(items))?;
            }
            0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0..code - 0x84 {
                    items.insert(0, self.pop()?);
                }
                self.push_node(Node::Sequence(items))?;
            }
            b'd' => {
                let items = self.pop_mark()?;
                self.push_node(Node::Dictionary(Vec::new()))?;
                self.set_items(&items)?;
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                self.extend(items)?;
            }
            0x91 => {
                self.pop_mark()?;
                self.stack.push(Value::None);
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set_items(&items)?;
            }
            b'g' | b'p' => {
                let text = self.line_text()?;
                let Ok(place) = text.parse() else { return bad("a memo that is no number") };
                if code == b'g' { self.recall(place)? } else { self.remember(place)? }
            }
            b'h' | b'j' => {
                let place = self.number(if code == b'h' { 1 } else { 4 })?;
                self.recall(place)?;
            }
            b'q' | b'r' => {
                let place = self.number(if code == b'q' { 1 } else { 4 })?;
                self.remember(place)?;
            }
            0x94 => self.remember(self.memo.len() as u64)?,
            b'c' => {
                let (module, name) = (self.line_text()?, self.line_text()?);
                self.push_global(module, name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.pickle.text(module), self.pickle.text(name)) {
                    (Some(module), Some(name)) => self.push_global(module, name)?,
                    _ => return bad("a function whose name is no text"),
                }
            }
            b'R' | 0x81 => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                self.push_call(function, arguments)?;
            }
            0x92 => {
                self.pop()?; // named arguments
                let (arguments, function) = (self.pop()?, self.pop()?);
                self.push_call(function, arguments)?;
            }
            b'b' => {
                self.pop()?; // the state of an object: nobody asks for it
                self.top()?;
            }
            b'P' => {
                let (start, end) = self.line()?;
                self.push_node(Node::Persistent(Value::Text(start as u32, end as u32)))?;
            }
            b'Q' => {
                let id = self.pop()?;
                self.push_node(Node::Persistent(id))?;
            }
            b'i' => {
                let (module, name) = (self.line_text()?, self.line_text()?);
                return Err(Fault::Forbidden(format!("{module}.{name}")));
            }
            other => return bad(format!("operation {other:#04x} is not read")),
        }
        Ok(false)
    }

    /// A text after its length in `n` bytes.
    fn push_text(&mut self, n: u64) -> Step<()> {
        let length = self.number(n)?;
        let text = self.text(length)?;
        self.stack.push(text);
        Ok(())
    }
}

/// A little-endian two's-complement number, if 64 bits hold it.
fn signed(bytes: &[u8]) -> Option<i64> {
    let Some(&last) = bytes.last() else { return Some(0) };
    let mut full = if last & 0x80 == 0 { [0; 8] } else { [0xFF; 8] };
    full.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i64::from_le_bytes(full))
}
