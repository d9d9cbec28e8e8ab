//! Requests as the description has them, and answers. A reading of its own.

use jiff::civil::DateTime;
use uuid::Uuid;

use crate::drivers::xml::{self, Element};

const SOAP: &str = "http://schemas.xmlsoap.org/soap/envelope/";
const SERVICE: &str = "http://tempuri.org";
const ADDRESSING: &str = "http://schemas.xmlsoap.org/ws/2004/08/addressing";
const UTILITY: &str = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd";

/// The operations that the description lists.
pub(super) const LISTED: &str = "CreateNewBooking AddSharedGuest MakeDuplicateKey ChangeKeyAccess ChangeGuestAccess \
                                 AddGuestAccess ExtendCheckOut CheckOutGuest DenyAccessToGuest ReEstablishAccessToGuest \
                                 CancelGuestsAccessToRoom CancelGuestsMobileAccessToRoom MakeUnassignedBooking \
                                 CreateOneShotKey UpdateKeyTransactionStatus GetMobileTransactionHistory \
                                 SendKey2StaffMobileDevice UnRegisterStaff GetDeviceSecKeysRights \
                                 PublishResponseComplexTypes PublishFaultList HelloWorldTest";

/// A request as it was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub user: String,
    pub password: String,
    pub asked: Asked,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    Hello,
    Faults,
    Key {
        how: How,
        stay: StayName,
        encoder: String,
    },
    Extend {
        stay: StayName,
        check_out: DateTime,
    },
    CheckOut {
        stay: StayName,
    },
    CancelRoom {
        room: String,
        terminal: String,
    },
    /// Listed, and not imitated.
    Other,
}

impl Asked {
    /// The terminal that it keeps busy; none for what only asks, or is not imitated.
    pub(super) fn terminal(&self) -> Option<&str> {
        match self {
            Self::Key { stay, .. } | Self::Extend { stay, .. } | Self::CheckOut { stay } => {
                Some(&stay.terminal)
            }
            Self::CancelRoom { terminal, .. } => Some(terminal),
            Self::Hello | Self::Faults | Self::Other => None,
        }
    }
}

