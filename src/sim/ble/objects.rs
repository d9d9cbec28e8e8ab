//! The objects that the daemon shows: their properties, and what is below them.

use std::collections::HashMap;

use dbus::arg::{PropMap, RefArg, Variant};

use super::world::{Adapter, Device};

pub(super) const ADAPTER: &str = "org.bluez.Adapter1";
pub(super) const DEVICE: &str = "org.bluez.Device1";
pub(super) const SERVICE: &str = "org.bluez.GattService1";
pub(super) const CHARACTERISTIC: &str = "org.bluez.GattCharacteristic1";

/// What a link carries at a time.
pub(super) const MTU: u16 = 247;

/// All interfaces of one object.
pub(super) type Interfaces = HashMap<String, PropMap>;

pub(super) fn variant<T: RefArg + 'static>(value: T) -> Variant<Box<dyn RefArg>> {
    Variant(Box::new(value))
}

fn path(text: String) -> dbus::Path<'static> {
    dbus::Path::new(text).unwrap_or_else(|_| dbus::Path::from("/"))
}

fn map<const N: usize>(entries: [(&str, Variant<Box<dyn RefArg>>); N]) -> PropMap {
    entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

pub(super) fn adapter(adapter: &Adapter) -> PropMap {
    map([
        ("Address", variant(adapter.address.clone())),
        ("AddressType", variant("public".to_owned())),
        ("Name", variant("latchd".to_owned())),
        ("Alias", variant("latchd".to_owned())),
        ("Class", variant(0_u32)),
        ("Powered", variant(adapter.powered)),
        ("Discoverable", variant(false)),
        ("Pairable", variant(false)),
        ("Discovering", variant(!adapter.discovering.is_empty())),
        ("UUIDs", variant(Vec::<String>::new())),
        ("Roles", variant(vec!["central".to_owned(), "peripheral".to_owned()])),
        ("Modalias", variant("usb:v1D6Bp0246d0542".to_owned())),
    ])
}

/// What an advertisement brings.
pub(super) fn advertised(device: &Device) -> PropMap {
    let shown = device.peripheral.advertisement();
    let data: HashMap<u16, Variant<Box<dyn RefArg>>> =
        shown.manufacturer_data.into_iter().map(|(company, data)| (company, variant(data))).collect();
    let mut properties = map([("RSSI", variant(device.rssi))]);
    if !data.is_empty() {
        properties.insert("ManufacturerData".into(), variant(data));
    }
    properties
}

pub(super) fn device(device: &Device, adapter: &str, is_scanning: bool) -> PropMap {
    let shown = device.peripheral.advertisement();
    let services: Vec<String> = shown.services.iter().map(ToString::to_string).collect();
    let mut properties = map([
        ("Address", variant(device.address.clone())),
        ("AddressType", variant("public".to_owned())),
        ("Paired", variant(device.paired)),
        ("Bonded", variant(device.paired)),
        ("Trusted", variant(false)),
        ("Blocked", variant(false)),
        ("LegacyPairing", variant(false)),
        ("Connected", variant(device.connected)),
        ("ServicesResolved", variant(device.resolved)),
        ("UUIDs", variant(services)),
        ("Adapter", variant(path(format!("/org/bluez/{adapter}")))),
        ("Alias", variant(if shown.name.is_empty() { device.address.clone() } else { shown.name.clone() })),
    ]);
    if !shown.name.is_empty() {
        properties.insert("Name".into(), variant(shown.name));
    }
    let mut heard = advertised(device);
    if device.connected || !is_scanning {
        heard.remove("RSSI");
    }
    properties.extend(heard);
    properties
}

/// The last part of a service's path, and of a characteristic's: four digits that are its handle, and no other's.
pub(super) fn service_node(service: usize) -> String {
    format!("service{:04x}", 0x100 * (service + 1))
}

pub(super) fn characteristic_node(service: usize, characteristic: usize) -> String {
    format!("char{:04x}", 0x100 * (service + 1) + 0x10 * (characteristic + 1) + 1)
}

/// The table of a device: each object's path behind the device's, and its interfaces.
pub(super) fn table(device: &Device, at: &str) -> Vec<(String, Interfaces)> {
    let mut objects = Vec::new();
    for (number, service) in device.services.iter().enumerate() {
        let here = format!("{at}/{}", service_node(number));
        let service_number = number;
        let properties = map([
            ("UUID", variant(service.uuid.to_string())),
            ("Device", variant(path(at.to_owned()))),
            ("Primary", variant(true)),
        ]);
        objects.push((here.clone(), HashMap::from([(SERVICE.to_owned(), properties)])));
        for (number, characteristic) in service.characteristics.iter().enumerate() {
            let flags: Vec<String> = characteristic.flags.iter().map(ToString::to_string).collect();
            let notifying =
                device.notifying.get(&characteristic.uuid).is_some_and(|clients| !clients.is_empty());
            let properties = map([
                ("UUID", variant(characteristic.uuid.to_string())),
                ("Service", variant(path(here.clone()))),
                ("Value", variant(Vec::<u8>::new())),
                ("Notifying", variant(notifying)),
                ("Flags", variant(flags)),
                ("MTU", variant(MTU)),
            ]);
            let path = format!("{here}/{}", characteristic_node(service_number, number));
            objects.push((path, HashMap::from([(CHARACTERISTIC.to_owned(), properties)])));
        }
    }
    objects
}

/// What stands directly below a path.
pub(super) fn introspection(paths: &[String], at: &str) -> String {
    let prefix = if at == "/" { "/".to_owned() } else { format!("{at}/") };
    let mut children: Vec<&str> = paths
        .iter()
        .filter_map(|path| path.strip_prefix(&prefix)?.split('/').next())
        .filter(|name| !name.is_empty())
        .collect();
    children.sort_unstable();
    children.dedup();
    let nodes: String = children.iter().map(|name| format!("<node name=\"{name}\"/>")).collect();
    format!(
        "<!DOCTYPE node PUBLIC \"-//freedesktop//DTD D-BUS Object Introspection 1.0//EN\" \
         \"http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd\">\n<node>{nodes}</node>"
    )
}
