//! Questions put together from the filters that were given.
//!
//! A statement's plan is made before its values are known. A condition that may be absent ("?1 IS NULL OR …") makes the
//! whole of them useless for finding rows; so what is not asked is not in the statement.

use rusqlite::{Row, types::Value};

use crate::store::StoreError;

use super::{Listed, Page, Tenant};

/// Which rows of one table of a workspace, in the order of their making.
pub(super) struct Question {
    select: String,
    /// The table, as the question calls it.
    table: &'static str,
    conditions: String,
    values: Vec<Value>,
    found: Found,
}

/// How the rows are found.
#[derive(PartialEq)]
enum Found {
    /// All of the workspace are looked through, by the index that holds them in the order of their making.
    InOrder,
    /// By an index of the workspace and something else.
    InWorkspace,
    /// By an index of something else.
    Elsewhere,
}

impl Question {
    /// `select` up to its FROM clause and joins, of which `table` is the table that is asked; it is to have a column
    /// `workspace_id`.
    pub(super) fn of(select: impl Into<String>, table: &'static str) -> Self {
        Self {
            select: select.into(),
            table,
            conditions: String::new(),
            values: Vec::new(),
            found: Found::InOrder,
        }
    }

    /// Only rows of which this is true as well. `?#` stands for the value, as often as it occurs.
    pub(super) fn and(mut self, condition: &str, value: Option<impl Into<Value>>) -> Self {
        if let Some(value) = value {
            self.values.push(value.into());
            let number = format!("?{}", self.values.len());
            self.conditions += &format!("\n AND {}", condition.replace("?#", &number));
        }
        self
    }

    /// The same with a condition that is true of few rows, which an index finds.
    pub(super) fn among(mut self, condition: &str, value: Option<impl Into<Value>>) -> Self {
        if value.is_some() {
            self.found = Found::Elsewhere;
        }
        self.and(condition, value)
    }

    /// The same where the index begins with the workspace.
    pub(super) fn within(mut self, condition: &str, value: Option<impl Into<Value>>) -> Self {
        if value.is_some() && self.found == Found::InOrder {
            self.found = Found::InWorkspace;
        }
        self.and(condition, value)
    }

    /// Only rows of which this is true, which nobody else chooses.
    pub(super) fn only(mut self, condition: &str) -> Self {
        self.conditions += &format!("\n AND {condition}");
        self
    }

    /// The statement and its values, for rows in the order that is said.
    pub(super) fn in_order(self, workspace: &str, order: &str, limit: u32) -> (String, Vec<Value>) {
        let Self { select, table, conditions, mut values, found } = self;
        let (own, most) = (values.len() + 1, values.len() + 2);
        values.extend([workspace.to_owned().into(), limit.into()]);
        let workspace = match found {
            Found::InOrder => format!("({table}.workspace_id || '')"),
            Found::InWorkspace => format!("{table}.workspace_id"),
            // With the sign it is judged, and no rows are looked for by it.
            Found::Elsewhere => format!("+{table}.workspace_id"),
        };
        let sql =
            format!("{select}\n WHERE {workspace} = ?{own}{conditions}\n ORDER BY {order} LIMIT ?{most}");
        (sql, values)
    }
}

impl Tenant<'_> {
    /// Asks for a part of a list. The rows have their `rowid` as `place`.
    pub(super) fn listed<T>(
        &self,
        question: Question,
        page: Page,
        mut read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Listed<T>, StoreError> {
        let table = question.table;
        let question = question.and(&format!("{table}.rowid > ?#"), Some(page.after));
        let order = format!("{table}.rowid");
        let (sql, values) = question.in_order(&self.workspace, &order, page.limit.saturating_add(1));
        let rows = self
            .db
            .all(&sql, rusqlite::params_from_iter(values), |row| Ok((row.get("place")?, read(row)?)))?;
        Ok(Listed::cut(rows, page))
    }
}
