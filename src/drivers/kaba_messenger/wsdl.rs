//! What the service says of itself, against what this driver was written from.

use std::{collections::BTreeSet, fmt};

use crate::drivers::xml::{self, Element, XmlError};

/// The operations of the description that this driver was written from.
pub const OPERATIONS: [&str; 22] = [
    "AddGuestAccess",
    "AddSharedGuest",
    "CancelGuestsAccessToRoom",
    "CancelGuestsMobileAccessToRoom",
    "ChangeGuestAccess",
    "ChangeKeyAccess",
    "CheckOutGuest",
    "CreateNewBooking",
    "CreateOneShotKey",
    "DenyAccessToGuest",
    "ExtendCheckOut",
    "GetDeviceSecKeysRights",
    "GetMobileTransactionHistory",
    "HelloWorldTest",
    "MakeDuplicateKey",
    "MakeUnassignedBooking",
    "PublishFaultList",
    "PublishResponseComplexTypes",
    "ReEstablishAccessToGuest",
    "SendKey2StaffMobileDevice",
    "UnRegisterStaff",
    "UpdateKeyTransactionStatus",
];

/// How a service differs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Difference {
    /// Operations that it does not have.
    pub missing: Vec<String>,
    /// Operations that it has beside.
    pub further: Vec<String>,
    /// Its namespace, where that is another.
    pub namespace: Option<String>,
}

impl Difference {
    /// Whether there is none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        let some = |names: &[String]| {
            names.iter().take(SHOWN).map(|name| shown(name)).collect::<Vec<_>>().join(", ")
        };
        if !self.missing.is_empty() {
            parts.push(format!("its description lacks {}", some(&self.missing)));
        }
        if !self.further.is_empty() {
            parts.push(format!("its description has more than is known: {}", some(&self.further)));
        }
        if let Some(namespace) = &self.namespace {
            parts.push(format!("its namespace is \"{}\"", shown(namespace)));
        }
        f.write_str(&parts.join("; "))
    }
}

/// So many names are told of each kind.
const SHOWN: usize = 30;

/// A name as it may stand before a person: short, and without anything that a terminal obeys.
fn shown(name: &str) -> String {
    name.chars().flat_map(char::escape_debug).take(60).collect()
}

/// Compares a description with [`OPERATIONS`].
///
/// # Errors
/// When it is not XML.
pub fn compare(wsdl: &[u8]) -> Result<Difference, XmlError> {
    let root = xml::read(wsdl, xml::Limits::default())?;
    let found = operations(&root);
    let known = BTreeSet::from(OPERATIONS);
    let owned = |names: Vec<&&str>| names.into_iter().map(|name| (*name).to_owned()).collect();
    Ok(Difference {
        missing: owned(known.difference(&found).collect()),
        further: owned(found.difference(&known).collect()),
        namespace: root
            .attribute("targetNamespace")
            .filter(|namespace| *namespace != "http://tempuri.org")
            .map(str::to_owned),
    })
}

fn operations(root: &Element) -> BTreeSet<&str> {
    let ports = root.all().filter(|it| it.name == "portType");
    let operations = ports.flat_map(|port| port.children.iter().filter(|it| it.name == "operation"));
    operations.filter_map(|operation| operation.attribute("name")).collect()
}

/// A description that says of another one which operations it has, and in the known namespace or in none; it names no server.
///
/// # Errors
/// When the other one is not XML.
pub fn spelled_anew(wsdl: &[u8]) -> Result<Vec<u8>, XmlError> {
    let root = xml::read(wsdl, xml::Limits::default())?;
    let is_name = |name: &&str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let operations = operations(&root).into_iter().filter(is_name);
    let operations: String = operations.map(|name| format!("<w:operation name=\"{name}\"/>")).collect();
    let namespace = match root.attribute("targetNamespace") {
        Some("http://tempuri.org") => " targetNamespace=\"http://tempuri.org\"",
        Some(_) => " targetNamespace=\"urn:another\"",
        None => "",
    };
    Ok(format!(
        "<w:definitions xmlns:w=\"http://schemas.xmlsoap.org/wsdl/\"{namespace}><w:portType>{operations}</w:portType>\
         </w:definitions>"
    )
    .into_bytes())
}
