//! Pickles, read as data.
//!
//! A pickle is a program for a stack machine that may call any Python function. Here nothing is ever called: a call is kept as a node with
//! its function's name, and a name that weights have no use for ends the reading. The nodes lie in one vector, so that no nesting,
//! however deep, can exhaust the stack, and strings stay where they are in the file; memory grows with the file and no faster.
//!
//! The operations are those of protocols 0 to 5 (Python's `pickletools` describes each).

use std::collections::HashMap;

/// Longest pickle that is read. It holds names, shapes and settings, and no weights.
pub const LONGEST: usize = 4 << 20;

/// Functions and classes that may be named. Their calls are data here like everything else.
const HARMLESS: [&str; 22] = [
    "collections.OrderedDict",
    "collections.defaultdict",
    "collections.Counter",
    "argparse.Namespace",
    "builtins.set",
    "builtins.frozenset",
    "builtins.dict",
    "builtins.list",
    "builtins.slice",
    "builtins.complex",
    "_codecs.encode",
    "copyreg._reconstructor",
    "builtins.object",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib.PurePosixPath",
    "numpy.dtype",
    "numpy.ndarray",
    "numpy.core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
];
/// So may types and the functions that put tensors together.
const HARMLESS_TORCH: [&str; 11] = [
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch._tensor._rebuild_from_type_v2",
    "torch.Tensor",
    "torch.nn.parameter.Parameter",
    "torch.Size",
    "torch.device",
    "torch.storage.UntypedStorage",
];

/// A value. Compound ones are nodes of the [`Pickle`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// `None`, and what nobody asks for: sets, states of objects.
    None,
    /// A truth value.
    Bool(bool),
    /// An integer of at most 64 bits.
    Int(i64),
    /// A number.
    Float(f64),
    /// Text or bytes, as a range of the file.
    Text(u32, u32),
    /// A function or class, as an index into the names.
    Global(u32),
    /// A tuple, list, dictionary or call.
    Node(u32),
}

/// A compound value.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// A tuple or list.
    Sequence(Vec<Value>),
    /// A dictionary, in its order.
    Dictionary(Vec<(Value, Value)>),
    /// What a call would give: the function and its arguments.
    Call(Value, Value),
    /// Something outside the pickle: a storage.
    Persistent(Value),
}

/// A pickle that was read.
pub struct Pickle<'a> {
    bytes: &'a [u8],
    nodes: Vec<Node>,
    globals: Vec<String>,
    /// Its value.
    pub root: Value,
    /// Its length in bytes; what follows is not part of it.
    pub length: usize,
}

