//! Envelopes: SOAP 1.1, document style, byte for byte as clients send them that work with this service.
//!
//! The service's namespace has no slash at its end; its `SOAPAction` has one before the operation. Every prefix is
//! declared where it is first needed, and there is no white space between elements.

use jiff::civil::DateTime;
use uuid::Uuid;

use super::command::{Command, local};
use crate::model::Private;

/// The service's namespace.
const SERVICE: &str = "http://tempuri.org";
/// That of who sends what to whom.
const ADDRESSING: &str = "http://schemas.xmlsoap.org/ws/2004/08/addressing";
/// That of credentials, and of most guests' names.
const SECURITY: &str = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd";
const SOAP: &str = "http://schemas.xmlsoap.org/soap/envelope/";

/// What `Content-Type` says.
pub const CONTENT_TYPE: &str = "text/xml; charset=utf-8";

/// Who asks, and when.
#[derive(Debug, Clone)]
pub struct Header<'a> {
    /// A fixed word for the program.
    pub from: &'a str,
    /// The message's own name.
    pub message_id: Uuid,
    /// The name of its time.
    pub timestamp_id: Uuid,
    /// The name of its credentials.
    pub token_id: Uuid,
    /// The user.
    pub user: &'a str,
    /// The user's password, which travels as it is.
    pub password: &'a Private,
    /// When it was made, in the property's local time.
    pub created: DateTime,
    /// When it is too old.
    pub expires: DateTime,
}

/// The value of the `SOAPAction` header.
#[must_use]
pub fn action(command: &Command) -> String {
    format!("\"{SERVICE}/{}\"", command.name())
}

/// The whole envelope.
#[must_use]
pub fn envelope(command: &Command, header: &Header<'_>) -> Vec<u8> {
    let mut fields = Fields(String::with_capacity(2048));
    fields.0.push_str("<?xml version=\"1.0\" encoding=\"utf-8\"?>");
    fields.within("s", "Envelope", Some(SOAP), |fields| {
        fields.within("s", "Header", None, |fields| spell_header(fields, command, header));
        fields.within("s", "Body", None, |fields| {
            fields.within("t", command.name(), Some(SERVICE), |fields| command.spell(fields));
        });
    });
    fields.0.into_bytes()
}

fn spell_header(fields: &mut Fields, command: &Command, header: &Header<'_>) {
    fields.within("t", "AuthHeader", Some(SERVICE), |fields| {
        fields.leaf("a", "Action", Some(ADDRESSING), &format!("{SERVICE}/{}", command.name()));
        fields.leaf("a", "From", Some(ADDRESSING), header.from);
        fields.leaf("a", "MessageID", Some(ADDRESSING), &header.message_id.to_string());
        fields.group("Security", |fields| {
            fields.within("u", "Timestamp", Some(SECURITY), |fields| {
                fields.leaf("u", "Id", None, &header.timestamp_id.to_string());
                fields.leaf("u", "Created", None, &local(header.created));
                fields.leaf("u", "Expires", None, &local(header.expires));
            });
            fields.within("u", "UsernameToken", Some(SECURITY), |fields| {
                fields.leaf("u", "Id", None, &header.token_id.to_string());
                fields.leaf("u", "Username", None, header.user);
                fields.leaf("u", "Password", None, header.password.expose());
                fields.leaf("u", "Created", None, &local(header.created));
            });
        });
    });
}

/// Elements as they are written one behind the other.
#[derive(Debug)]
pub(super) struct Fields(String);

impl Fields {
    /// A field in the service's namespace.
    pub(super) fn service(&mut self, name: &str, value: &str) {
        self.leaf("t", name, None, value);
    }

    /// A field in the namespace of credentials.
    pub(super) fn security(&mut self, name: &str, value: &str) {
        self.leaf("u", name, Some(SECURITY), value);
    }

    /// A group of fields in the service's namespace.
    pub(super) fn group(&mut self, name: &str, inside: impl FnOnce(&mut Self)) {
        self.within("t", name, None, inside);
    }

    fn leaf(&mut self, prefix: &str, name: &str, declared: Option<&str>, value: &str) {
        self.within(prefix, name, declared, |fields| fields.text(value));
    }

    fn within(&mut self, prefix: &str, name: &str, declared: Option<&str>, inside: impl FnOnce(&mut Self)) {
        self.0.push_str(&format!("<{prefix}:{name}"));
        if let Some(namespace) = declared {
            self.0.push_str(&format!(" xmlns:{prefix}=\"{namespace}\""));
        }
        self.0.push('>');
        inside(self);
        self.0.push_str(&format!("</{prefix}:{name}>"));
    }

    fn text(&mut self, value: &str) {
        for c in value.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                // What cannot be said in XML, or would not be read back as it is.
                _ if !is_sayable(c) => self.0.push(' '),
                _ => self.0.push(c),
            }
        }
    }
}

/// Whether a text is read by the service as it is: names that are not must not be sent, as they might be another's.
#[must_use]
pub fn carries(text: &str) -> bool {
    !text.is_empty() && text.trim() == text && text.chars().all(is_sayable)
}

fn is_sayable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}')
}
