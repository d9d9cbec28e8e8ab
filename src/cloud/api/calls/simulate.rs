//! `acs/encoders/simulate`: what happens at an encoder next, where the access system is a pretend one. These calls are
//! there only where the operator names simulators.

use hyper::{Method, StatusCode};
use serde_json::Map;

use super::{Answer, Answers, Call, Request};
use crate::{
    cloud::{
        api::{
            params::{Kind, optional, required},
            problem::Problem,
        },
        simulators,
    },
    grants::{Refused, Resource},
    model::{AcsCredentialId, AcsEncoderId},
};

pub(super) const CALLS: &[Call] = &[
    Call {
        path: "/acs/encoders/simulate/next_credential_encode_will_fail",
        method: Method::POST,
        params: &[
            required("acs_encoder_id", Kind::Id),
            optional(
                "error_code",
                Kind::Choice(&[
                    "no_credential_on_encoder",
                    "encoding_interrupted",
                    "uncategorized_error",
                    "action_attempt_expired",
                ]),
            ),
            optional("acs_credential_id", Kind::Id),
        ],
        answers: Answers::Nothing,
        run: |request| Box::pin(fails(request)),
    },
    Call {
        path: "/acs/encoders/simulate/next_credential_encode_will_succeed",
        method: Method::POST,
        params: &[
            required("acs_encoder_id", Kind::Id),
            optional("scenario", Kind::Choice(&["credential_is_issued"])),
        ],
        answers: Answers::Nothing,
        run: |request| Box::pin(lays_blank_card_down(request)),
    },
    Call {
        path: "/acs/encoders/simulate/next_credential_scan_will_fail",
        method: Method::POST,
        params: &[
            required("acs_encoder_id", Kind::Id),
            optional(
                "error_code",
                Kind::Choice(&["no_credential_on_encoder", "uncategorized_error", "action_attempt_expired"]),
            ),
            optional("acs_credential_id_on_seam", Kind::Id),
        ],
        answers: Answers::Nothing,
        run: |request| Box::pin(fails(request)),
    },
    Call {
        path: "/acs/encoders/simulate/next_credential_scan_will_succeed",
        method: Method::POST,
        params: &[
            required("acs_encoder_id", Kind::Id),
            optional(
                "scenario",
                Kind::Choice(&[
                    "credential_exists_on_seam",
                    "credential_on_encoder_needs_update",
                    "credential_does_not_exist_on_seam",
                    "credential_on_encoder_is_empty",
                ]),
            ),
            optional("acs_credential_id_on_seam", Kind::Id),
        ],
        answers: Answers::Nothing,
        run: |request| Box::pin(lays_card_down(request)),
    },
];

/// An encoder of a pretend system.
struct Pretend {
    encoder: String,
    socket: std::path::PathBuf,
}

impl Pretend {
    async fn of(request: &Request) -> Result<Self, Problem> {
        let wanted: AcsEncoderId = request.args.the_id("acs_encoder_id")?;
        let found = request
            .store(move |tenant| {
                let Some(encoder) = tenant.encoder(wanted)? else { return Ok(None) };
                Ok(tenant.system(encoder.system)?.map(|system| (encoder.name, system.name)))
            })
            .await?;
        let (encoder, system) = found.ok_or_else(|| Refused::not_found(Resource::AcsEncoder, wanted))?;
        let socket = request.api.simulators.of(&system).ok_or_else(|| {
            not_simulated(format!("No simulator is configured for the access system {system}"))
        })?;
        Ok(Self { encoder, socket: socket.into() })
    }

    async fn order(&self, orders: &[String]) -> Result<serde_json::Value, Problem> {
        simulators::order(&self.socket, orders).await.map_err(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "a simulator did not do what was asked");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "simulator_unavailable", error.to_string())
        })
    }

    /// Takes away what lies there, and lays another card down.
    async fn place(&self, card: &str) -> Answer {
        self.place_under("fault clear", card).await
    }

    /// The same with something that will go wrong then.
    async fn place_under(&self, fault: &str, card: &str) -> Answer {
        let encoder = &self.encoder;
        let orders = [
            "fault clear".into(),
            fault.to_owned(),
            format!("remove {encoder}"),
            format!("place {card} on {encoder}"),
        ];
        self.order(&orders).await.map(|_| Map::new())
    }
}

fn not_simulated(message: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "not_simulated", message)
}

async fn fails(request: Request) -> Answer {
    let pretend = Pretend::of(&request).await?;
    let fault = match request.args.text("error_code").as_deref() {
        None | Some("no_credential_on_encoder") => "fault error EP 1",
        Some("encoding_interrupted") => "fault write-then-silent 1",
        // The lock server is busy for as long as anybody would wait.
        Some("action_attempt_expired") => "fault busy",
        Some(_) => "fault error ES 1",
    };
    match fault {
        // What is interrupted in the midst of writing has a card to be written on.
        "fault write-then-silent 1" => pretend.place_under(fault, &new_card(&request, "blank")).await,
        _ => pretend.order(&["fault clear".into(), fault.into()]).await.map(|_| Map::new()),
    }
}

fn new_card(request: &Request, kind: &str) -> String {
    format!("simulated-{} {kind}", request.api.random.uuid().simple())
}

async fn lays_blank_card_down(request: Request) -> Answer {
    let pretend = Pretend::of(&request).await?;
    pretend.place(&new_card(&request, "blank")).await
}

async fn lays_card_down(request: Request) -> Answer {
    let pretend = Pretend::of(&request).await?;
    match request.args.text("scenario").as_deref() {
        Some("credential_on_encoder_is_empty") => pretend.place(&new_card(&request, "blank")).await,
        Some("credential_does_not_exist_on_seam") => pretend.place(&new_card(&request, "staff")).await,
        Some("credential_on_encoder_needs_update") => {
            Err(not_simulated("Change the times of the access grant after its card was written"))
        }
        _ => {
            let wanted: AcsCredentialId = request.args.the_id("acs_credential_id_on_seam")?;
            let serial = request.store(move |tenant| tenant.serial_of_card(wanted)).await?;
            let unknown = || {
                let message = format!("There is no credential {wanted}");
                Problem::new(StatusCode::NOT_FOUND, "acs_credential_not_found", message)
            };
            let serial = serial.ok_or_else(unknown)?;
            let cards = pretend.order(&["cards".into()]).await?;
            let card = cards["cards"].as_object().and_then(|cards| {
                cards.iter().find(|(_, card)| card["serial"] == serial.as_str()).map(|(name, _)| name.clone())
            });
            let card = card.ok_or_else(|| not_simulated("The simulator has no such card"))?;
            pretend.place(&card).await
        }
    }
}
