//! Pickles, read as data.
//!
//! A pickle is a program for a stack machine that may call any Python function. Here nothing is ever called: a call is kept as a node with
//! its function's name, and a name that weights have no use for ends the reading. The nodes lie in one vector, so that no nesting,
//! however deep, can exhaust the stack, and strings stay where they are in the file. Length and number of parts are limited, so that no
//! pickle takes more than 200 MB, and one of names and shapes a small multiple of its length.
//!
//! The operations are those of protocols 0 to 5 (Python's `pickletools` describes each).

mod machine;
mod names;

use machine::{Fault, Machine};

/// Longest pickle that is read. It holds names, shapes and settings, and no weights.
pub const LONGEST: usize = 4 << 20;
/// Most nodes and remembered values of a pickle.
const PARTS: usize = 1 << 19;

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
        let mut machine = Machine::new(pickle);
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
                Err(Fault::Large(what)) => {
                    return Err(format!("its pickle {what} (byte {start}); expected names and shapes only"));
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
        deep.extend(vec![0x85; 400_000]);
        assert!(Pickle::read(&[&deep[..], b"."].concat()).is_ok());
    }

    #[test]
    fn what_would_grow_is_refused() {
        let message = |bytes: &[u8]| Pickle::read(bytes).err().expect("refused");
        let many = [vec![b')'; 1 << 20], b"}.".to_vec()].concat();
        assert!(message(&many).contains("has more than 524288 parts"), "{}", message(&many));
        let stacked = [vec![b'N'; 2 << 20], b"}.".to_vec()].concat();
        assert!(message(&stacked).contains("stacks more than 1048576 values"));
        assert!(message(&[b'('; 2 << 20]).contains("stacks more than"));
        let remembered = [&b"N"[..], &[0x94; 1 << 20], b"."].concat();
        assert!(message(&remembered).contains("parts"));
        // A list of 10,000 pairs that is made a dictionary again and again.
        let list = [&b"ccollections\nOrderedDict\nq\x00]("[..], &b"NN\x86".repeat(10_000), b"eq\x01"].concat();
        let copied = [&list[..], &b"h\x00h\x01\x85R".repeat(1000), b"."].concat();
        assert!(message(&copied).contains("parts"));
        let long = [b"N0".repeat(LONGEST), b"}.".to_vec()].concat();
        assert!(message(&long).contains("longer than 4194304 bytes"));
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
