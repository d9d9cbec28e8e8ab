//! The calls: path, method beside POST, parameters, handler.

mod acs;
mod devices;
mod feed;
mod grants;
mod home;
mod people;
mod related;
mod simulate;
mod spaces;
mod webhooks;

use std::sync::Arc;

use hyper::Method;
use serde_json::{Map, Value, json};

use super::{
    Api,
    pages::Cursors,
    params::{Args, Kind, Param, optional},
    problem::Problem,
};
use crate::{
    cloud::store::{Listed, Page, Tenant},
    grants::Refused,
    model::WorkspaceId,
    seams::BoxFuture,
    store::StoreError,
};

/// What a call answers, without `ok`.
pub(super) type Answer = Result<Map<String, Value>, Problem>;

/// One call.
pub(super) struct Call {
    pub(super) path: &'static str,
    /// Accepted beside POST.
    pub(super) method: Method,
    pub(super) params: &'static [Param],
    pub(super) answers: Answers,
    pub(super) run: fn(Request) -> BoxFuture<'static, Answer>,
}

/// What a call that succeeds answers beside `ok`: a key, and the name of what is there.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answers {
    Nothing,
    One(&'static str, &'static str),
    All(&'static str, &'static str),
    /// All of them, and once more under the key that older clients know.
    AllTwice(&'static str, &'static str, &'static str),
    /// Some of them, and where the others are.
    Pages(&'static str, &'static str),
}

/// One request that passed its checks.
pub(super) struct Request {
    pub(super) api: Arc<Api>,
    pub(super) workspace: WorkspaceId,
    pub(super) args: Args,
    pub(super) path: &'static str,
    pub(super) cursors: Cursors,
    /// Scheme, host and path, for links to the next page.
    pub(super) url: String,
}

impl Request {
    /// Runs an operation on the store as this workspace.
    async fn store<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Tenant<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Problem> {
        let workspace = self.workspace;
        let done = self.api.db.run(move |db| operation(&mut db.tenant(workspace))).await?;
        Ok(done)
    }

    /// The same for an operation that may refuse.
    async fn ask<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Tenant<'_>) -> Result<Result<T, Refused>, StoreError> + Send + 'static,
    ) -> Result<T, Problem> {
        Ok(self.store(operation).await??)
    }

    fn page(&self, default: u32) -> Result<Page, Problem> {
        let limit = self.args.count("limit").unwrap_or(default);
        let after = match self.args.text("page_cursor") {
            None => 0,
            Some(cursor) => {
                let filter = self.args.filter_query();
                self.cursors.read(self.workspace, self.path, &filter, &cursor).ok_or_else(|| {
                    Problem::new(
                        hyper::StatusCode::BAD_REQUEST,
                        "mismatched_page_parameters",
                        "This page_cursor is of a list with other parameters",
                    )
                })?
            }
        };
        Ok(Page { limit, after })
    }

    fn listed<T>(&self, key: &str, listed: &Listed<T>, show: impl Fn(&T) -> Value) -> Answer {
        let filter = self.args.filter_query();
        let cursor = listed.next.map(|next| self.cursors.write(self.workspace, self.path, &filter, next));
        let url = cursor.as_ref().map(|cursor| {
            let and = if filter.is_empty() { "" } else { "&" };
            format!("{}?{filter}{and}page_cursor={cursor}", self.url)
        });
        let mut answer = one(key, listed.rows.iter().map(show).collect())?;
        answer.insert(
            "pagination".into(),
            json!({"has_next_page": cursor.is_some(), "next_page_cursor": cursor, "next_page_url": url}),
        );
        Ok(answer)
    }
}

fn one(key: &str, value: Value) -> Answer {
    Ok(Map::from_iter([(key.to_owned(), value)]))
}

const PAGED: [Param; 2] = [optional("limit", Kind::Count(1_000)), optional("page_cursor", Kind::Text)];

/// The calls for pretend access systems.
pub(super) const SIMULATED: &[Call] = simulate::CALLS;

/// Every call there is, but for those.
pub(super) const CALLS: &[&[Call]] = &[
    acs::CALLS,
    devices::CALLS,
    feed::CALLS,
    grants::CALLS,
    home::CALLS,
    people::CALLS,
    related::CALLS,
    spaces::CALLS,
    webhooks::CALLS,
];
