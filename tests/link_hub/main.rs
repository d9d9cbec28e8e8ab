//! Both ends of the bridge protocol over real TLS and a real websocket: the link against the hub, and each against a
//! peer that speaks hand-written text.

mod hub;
mod link;
mod peers;
mod road;
mod world;
