//! Reading XML that strangers send: a small tree, or a named reason why not.
//!
//! Everything about it is bounded: bytes, depth, elements, attributes and namespaces. There are no document types and no
//! entities but the five of XML itself, so nothing grows and nothing is fetched. The encoding is UTF-8.
//!
//! Names are local names; each element has its namespace beside it, for whoever cares.

use quick_xml::{
    NsReader,
    events::{BytesRef, BytesStart, Event},
    name::ResolveResult,
};

/// What is put up with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes.
    pub bytes: usize,
    /// Most elements inside one another.
    pub depth: usize,
    /// Most elements.
    pub elements: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 1024 * 1024, depth: 32, elements: 20_000 }
    }
}

/// The longest name of a namespace, in bytes.
const NAMESPACE: usize = 256;
/// Most attributes of one element.
const ATTRIBUTES: usize = 64;
/// Most namespaces that hold at one place.
const NAMESPACES: usize = 128;

/// An element with all that stands in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Element {
    /// Its name without its prefix.
    pub name: String,
    /// Its namespace; empty where it has none.
    pub namespace: String,
    /// Its attributes but those that declare namespaces, by their names without prefix.
    pub attributes: Vec<(String, String)>,
    /// The elements in it, in their order.
    pub children: Vec<Self>,
    /// The text in it, without that of its children.
    pub text: String,
}

/// Why it was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum XmlError {
    /// More bytes, depth, elements, attributes or namespaces than are put up with.
    #[error("the XML has too many {0}")]
    TooMuch(&'static str),
    /// Not UTF-8, or said to be something else.
    #[error("the XML is not in UTF-8 but in {0}")]
    Encoding(String),
    /// It brings a document type.
    #[error("the XML has a document type; that is not read")]
    DocumentType,
    /// It refers to an entity that is none of XML's own.
    #[error("the XML refers to an entity of its own, {0:?}; that is not read")]
    Entity(String),
    /// It is no whole document.
    #[error("not XML: {0}")]
    Malformed(String),
}

impl Element {
    /// The first child of a name.
    #[must_use]
    pub fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// An attribute's value.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// This element and all below it, in the order of the document.
    pub fn all(&self) -> impl Iterator<Item = &Self> {
        let mut waiting = vec![self];
        std::iter::from_fn(move || {
            let next = waiting.pop()?;
            waiting.extend(next.children.iter().rev());
            Some(next)
        })
    }

    /// The text of the first element of a name, this one or below it, without white space around it.
    #[must_use]
    pub fn text_of(&self, name: &str) -> Option<&str> {
        self.all().find(|element| element.name == name).map(|element| element.text.trim())
    }
}

/// Reads a whole document.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn read(bytes: &[u8], limits: Limits) -> Result<Element, XmlError> {
    if bytes.len() > limits.bytes {
        return Err(XmlError::TooMuch("bytes"));
    }
    let text = utf8(bytes)?;
    let mut reader = NsReader::from_str(text);
    reader.config_mut().check_comments = true;
    reader.resolver_mut().set_max_namespace_bindings(NAMESPACES);
    let mut tree = Tree { limits, elements: 0, open: Vec::new(), root: None };
    loop {
        let (namespace, event) = match reader.read_resolved_event() {
            // Each element keeps its own copy.
            Ok((ResolveResult::Bound(namespace), _)) if namespace.as_ref().len() > NAMESPACE => {
                return Err(XmlError::TooMuch("characters of a namespace"));
            }
            Ok((ResolveResult::Bound(namespace), event)) => (namespace.into_inner().to_owned(), event),
            Ok((ResolveResult::Unbound | ResolveResult::Unknown(_), event)) => (String::new(), event),
            Err(error) => return Err(malformed(&error)),
        };
        match event {
            Event::Start(start) => tree.begin(&start, namespace)?,
            Event::Empty(start) => {
                tree.begin(&start, namespace)?;
                tree.end();
            }
            Event::End(_) => tree.end(),
            Event::Text(text) => tree.text(&text.xml10_content())?,
            Event::CData(text) => tree.text(&text.xml10_content())?,
            Event::GeneralRef(entity) => tree.text(&character(&entity)?.to_string())?,
            Event::Decl(declaration) => {
                let encoding = declaration.encoding().transpose().map_err(|error| malformed(&error))?;
                if let Some(other) = encoding.filter(|name| !name.eq_ignore_ascii_case("utf-8")) {
                    return Err(XmlError::Encoding(other.chars().take(32).collect()));
                }
            }
            Event::DocType(_) => return Err(XmlError::DocumentType),
            Event::Comment(_) | Event::PI(_) => {}
            Event::Eof => return tree.whole(),
        }
    }
}

/// The elements that are open, the outermost first.
struct Tree {
    limits: Limits,
    elements: usize,
    open: Vec<Element>,
    root: Option<Element>,
}

