//! What a system itself knows of its doors, for taking it over into the configuration.

use super::{probe::Tools, visionline};
use crate::{
    config::{DriverConfig, ImportRow, SystemConfig},
    model::Refusal,
};

/// What a system lists.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Discovered {
    /// What can be taken over.
    pub rows: Vec<ImportRow>,
    /// What it lists besides, by its own names: its number or its kind is not told.
    pub others: Vec<String>,
}

/// Asks a system for its doors; none where it cannot list them.
///
/// # Errors
/// When it does not answer as it should.
pub async fn discover(system: &SystemConfig, tools: &Tools) -> Option<Result<Discovered, Refusal>> {
    match &system.driver {
        DriverConfig::Visionline(config) => {
            let web = config.web.as_ref()?;
            Some(visionline::web::discover::discover(web, &system.name, tools).await)
        }
        DriverConfig::SaltoIs(_)
        | DriverConfig::KabaMessenger(_)
        | DriverConfig::Ble(_)
        | DriverConfig::Igloohome(_)
        | DriverConfig::Uhppote(_)
        | DriverConfig::CardReader(_)
        | DriverConfig::SimLock(_) => None,
    }
}