/// What kind of key is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum How {
    New(Rights),
    Shared(Rights),
    Duplicate,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StayName {
    pub reservation: String,
    pub terminal: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rights {
    pub check_in: DateTime,
    pub check_out: DateTime,
    pub guest: String,
    pub room: String,
    pub common: Vec<u16>,
}

/// Why a request is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wrong {
    /// The framework throws it away: status 500.
    Envelope(String),
    /// The service refuses it by a fault.
    Fault(&'static str, String),
}

type Read<T> = Result<T, Wrong>;

/// Reads a request; `action` is its `SOAPAction`, with its quotes.
pub(super) fn parse(action: &str, body: &[u8]) -> Read<(String, Request)> {
    let envelope = |why: &str| Wrong::Envelope(why.to_owned());
    let root = xml::read(body, xml::Limits::default()).map_err(|error| envelope(&error.to_string()))?;
    if (root.name.as_str(), root.namespace.as_str()) != ("Envelope", SOAP) {
        return Err(envelope("no envelope of SOAP 1.1"));
    }
    let [header, body] = &root.children[..] else { return Err(envelope("no header and body")) };
    if header.name != "Header" || body.name != "Body" || header.namespace != SOAP || body.namespace != SOAP {
        return Err(envelope("no header and body"));
    }
    let [wrapper] = &body.children[..] else { return Err(envelope("not one wrapper")) };
    let name = wrapper.name.clone();
    if wrapper.namespace != SERVICE || !LISTED.split_whitespace().any(|listed| listed == name) {
        return Err(envelope("no such operation in this namespace"));
    }
    if action != format!("\"{SERVICE}/{name}\"") {
        return Err(envelope("SOAPAction names another operation"));
    }
    let (user, password) = credentials(header, &name)?;
    Ok((name, Request { user, password, asked: asked(wrapper)? }))
}

fn credentials(header: &Element, operation: &str) -> Read<(String, String)> {
    let not = |why: &str| Wrong::Fault("AuthHeaderNotRecognized", why.to_owned());
    let [auth] = &header.children[..] else { return Err(not("one header")) };
    if auth.name != "AuthHeader" || auth.namespace != SERVICE {
        return Err(not("its name"));
    }
    let names: Vec<_> = auth.children.iter().map(|it| (it.namespace.as_str(), it.name.as_str())).collect();
    let wanted =
        [(ADDRESSING, "Action"), (ADDRESSING, "From"), (ADDRESSING, "MessageID"), (SERVICE, "Security")];
    if names != wanted {
        return Err(not("its children"));
    }
    if auth.children[0].text != format!("{SERVICE}/{operation}") || !is_uuid(&auth.children[2].text) {
        return Err(not("its action or its message's name"));
    }
    let [timestamp, token] = &auth.children[3].children[..] else { return Err(not("its security")) };
    let texts = |element: &Element, name: &str, wanted: &[&str]| -> Option<Vec<String>> {
        let names: Vec<_> = element.children.iter().map(|it| it.name.as_str()).collect();
        let is_right = element.name == name
            && std::iter::once(element).chain(&element.children).all(|it| it.namespace == UTILITY)
            && names == wanted;
        is_right.then(|| element.children.iter().map(|it| it.text.clone()).collect())
    };
    let times = texts(timestamp, "Timestamp", &["Id", "Created", "Expires"]);
    let said = texts(token, "UsernameToken", &["Id", "Username", "Password", "Created"]);
    let (Some(times), Some(said)) = (times, said) else { return Err(not("its token")) };
    let moments = [&times[1], &times[2], &said[3]].map(|text| time(text));
    let [Ok(created), Ok(expires), Ok(_)] = moments else { return Err(not("its times")) };
    if !is_uuid(&times[0]) || !is_uuid(&said[0]) || expires <= created {
        return Err(not("its times"));
    }
    Ok((said[1].clone(), said[2].clone()))
}

fn is_uuid(text: &str) -> bool {
    text.parse::<Uuid>().is_ok()
}

fn asked(wrapper: &Element) -> Read<Asked> {
    let mut fields = Fields { left: &wrapper.children };
    let asked = match wrapper.name.as_str() {
        "HelloWorldTest" => {
            fields.text(SERVICE, "s1")?;
            fields.text(SERVICE, "i1")?;
            Asked::Hello
        }
        "PublishFaultList" => Asked::Faults,
        "CreateNewBooking" => {
            let (stay, encoder) = (fields.stay()?, fields.text(SERVICE, "EncoderID")?);
            let rights = fields.rights(true)?;
            Asked::Key { how: How::New(rights), stay, encoder }
        }
        "AddSharedGuest" => {
            let (stay, encoder) = (fields.stay()?, fields.text(SERVICE, "EncoderID")?);
            let rights = fields.rights(false)?;
            Asked::Key { how: How::Shared(rights), stay, encoder }
        }
        "MakeDuplicateKey" => {
            let (stay, encoder) = (fields.stay()?, fields.text(SERVICE, "EncoderID")?);
            fields.count()?;
            fields.text(SERVICE, "GuestName")?;
            Asked::Key { how: How::Duplicate, stay, encoder }
        }
        "ExtendCheckOut" => {
            let stay = fields.stay()?;
            Asked::Extend { stay, check_out: time(&fields.text(SERVICE, "CheckOut")?)? }
        }
        "CheckOutGuest" => Asked::CheckOut { stay: fields.stay()? },
        "CancelGuestsAccessToRoom" => {
            fields.text(SERVICE, "SiteName")?;
            let room = fields.text(SERVICE, "MainRoomNo")?;
            Asked::CancelRoom { room, terminal: fields.text(SERVICE, "PMSTerminalID")? }
        }
        _ => return Ok(Asked::Other),
    };
    match fields.left {
        [] => Ok(asked),
        [more, ..] => Err(invalid(&more.name)),
    }
}

/// The fields that are still to be read, in their order.
struct Fields<'e> {
    left: &'e [Element],
}