impl<'a> Pickle<'a> {
    /// Reads the pickle at the start of `bytes`. The error says at which byte what is wrong.
    pub fn read(bytes: &'a [u8]) -> Result<Pickle<'a>, String> {
        let bytes = &bytes[..bytes.len().min(LONGEST)];
        let pickle = Pickle { bytes, nodes: Vec::new(), globals: Vec::new(), root: Value::None, length: 0 };
        let mut machine = Machine { pickle, at: 0, stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() };
        loop {
            let start = machine.at;
            match machine.step() {
                Ok(false) => {}
                Ok(true) => break,
                Err(Fault::Forbidden(name)) => {
                    return Err(format!(
                        "it asks for a call of `{name}` (byte {start}), which tensors do not need; nothing was run. Expected a state dict \
                         of tensors as `torch.save(model.state_dict(), ...)` writes it"
                    ));
                }
                Err(Fault::Ends) if bytes.len() == LONGEST => {
                    return Err(format!("its pickle is longer than {LONGEST} bytes; expected names and shapes only"));
                }
                Err(Fault::Ends) => {
                    return Err(format!(
                        "it is truncated: its pickle ends within an operation, at byte {}",
                        bytes.len()
                    ));
                }
                Err(Fault::Bad(what)) => return Err(format!("its pickle is damaged at byte {start}: {what}")),
            }
        }
        let Machine { pickle, at, .. } = machine;
        Ok(Pickle { length: at, ..pickle })
    }

    /// The node of a compound value.
    pub fn node(&self, value: Value) -> Option<&Node> {
        match value {
            Value::Node(n) => self.nodes.get(n as usize),
            _ => None,
        }
    }
    /// What names things outside the pickle.
    pub fn persistent(&self) -> impl Iterator<Item = Value> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Persistent(id) => Some(*id),
            _ => None,
        })
    }
    /// The elements of a tuple or list.
    pub fn sequence(&self, value: Value) -> Option<&[Value]> {
        match self.node(value)? {
            Node::Sequence(items) => Some(items),
            _ => None,
        }
    }
    /// The entries of a dictionary.
    pub fn dictionary(&self, value: Value) -> Option<&[(Value, Value)]> {
        match self.node(value)? {
            Node::Dictionary(entries) => Some(entries),
            _ => None,
        }
    }
    /// The name of a call's function, and its arguments.
    pub fn call(&self, value: Value) -> Option<(&str, &[Value])> {
        match self.node(value)? {
            Node::Call(function, arguments) => Some((self.global(*function)?, self.sequence(*arguments)?)),
            _ => None,
        }
    }
    /// The full name of a function or class.
    pub fn global(&self, value: Value) -> Option<&str> {
        match value {
            Value::Global(n) => self.globals.get(n as usize).map(String::as_str),
            _ => None,
        }
    }
    /// Text in UTF-8.
    pub fn text(&self, value: Value) -> Option<&'a str> {
        match value {
            Value::Text(start, end) => std::str::from_utf8(&self.bytes[start as usize..end as usize]).ok(),
            _ => None,
        }
    }
}

/// Why reading ends early.
enum Fault {
    /// The bytes end.
    Ends,
    /// A function that is not among the harmless ones.
    Forbidden(String),
    /// Anything else.
    Bad(String),
}

type Step<T> = Result<T, Fault>;

fn bad<T>(what: impl Into<String>) -> Step<T> {
    Err(Fault::Bad(what.into()))
}

struct Machine<'a> {
    pickle: Pickle<'a>,
    at: usize,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u64, Value>,
}