impl Tree {
    fn begin(&mut self, start: &BytesStart<'_>, namespace: String) -> Result<(), XmlError> {
        self.elements += 1;
        if self.elements > self.limits.elements {
            return Err(XmlError::TooMuch("elements"));
        }
        if self.open.len() >= self.limits.depth {
            return Err(XmlError::TooMuch("elements inside one another"));
        }
        if self.root.is_some() {
            return Err(XmlError::Malformed("there is something behind its end".into()));
        }
        let name = start.local_name().into_inner().to_owned();
        let attributes = attributes(start)?;
        self.open.push(Element { name, namespace, attributes, ..Element::default() });
        Ok(())
    }

    fn end(&mut self) {
        let Some(element) = self.open.pop() else { return };
        match self.open.last_mut() {
            Some(parent) => parent.children.push(element),
            None => self.root = Some(element),
        }
    }

    fn text(&mut self, text: &str) -> Result<(), XmlError> {
        if let Some(wrong) = text.chars().find(|c| !is_character(*c)) {
            return Err(XmlError::Malformed(format!("it has the character {wrong:?}")));
        }
        match self.open.last_mut() {
            Some(element) => element.text.push_str(text),
            None if text.trim().is_empty() => {}
            None => return Err(XmlError::Malformed("there is text outside of it".into())),
        }
        Ok(())
    }

    fn whole(self) -> Result<Element, XmlError> {
        match (self.open.last(), self.root) {
            (None, Some(root)) => Ok(root),
            (Some(open), _) => Err(XmlError::Malformed(format!("{:?} does not end", open.name))),
            (None, None) => Err(XmlError::Malformed("there is no element".into())),
        }
    }
}

fn attributes(start: &BytesStart<'_>) -> Result<Vec<(String, String)>, XmlError> {
    let mut all = Vec::new();
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| malformed(&error))?;
        if attribute.key.as_namespace_binding().is_some() {
            continue;
        }
        if all.len() >= ATTRIBUTES {
            return Err(XmlError::TooMuch("attributes"));
        }
        let value = quick_xml::escape::unescape(&attribute.value).map_err(|error| malformed(&error))?;
        if let Some(wrong) = value.chars().find(|c| !is_character(*c)) {
            return Err(XmlError::Malformed(format!("it has the character {wrong:?}")));
        }
        all.push((attribute.key.local_name().into_inner().to_owned(), value.into_owned()));
    }
    Ok(all)
}

fn character(entity: &BytesRef<'_>) -> Result<char, XmlError> {
    if let Some(character) = entity.resolve_char_ref().map_err(|error| malformed(&error))? {
        return Ok(character);
    }
    match &*entity.xml10_content() {
        "lt" => Ok('<'),
        "gt" => Ok('>'),
        "amp" => Ok('&'),
        "apos" => Ok('\''),
        "quot" => Ok('"'),
        other => Err(XmlError::Entity(other.chars().take(32).collect())),
    }
}

/// Whether XML 1.0 has this character at all.
fn is_character(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{fffd}' | '\u{10000}'..)
}

fn utf8(bytes: &[u8]) -> Result<&str, XmlError> {
    let other = |name: &str| Err(XmlError::Encoding(name.into()));
    match bytes {
        [0xfe, 0xff, ..] | [0, b'<', ..] => return other("UTF-16 (big end first)"),
        [0xff, 0xfe, ..] | [b'<', 0, ..] => return other("UTF-16 (little end first)"),
        _ => {}
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(_) => other(declared(bytes).unwrap_or("something else, without saying so")),
    }
}

/// What a text that is not UTF-8 says it is.
fn declared(bytes: &[u8]) -> Option<&str> {
    let line = &bytes[..bytes.iter().take(200).position(|byte| *byte == b'>')?];
    let line = std::str::from_utf8(line).ok()?;
    let rest = line.split_once("encoding=")?.1;
    let quote = rest.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    rest[1..].split_once(quote).map(|(name, _)| name)
}