impl<'e> Fields<'e> {
    fn next(&mut self, namespace: &str, name: &str) -> Option<&'e Element> {
        let (first, rest) = self.left.split_first()?;
        if first.name != name || first.namespace != namespace {
            return None;
        }
        self.left = rest;
        Some(first)
    }

    fn text(&mut self, namespace: &str, name: &str) -> Read<String> {
        let field = self.next(namespace, name).ok_or_else(|| invalid(name))?;
        match field.children.is_empty() && !field.text.is_empty() {
            true => Ok(field.text.clone()),
            false => Err(invalid(name)),
        }
    }

    fn stay(&mut self) -> Read<StayName> {
        let reservation = self.text(SERVICE, "ReservationID")?;
        self.text(SERVICE, "SiteName")?;
        Ok(StayName { reservation, terminal: self.text(SERVICE, "PMSTerminalID")? })
    }

    fn rights(&mut self, suite_doors: bool) -> Read<Rights> {
        let check_in = time(&self.text(SERVICE, "CheckIn")?)?;
        let check_out = time(&self.text(SERVICE, "CheckOut")?)?;
        let guest = self.text(UTILITY, "GuestName")?;
        let room = self.text(SERVICE, "MainRoomNo")?;
        if suite_doors && self.text(SERVICE, "bGrantAccessPredefinedSuiteDoors")? != "false" {
            return Err(invalid("bGrantAccessPredefinedSuiteDoors"));
        }
        let list = self.next(SERVICE, "CommonAreaList");
        let common = list.map_or(&[][..], |list| &list.children[..]).iter().map(area).collect::<Read<_>>()?;
        self.count()?;
        Ok(Rights { check_in, check_out, guest, room, common })
    }

    fn count(&mut self) -> Read<()> {
        if self.text(SERVICE, "KeyCount")? != "1" {
            return Err(invalid("KeyCount"));
        }
        self.text(SERVICE, "KeySize").map(drop)
    }
}

fn area(element: &Element) -> Read<u16> {
    let mut fields = Fields { left: &element.children };
    let level = fields.text(SERVICE, "PassLevelNo")?.parse().map_err(|_| invalid("PassLevelNo"))?;
    let granted = fields.text(SERVICE, "eMode")? == "GrantAccess";
    match granted && element.name == "CCommonAreas" && element.namespace == SERVICE && fields.left.is_empty()
    {
        true => Ok(level),
        false => Err(invalid("CCommonAreas")),
    }
}

fn time(text: &str) -> Read<DateTime> {
    let digits = text.len() == 19 && text.as_bytes()[10] == b'T';
    let parsed = text.parse().ok().filter(|_| digits);
    parsed.ok_or_else(|| invalid(text))
}

fn invalid(field: &str) -> Wrong {
    Wrong::Fault("InvalidWSParameter", format!("{field} is missing, not there, or not understood"))
}

/// A successful answer's body.
pub(super) fn success(operation: &str, is_so: bool) -> String {
    let (code, message) = if is_so { (0, "Success") } else { (1, "not done") };
    in_wrapper(
        operation,
        &format!(
            "<CMessengerResponse><bSuccess>{is_so}</bSuccess><ResponseCode>{code}</ResponseCode>\
             <ResponseMessage>{message}</ResponseMessage></CMessengerResponse>"
        ),
    )
}

/// A fault's body, as it comes with status 200.
pub(super) fn fault(operation: &str, main: &str, detail: &str) -> String {
    in_wrapper(
        operation,
        &format!(
            "<Fault><faultcode>{main}</faultcode><faultstring>refused</faultstring><detailInfo>{detail}</detailInfo>\
             </Fault>"
        ),
    )
}

/// A fault of the framework's, which comes with status 500.
pub(super) fn soap_fault(code: &str, why: &str) -> String {
    in_envelope(&format!(
        "<soap:Fault><faultcode>soap:{code}</faultcode><faultstring>{}</faultstring><detail/></soap:Fault>",
        escaped(why)
    ))
}

fn in_wrapper(operation: &str, inside: &str) -> String {
    in_envelope(&format!(
        "<{operation}Response xmlns=\"{SERVICE}\"><{operation}Result>{inside}</{operation}Result></{operation}Response>"
    ))
}

fn in_envelope(inside: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><soap:Envelope xmlns:soap=\"{SOAP}\"><soap:Body>{inside}</soap:Body>\
         </soap:Envelope>"
    )
}

/// The description, without one of its operations if told so.
pub(super) fn description(without: Option<&str>) -> String {
    let operations: String = LISTED
        .split_whitespace()
        .filter(|name| Some(*name) != without)
        .map(|name| format!("<wsdl:operation name=\"{name}\"/>"))
        .collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><wsdl:definitions xmlns:wsdl=\"http://schemas.xmlsoap.org/wsdl/\" \
         targetNamespace=\"{SERVICE}\"><wsdl:portType name=\"MessengerPMSServiceSoap\">{operations}</wsdl:portType>\
         </wsdl:definitions>"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
