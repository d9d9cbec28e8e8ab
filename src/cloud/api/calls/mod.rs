//! The calls: path, method beside POST, parameters, handler.

mod acs;
mod devices;
mod feed;
mod grants;
mod people;

use std::sync::Arc;

use hyper::Method;
use serde_json::{Map, Value, json};

use super::{
    Api,
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
    pub(super) run: fn(Request) -> BoxFuture<'static, Answer>,
}

/// One request that passed its checks.
pub(super) struct Request {
    pub(super) api: Arc<Api>,
    pub(super) workspace: WorkspaceId,
    pub(super) args: Args,
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
                let read = cursor.split_once('.').and_then(|(place, digest)| {
                    (digest == self.filter_digest()).then(|| place.parse::<u32>().ok())?
                });
                i64::from(read.ok_or_else(|| {
                    Problem::new(
                        hyper::StatusCode::BAD_REQUEST,
                        "mismatched_page_parameters",
                        "This page_cursor is of a list with other parameters",
                    )
                })?)
            }
        };
        Ok(Page { limit, after })
    }

    fn filter_digest(&self) -> String {
        let digest = ring::digest::digest(&ring::digest::SHA256, self.args.filter_query().as_bytes());
        digest.as_ref()[..6].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn listed<T>(&self, key: &str, listed: &Listed<T>, show: impl Fn(&T) -> Value) -> Answer {
        let cursor = listed.next.map(|next| format!("{next}.{}", self.filter_digest()));
        let url = cursor.as_ref().map(|cursor| {
            let filter = self.args.filter_query();
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

/// Every call there is.
pub(super) const CALLS: &[&[Call]] = &[acs::CALLS, devices::CALLS, feed::CALLS, grants::CALLS, people::CALLS];
