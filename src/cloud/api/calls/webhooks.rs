//! `webhooks`: who is told of events as they happen.

use hyper::Method;
use serde_json::{Map, Value};

use super::{Answer, Answers, Call, Request, one};
use crate::{
    cloud::{
        api::{
            answers,
            params::{Args, Kind, Param, TEXTS, optional, required},
            problem::Problem,
        },
        webhooks::Target,
    },
    model::{Private, WebhookId},
};

const WHICH: Param = required("webhook_id", Kind::Id);

pub(super) const CALLS: &[Call] = &[
    Call {
        path: "/webhooks/create",
        method: Method::POST,
        params: &[required("url", Kind::Text), optional("event_types", TEXTS)],
        answers: Answers::One("webhook", "webhook"),
        run: |request| Box::pin(create(request)),
    },
    Call {
        path: "/webhooks/get",
        method: Method::GET,
        params: &[WHICH],
        answers: Answers::One("webhook", "webhook"),
        run: |request| Box::pin(get(request)),
    },
    Call {
        path: "/webhooks/list",
        method: Method::GET,
        params: &[],
        answers: Answers::All("webhooks", "webhook"),
        run: |request| Box::pin(list(request)),
    },
    Call {
        path: "/webhooks/update",
        method: Method::PUT,
        params: &[WHICH, required("event_types", TEXTS)],
        answers: Answers::Nothing,
        run: |request| Box::pin(update(request)),
    },
    Call {
        path: "/webhooks/delete",
        method: Method::DELETE,
        params: &[WHICH],
        answers: Answers::Nothing,
        run: |request| Box::pin(delete(request)),
    },
];

async fn create(request: Request) -> Answer {
    let url = request.args.text("url").unwrap_or_default();
    Target::read(&url, request.api.reach)
        .map_err(|why| Problem::invalid_parameter("url", why.to_string()))?;
    let kinds = kinds(&request.args)?.unwrap_or_else(|| vec!["*".into()]);
    let (now, url) = (request.api.clock.now(), Private::new(url));
    let webhook = request.ask(move |tenant| tenant.create_webhook(now, &url, &kinds)).await?;
    one("webhook", answers::webhook(&webhook))
}

async fn get(request: Request) -> Answer {
    let wanted: WebhookId = request.args.the_id("webhook_id")?;
    let webhook = request.ask(move |tenant| tenant.webhook(wanted)).await?;
    one("webhook", answers::webhook(&webhook))
}

async fn list(request: Request) -> Answer {
    let shown =
        request.store(|tenant| Ok(tenant.webhooks()?.iter().map(answers::webhook).collect::<Value>()));
    one("webhooks", shown.await?)
}

async fn update(request: Request) -> Answer {
    let wanted: WebhookId = request.args.the_id("webhook_id")?;
    let kinds = kinds(&request.args)?.unwrap_or_default();
    request.ask(move |tenant| tenant.update_webhook(wanted, &kinds)).await?;
    Ok(Map::new())
}

async fn delete(request: Request) -> Answer {
    let wanted: WebhookId = request.args.the_id("webhook_id")?;
    let now = request.api.clock.now();
    request.ask(move |tenant| tenant.delete_webhook(now, wanted)).await?;
    // What it was owed may go on going.
    request.api.signals.state_changed();
    Ok(Map::new())
}

/// The types of events that were given. Clients name types that nothing here brings about, so only the form is checked.
fn kinds(args: &Args) -> Result<Option<Vec<String>>, Problem> {
    let Some(mut kinds) = args.texts("event_types") else { return Ok(None) };
    let is_type = |kind: &str| {
        kind == "*"
            || (kind.contains('.')
                && kind.split('.').all(|word| {
                    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
                }))
    };
    if kinds.is_empty() {
        let what = "Expected at least one type of event, or \"*\" for all of them";
        return Err(Problem::invalid_parameter("event_types", what));
    }
    if let Some(wrong) = kinds.iter().position(|kind| !is_type(kind)) {
        let path = vec!["event_types".into(), wrong.to_string()];
        let what = "Expected a type of event, e.g. access_method.issued, or \"*\"";
        return Err(Problem::invalid(vec![(path, what.into())]));
    }
    kinds.sort_unstable();
    kinds.dedup();
    Ok(Some(kinds))
}