fn malformed(error: &dyn std::fmt::Display) -> XmlError {
    // It may repeat what stands there: a little is enough.
    XmlError::Malformed(error.to_string().chars().take(120).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Element, XmlError> {
        read(text.as_bytes(), Limits::default())
    }

    #[test]
    fn a_name_of_a_namespace_is_bounded_for_each_element_keeps_a_copy() {
        let long = "A".repeat(900_000);
        let text = format!("<a xmlns='{long}'>{}</a>", "<b/>".repeat(20_000));
        assert!(matches!(read_text(&text), Err(XmlError::TooMuch(_))));
        let text = format!("<?xml version='1.0' encoding='{long}'?><a/>");
        let Err(error) = read_text(&text) else { panic!("refused") };
        assert!(error.to_string().len() < 200, "{error}");
    }

    #[test]
    fn a_tree_is_read_with_local_names_beside_their_namespaces() {
        let root = read_text(
            "\u{feff}<?xml version='1.0' encoding='UTF-8'?><!-- x --><s:E xmlns:s='urn:s' xmlns='urn:d'><A b='1 &lt; 2'>\
             t&#233;<![CDATA[<&>]]>&amp;<C/></A><s:A/><n:N/></s:E>\n",
        )
        .unwrap();
        let a = root.child("A").unwrap();
        assert_eq!((root.name.as_str(), root.namespace.as_str()), ("E", "urn:s"));
        assert_eq!(
            (a.namespace.as_str(), a.text.as_str(), a.attribute("b")),
            ("urn:d", "té<&>&", Some("1 < 2"))
        );
        let names: Vec<_> = root.all().map(|it| (it.name.as_str(), it.namespace.as_str())).collect();
        assert_eq!(names, [("E", "urn:s"), ("A", "urn:d"), ("C", "urn:d"), ("A", "urn:s"), ("N", "")]);
        assert_eq!(root.text_of("A"), Some("té<&>&"));
    }

    #[test]
    fn document_types_and_entities_of_its_own_are_refused_by_name() {
        let bomb = "<!DOCTYPE a [<!ENTITY b 'bbbbbbbb'><!ENTITY c '&b;&b;&b;'>]><a>&c;</a>";
        assert_eq!(read_text(bomb), Err(XmlError::DocumentType));
        assert_eq!(read_text("<a>&c;</a>"), Err(XmlError::Entity("c".into())));
        assert!(matches!(read_text("<a b='&c;'/>"), Err(XmlError::Malformed(_))));
        let outside = "<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>";
        assert_eq!(read_text(outside), Err(XmlError::DocumentType));
    }

    #[test]
    fn depth_size_and_number_are_bounded() {
        let nested = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
        assert!(read_text(&nested(32)).is_ok());
        assert_eq!(read_text(&nested(33)), Err(XmlError::TooMuch("elements inside one another")));
        assert_eq!(read_text(&"<a>".repeat(300_000)), Err(XmlError::TooMuch("elements inside one another")));
        let many = format!("<r>{}</r>", "<a/>".repeat(20_000));
        assert_eq!(read_text(&many), Err(XmlError::TooMuch("elements")));
        let long = format!("<r>{}</r>", " ".repeat(1024 * 1024));
        assert_eq!(read_text(&long), Err(XmlError::TooMuch("bytes")));
        let wide: String = (0..65).map(|n| format!(" a{n}='1'")).collect();
        assert_eq!(read_text(&format!("<r{wide}/>")), Err(XmlError::TooMuch("attributes")));
        let spaces: String = (0..200).map(|n| format!(" xmlns:a{n}='urn:{n}'")).collect();
        assert!(matches!(read_text(&format!("<r{spaces}/>")), Err(XmlError::Malformed(_))));
    }

    #[test]
    fn another_encoding_is_refused_by_its_name() {
        let named = |bytes: &[u8]| match read(bytes, Limits::default()) {
            Err(XmlError::Encoding(name)) => name,
            other => panic!("{other:?}"),
        };
        assert_eq!(named(b"<?xml version='1.0' encoding='ISO-8859-1'?><a>\xe9</a>"), "ISO-8859-1");
        assert_eq!(named(b"<?xml version='1.0' encoding=\"windows-1252\"?><a>e</a>"), "windows-1252");
        assert_eq!(named(b"<a>\xe9</a>"), "something else, without saying so");
        assert_eq!(named(b"\xff\xfe<\0a\0/\0>\0"), "UTF-16 (little end first)");
        assert_eq!(named(b"\0<\0a"), "UTF-16 (big end first)");
    }

    #[test]
    fn a_document_cut_at_any_byte_is_none() {
        let whole = "<?xml version=\"1.0\"?><a b=\"c\"><d>é&amp;<![CDATA[x]]></d><!-- y --></a>".as_bytes();
        for cut in 0..whole.len() {
            assert!(read(&whole[..cut], Limits::default()).is_err(), "cut at {cut}");
        }
        assert!(read(whole, Limits::default()).is_ok());
    }

    #[test]
    fn what_is_not_well_formed_is_refused() {
        for wrong in [
            "",
            "a",
            "<a></b>",
            "<a/><b/>",
            "<a/>b",
            "<a b=1/>",
            "<a b='1' b='2'/>",
            "<a>&#0;</a>",
            "<a>&#xFFFE;</a>",
            "<a>\u{1}</a>",
            "<a>& </a>",
            "<a><!-- -- --></a>",
            "</a>",
        ] {
            assert!(
                matches!(read_text(wrong), Err(XmlError::Malformed(_))),
                "{wrong:?}: {:?}",
                read_text(wrong)
            );
        }
    }
}
