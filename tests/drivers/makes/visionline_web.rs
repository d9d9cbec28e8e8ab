//! Visionline with its Web API beside its PMS text interface.

use std::{fs, os::unix::fs::PermissionsExt};

use jiff::Timestamp;
use latchd::{
    drivers::visionline::sim::Property,
    seams::{BoxFuture, Listener},
};
use serde_json::Value;
use tempfile::TempDir;

use super::{Fault, Layout, Ledger, Make, StartDriver, visionline};
use crate::wire::WEB_PORT;

struct Server {
    text: visionline::Server,
    folder: TempDir,
}

pub(crate) fn start(layout: &Layout, now: Timestamp) -> Box<dyn Make> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, Property::default().web_password).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    Box::new(Server { text: visionline::server(layout, now), folder })
}

impl Make for Server {
    fn serve(&self, listener: Box<dyn Listener>) -> BoxFuture<'static, ()> {
        self.text.serve(listener)
    }

    fn serve_web(&self, listener: Box<dyn Listener>) -> Option<BoxFuture<'static, ()>> {
        let server = self.text.0.clone();
        Some(Box::pin(async move { server.accept_web(listener).await }))
    }

    fn section(&self, layout: &Layout, address: &str) -> String {
        let (host, _) = address.split_once(':').unwrap();
        format!(
            "{}web = {{ url = \"http://{host}:{WEB_PORT}\", user = \"{}\", password_file = \"{}\" }}\n",
            self.text.section(layout, address),
            Property::default().web_user,
            self.folder.path().join("password").display(),
        )
    }

    fn starter(&self) -> StartDriver {
        self.text.starter()
    }

    fn say<'a>(&'a self, words: &'a str) -> BoxFuture<'a, Result<Value, String>> {
        self.text.say(words)
    }

    fn ledger(&self, shown: &Value) -> Ledger {
        self.text.ledger(shown)
    }

    fn ordered(&self, said: &[u8]) -> usize {
        self.text.ordered(said)
    }

    fn fault(&self, fault: Fault) -> String {
        self.text.fault(fault)
    }
}