impl<'a> Machine<'a> {
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
            Some(mark) => Ok(self.stack.split_off(mark)),
            None => bad("no mark"),
        }
    }
    fn push_node(&mut self, node: Node) {
        self.pickle.nodes.push(node);
        self.stack.push(Value::Node(self.pickle.nodes.len() as u32 - 1));
    }
    fn remember(&mut self, place: u64) -> Step<()> {
        let value = self.top()?;
        self.memo.insert(place, value);
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
        let torch =
            full.strip_prefix("torch.").is_some_and(|n| !n.contains('.') && (n.ends_with("Storage") || is_type(n)));
        if !torch && !HARMLESS.contains(&full.as_str()) && !HARMLESS_TORCH.contains(&full.as_str()) {
            return Err(Fault::Forbidden(full));
        }
        let known = self.pickle.globals.iter().position(|g| *g == full);
        let n = known.unwrap_or_else(|| {
            self.pickle.globals.push(full);
            self.pickle.globals.len() - 1
        });
        self.stack.push(Value::Global(n as u32));
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
        self.push_node(pairs.map_or(Node::Call(function, arguments), Node::Dictionary));
        Ok(())
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
    fn step(&mut self) -> Step<bool> {
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
            b']' | b')' => self.push_node(Node::Sequence(Vec::new())),
            b'}' => self.push_node(Node::Dictionary(Vec::new())),
            0x8f => self.stack.push(Value::None),
            b't' | b'l' => {
                let items = self.pop_mark()?;
                self.push_node(Node::Sequence(items));
            }
            0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0..code - 0x84 {
                    items.insert(0, self.pop()?);
                }
                self.push_node(Node::Sequence(items));
            }
            b'd' => {
                let items = self.pop_mark()?;
                self.push_node(Node::Dictionary(Vec::new()));
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
                self.push_node(Node::Persistent(Value::Text(start as u32, end as u32)));
            }
            b'Q' => {
                let id = self.pop()?;
                self.push_node(Node::Persistent(id));
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

/// Whether the name in `torch` is that of an element type.
fn is_type(name: &str) -> bool {
    let digits = name.trim_start_matches(|c: char| c.is_ascii_lowercase());
    ["float", "bfloat", "int", "uint", "bool"].contains(&name.trim_end_matches(digits))
        && digits.len() <= 2
        && digits.chars().all(|c| c.is_ascii_digit())
}

/// A little-endian two's-complement number, if 64 bits hold it.
fn signed(bytes: &[u8]) -> Option<i64> {
    let Some(&last) = bytes.last() else { return Some(0) };
    let mut full = if last & 0x80 == 0 { [0; 8] } else { [0xFF; 8] };
    full.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i64::from_le_bytes(full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_values() {
        // pickle.dumps({"a": (1, -2, 3.5, None, True), "b": [b"x"]}, protocol=4), unframed
        let bytes = b"\x80\x04}\x94(\x8c\x01a\x94(K\x01J\xfe\xff\xff\xffG@\x0c\x00\x00\x00\x00\x00\x00N\x88t\x94\x8c\x01b\x94]\x94C\x01x\x94au.rest";
        let pickle = Pickle::read(bytes).expect("a pickle");
        assert_eq!(pickle.length, bytes.len() - 4);
        let [(a, tuple), (b, list)] = pickle.dictionary(pickle.root).expect("a dictionary") else { panic!() };
        assert_eq!((pickle.text(*a), pickle.text(*b)), (Some("a"), Some("b")));
        let expected = [Value::Int(1), Value::Int(-2), Value::Float(3.5), Value::None, Value::Bool(true)];
        assert_eq!(pickle.sequence(*tuple), Some(&expected[..]));
        assert_eq!(pickle.text(pickle.sequence(*list).expect("a list")[0]), Some("x"));
    }

    #[test]
    fn calls_are_refused_by_name() {
        for bytes in [
            &b"cos\nsystem\n(S'echo pwned'\ntR."[..],
            b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.",
            b"(S'id'\nios\nsystem\n.",
            b"cbuiltins\neval\n.",
            b"ctorch.hub\nload\n.",
            b"ctorch\nload\n.",
        ] {
            let message = Pickle::read(bytes).err().expect("refused");
            assert!(message.contains("nothing was run") && message.contains("a call of `"), "{message}");
        }
    }

    #[test]
    fn damage_is_told() {
        let message = |bytes: &[u8]| Pickle::read(bytes).err().expect("refused");
        assert_eq!(message(b"\x80\x02}"), "it is truncated: its pickle ends within an operation, at byte 3");
        assert_eq!(message(b"X\xff\xff\xff\xff"), "it is truncated: its pickle ends within an operation, at byte 5");
        assert_eq!(message(b"}a."), "its pickle is damaged at byte 1: the stack is empty");
        assert_eq!(message(b"h\x05."), "its pickle is damaged at byte 0: memo 5 was never set");
        assert_eq!(message(b"\x80\x09."), "its pickle is damaged at byte 0: protocol 9; those up to 5 are read");
        // A tuple in a tuple in a tuple, and so on.
        let mut deep = vec![b')'];
        deep.extend(vec![0x85; 1_000_000]);
        deep.push(b'.');
        assert!(Pickle::read(&deep).is_ok());
    }

    #[test]
    fn element_types_are_known() {
        for name in ["float16", "bfloat16", "int64", "uint8", "bool"] {
            assert!(is_type(name), "{name}");
        }
        for name in ["load", "float16x", "bool_", "compile", "intx", ""] {
            assert!(!is_type(name), "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = Pickle::read(&bytes);
        }
        #[test]
        fn no_operations_make_it_panic(
            codes in proptest::collection::vec(
                proptest::sample::select(&b"(.012NKMJGSVUXB])}tldaesugpqhcRbQ\x80\x81\x85\x86\x87\x88\x8c\x8f\x90\x91\x93\x94\x01\x00\n"[..]),
                0..200,
            ),
        ) {
            let _ = Pickle::read(&codes);
        }
    }
}
