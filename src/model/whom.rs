//! How a device with a radio is known.

use std::str::FromStr;

/// How a device with a radio is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// By its address.
    Address([u8; 6]),
    /// By the name that it shows.
    Name(String),
}

impl FromStr for Whom {
    type Err = String;

    /// `AA:BB:CC:DD:EE:FF`, or the name that a peripheral shows.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        if let [a, b, c, d, e, f] = parts.as_slice() {
            let bytes: Result<Vec<u8>, _> =
                [a, b, c, d, e, f].iter().map(|part| u8::from_str_radix(part, 16)).collect();
            let bytes = bytes
                .map_err(|_| format!("`{text}` is no address: it has six pairs of hexadecimal digits"))?;
            return Ok(Self::Address(bytes.try_into().unwrap_or_default()));
        }
        if text.is_empty() || text.contains(':') {
            return Err(format!("`{text}` is neither an address (AA:BB:CC:DD:EE:FF) nor a name"));
        }
        Ok(Self::Name(text.to_owned()))
    }
}
