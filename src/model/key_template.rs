//! Links to mobile keys, made from a template.

use std::fmt;

use super::{AccessGrantId, AccessMethodId, Private, UserIdentityId};

/// Where mobile keys are handed out: an `https` address with placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyTemplate(String);

/// Why a text is no template for links to mobile keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyTemplateError {
    /// It would be sent in the clear, or is no address at all.
    #[error("{0:?} does not begin with https:// and a host")]
    NotHttps(String),
    /// A placeholder that does not exist.
    #[error("there is no placeholder {{{0}}}")]
    UnknownPlaceholder(String),
    /// A brace without its partner.
    #[error("a brace stands alone")]
    LoneBrace,
    /// A character that no address may have.
    #[error("{0:?} may not stand in an address")]
    Character(char),
    /// Nothing in it tells one key from another.
    #[error("without {{access_method_id}} or {{token}} every key would have the same link")]
    SameForAll,
}

/// What a link is for.
#[derive(Debug)]
pub struct KeyLink<'a> {
    /// The method.
    pub method: AccessMethodId,
    /// Its grant.
    pub grant: AccessGrantId,
    /// Whose.
    pub identity: UserIdentityId,
    /// What nobody can guess.
    pub token: &'a str,
}

impl KeyTemplate {
    /// The placeholders, without braces.
    pub const PLACEHOLDERS: [&'static str; 4] =
        ["access_grant_id", "access_method_id", "user_identity_id", "token"];

    /// Checks and takes a template.
    ///
    /// # Errors
    /// When no link that works could come of it.
    pub fn new(text: &str) -> Result<Self, KeyTemplateError> {
        let host = text.strip_prefix("https://").and_then(|rest| rest.split(['/', '?', '#']).next());
        if host.is_none_or(|host| host.is_empty() || host.contains(['{', '}'])) {
            return Err(KeyTemplateError::NotHttps(text.to_owned()));
        }
        if let Some(wrong) = text.chars().find(|c| !c.is_ascii_graphic() || "\"<>\\^`|".contains(*c)) {
            return Err(KeyTemplateError::Character(wrong));
        }
        let mut tells_apart = false;
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let Some(inside) = rest[at..].strip_prefix('{') else { return Err(KeyTemplateError::LoneBrace) };
            let (name, after) = inside.split_once('}').ok_or(KeyTemplateError::LoneBrace)?;
            if !Self::PLACEHOLDERS.contains(&name) {
                return Err(KeyTemplateError::UnknownPlaceholder(name.to_owned()));
            }
            tells_apart |= ["access_method_id", "token"].contains(&name);
            rest = after;
        }
        if !tells_apart {
            return Err(KeyTemplateError::SameForAll);
        }
        Ok(Self(text.to_owned()))
    }

    /// The link for one key. Who has it has the key.
    #[must_use]
    pub fn link(&self, key: &KeyLink<'_>) -> Private {
        let mut link = self.0.clone();
        for (name, value) in [
            ("access_grant_id", &key.grant as &dyn fmt::Display),
            ("access_method_id", &key.method),
            ("user_identity_id", &key.identity),
            ("token", &key.token),
        ] {
            link = link.replace(&format!("{{{name}}}"), &value.to_string());
        }
        Private::new(link)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_link_is_the_template_with_its_placeholders_filled() {
        let template =
            KeyTemplate::new("https://keys.example/{user_identity_id}/k?t={token}&t2={token}").unwrap();
        let id = Uuid::from_u128(7);
        let (method, grant, identity) = (id.into(), id.into(), id.into());
        let link = template.link(&KeyLink { method, grant, identity, token: "4f2a" });
        assert_eq!(
            link.expose(),
            "https://keys.example/00000000-0000-0000-0000-000000000007/k?t=4f2a&t2=4f2a"
        );
    }

    #[test]
    fn what_could_not_become_a_link_is_refused() {
        use KeyTemplateError::*;
        for (text, expected) in [
            ("http://keys.example/{token}", NotHttps("http://keys.example/{token}".into())),
            ("keys.example/{token}", NotHttps("keys.example/{token}".into())),
            ("https:///{token}", NotHttps("https:///{token}".into())),
            ("https://{token}/", NotHttps("https://{token}/".into())),
            ("https://keys.example/{pin}", UnknownPlaceholder("pin".into())),
            ("https://keys.example/{token", LoneBrace),
            ("https://keys.example/token}", LoneBrace),
            ("https://keys.example/ {token}", Character(' ')),
            ("https://keys.example/{access_grant_id}", SameForAll),
        ] {
            assert_eq!(KeyTemplate::new(text), Err(expected), "{text}");
        }
    }
}
